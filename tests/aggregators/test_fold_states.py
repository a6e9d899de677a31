"""Folding against merging: however a stream is cut, the pieces together are the whole."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aggregators.decide import Accepted, Decision
from aggregators.fold import Fold
from aggregators.partition import Partition, known_days_filter
from aggregators.state import State
from aggregators.store import LedgerEnd
from schemas.admission import Admission
from schemas.meter import Aggregation, Meter, MeterVersion
from schemas.rollup import EMPTY, LogMoment, RollupState, merge
from schemas.usage_event import UsageEvent, decode_event, event_digest

START = datetime(2013, 1, 1, tzinfo=UTC)
NUMBERS = ["0", "1", "-1", "0.000000000001", "999999999999999999.999999999999", "-999999999999999999.999999999999"]
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3_600_000_000),
        st.sampled_from(NUMBERS) | st.none(),
        st.sampled_from(["a", "b"]),
        st.sampled_from("xyz"),
    ),
    max_size=25,
)
VERSIONS = {
    kind: MeterVersion(
        meter=Meter(
            name=kind.value,
            event_type="t",
            aggregation=kind,
            value={Aggregation.COUNT: None, Aggregation.UNIQUE_COUNT: "u"}.get(kind, "n"),
            group_by={"k": "k"},
        ),
        version=1,
        introduced_in=1,
        start=None,
        end=None,
    )
    for kind in Aggregation
}
ADMISSION = Admission(VERSIONS.values(), [])

Plain = tuple[int, str | None, str, str]


def event(offset: int, one: Plain) -> UsageEvent:
    after_us, number, kind, user = one
    text = json.dumps(
        {
            "specversion": "1.0",
            "id": str(offset),
            "source": "s",
            "type": "t",
            "subject": "u",
            "time": (START + timedelta(microseconds=after_us)).isoformat(),
            "data": {"n": number, "k": kind, "u": user},
        }
    )
    return decode_event(text.encode())


def folded(events: list[tuple[int, Plain]], partition: Partition | None = None) -> Partition:
    if partition is None:
        partition = Partition(LedgerEnd(next_offset=0, starts={}), known_days_filter([]))
        partition.begin_catalog(1, list(VERSIONS.values()))
    found = [(offset, event(offset, one)) for offset, one in events]
    accepted = [
        Accepted(one, offset, 0, event_digest(str(offset).encode()), b"", True, ADMISSION.measurements(one))
        for offset, one in found
    ]
    decision = Decision(
        epoch="e",
        topic="t",
        partition=0,
        first=0,
        last=max((offset for offset, _ in events), default=0),
        logged_at_last_ms=0,
        accepted=accepted,
        duplicate=0,
        rejected=[],
        absent=0,
    )
    partition.take_in(decision, lambda _days, _series: {})
    return partition


def states(partition: Partition) -> dict[tuple[object, ...], RollupState]:
    changed = partition.fold.take_dirty()
    return {(day, *key): as_rollup(state) for rows in changed.states.values() for day, key, state in rows}


def as_rollup(state: State) -> RollupState:
    latest = None
    if state.value_latest is not None:
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=state.latest_time_us)
        latest = LogMoment(time=time, epoch="e", partition=0, offset=state.latest_offset)
    return RollupState(
        events_count=state.events_count,
        value_sum=state.value_sum,
        value_min=state.value_min,
        value_max=state.value_max,
        value_latest=state.value_latest,
        latest_at=latest,
        digest=state.digest,
        position=state.position,
    )


@given(EVENTS, st.lists(st.integers(0, 25), max_size=4))
def test_pieces_of_a_stream_merge_into_what_the_whole_stream_folds_to(events: list[Plain], cuts: list[int]) -> None:
    log = list(enumerate(events))
    borders = sorted({0, len(log), *(cut for cut in cuts if cut <= len(log))})

    together: dict[tuple[object, ...], RollupState] = {}
    for first, last in pairwise(borders):
        for key, state in states(folded(log[first:last])).items():
            together[key] = merge(together.get(key, EMPTY), state)

    assert together == states(folded(log))


@given(EVENTS, st.integers(0, 25))
def test_folding_part_of_a_stream_again_changes_nothing(events: list[Plain], until: int) -> None:
    log = list(enumerate(events))
    whole = folded(log)
    before = states(whole)

    folded(log[:until], whole)

    changed = whole.fold.take_dirty()
    assert not any(changed.states.values())
    assert not any(changed.members.values())
    assert before == states(folded(log))


@given(EVENTS)
def test_members_are_reported_once_at_the_offset_that_brought_them(events: list[Plain]) -> None:
    log = list(enumerate(events))
    seen: dict[tuple[int, str, str], int] = {}
    for offset, (after_us, _, kind, user) in log:
        seen.setdefault((after_us // 900_000_000, kind, user), offset)

    members = [row for rows in folded(log).fold.take_dirty().members.values() for row in rows]

    base = int(START.timestamp())
    found = {((key[2] - base) // 900, key[3][0], member): offset for _, key, member, offset, _, _ in members}
    assert found == seen
    assert len(members) == len(seen)


def test_a_window_begins_with_its_first_microsecond_and_ends_before_the_next() -> None:
    edge_us = 900_000_000
    log: list[tuple[int, Plain]] = [(0, (edge_us - 1, "1", "a", "x")), (1, (edge_us, "2", "a", "x"))]

    sums = {key[3]: state.value_sum for key, state in states(folded(log)).items() if key[1] == "sum"}

    base = int(START.timestamp())
    assert sums == {base: Decimal(1), base + 900: Decimal(2)}


def test_only_days_that_may_be_forgotten_are() -> None:
    fold = Fold()
    for number in range(4):
        fold.put_day(("u", number), {("m", 1, number * 86_400, ()): State()})
    fold.touch([("u", 0)])

    fold.forget(2, frozenset({("u", 1)}))

    assert [fold.holds(("u", number)) for number in range(4)] == [True, True, False, False]
    assert fold.keys_count == 2
