"""The worker's fold and the frozen rollup state are two ways to the same numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from aggregators.fold import Fold
from aggregators.state import EPOCH_START, Moment, Series, State
from schemas.meter import Aggregation, Measurement, Meter, MeterVersion
from schemas.rollup import EMPTY, LogMoment, RollupState, merge

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
METER = Meter(name="sum", event_type="used", aggregation=Aggregation.SUM, value="n")
SERIES = Series(MeterVersion(meter=METER, version=1, introduced_in=1, start=None, end=None), 0)

events = st.lists(
    st.tuples(
        st.integers(0, 899),
        st.decimals(Decimal(-(10**18) + 1), Decimal(10**18 - 1), places=12),
        st.integers(0, 2**128 - 1),
    ),
    min_size=1,
    max_size=12,
)


def of_event(partition: int, offset: int, second: int, value: Decimal, digest: int) -> RollupState:
    moment = LogMoment(time=NOON + timedelta(seconds=second), epoch="log", partition=partition, offset=offset)
    return RollupState(
        events_count=1,
        value_sum=value,
        value_min=value,
        value_max=value,
        value_latest=value,
        latest_at=moment,
        digest=digest,
        position=offset,
    )


def folded(partition: int, events: list[tuple[int, Decimal, int]]) -> RollupState:
    fold = Fold()
    fold.put_day(("s1", Moment(NOON).day), {})
    for offset, (second, value, digest) in enumerate(events):
        moment = Moment(NOON + timedelta(seconds=second))
        fold.add(
            ("s1", moment.day), moment, offset, digest, [(SERIES, Measurement(dimensions=(), value=value, member=""))]
        )
    [[(_, _, state)]] = fold.take_dirty().states.values()
    return as_written(partition, state)


def as_written(partition: int, state: State) -> RollupState:
    """The state as its row in `rollups` says it."""
    latest_time = EPOCH_START + timedelta(microseconds=state.latest_time_us)
    return RollupState(
        events_count=state.events_count,
        value_sum=state.value_sum,
        value_min=state.value_min,
        value_max=state.value_max,
        value_latest=state.value_latest,
        latest_at=LogMoment(
            time=latest_time,
            epoch="log",
            partition=partition,
            offset=state.latest_offset,
        ),
        digest=state.digest,
        position=state.position,
    )


@given(events, events)
def test_states_of_two_partitions_merge_into_what_their_events_merge_into(
    first: list[tuple[int, Decimal, int]], second: list[tuple[int, Decimal, int]]
) -> None:
    one_by_one = EMPTY
    for partition, log in enumerate((first, second)):
        for offset, event in enumerate(log):
            one_by_one = merge(one_by_one, of_event(partition, offset, *event))

    assert merge(folded(0, first), folded(1, second)) == one_by_one
