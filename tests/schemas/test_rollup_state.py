"""The rollup state against plain lists of events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.meter import Aggregation
from schemas.rollup import DIGEST_MODULUS, EMPTY, LogMoment, RollupState, average, merge, quantity

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)

values = st.decimals(min_value=Decimal(-(10**18) + 1), max_value=Decimal(10**18 - 1), places=12)
moments = st.builds(
    LogMoment,
    time=st.integers(0, 2).map(lambda s: NOON + timedelta(seconds=s)),
    epoch=st.sampled_from(["a", "b"]),
    partition=st.integers(0, 2),
    offset=st.integers(0, 3),
)


def of_one(value: Decimal, moment: LogMoment, digest: int = 0) -> RollupState:
    return RollupState(
        events_count=1,
        value_sum=value,
        value_min=value,
        value_max=value,
        value_latest=value,
        latest_at=moment,
        digest=digest,
        position=moment.offset,
    )


states = st.one_of(
    st.just(EMPTY),
    st.builds(of_one, values, moments, st.integers(0, DIGEST_MODULUS - 1)),
    st.builds(
        lambda digest, at: RollupState(events_count=1, digest=digest, position=at), st.integers(0, 9), st.integers(0, 9)
    ),
)


@given(states, states, states)
def test_merging_is_associative_and_the_empty_state_changes_nothing(
    first: RollupState, second: RollupState, third: RollupState
) -> None:
    assert merge(merge(first, second), third) == merge(first, merge(second, third))
    assert merge(EMPTY, first) == first == merge(first, EMPTY)


@given(states, states)
def test_merging_does_not_mind_the_order(left: RollupState, right: RollupState) -> None:
    if left.latest_at is not None and left.latest_at == right.latest_at:
        right = msgspec.structs.replace(right, value_latest=left.value_latest)  # one place in the log holds one event
    assert merge(left, right) == merge(right, left)


@given(st.dictionaries(moments, values, min_size=1, max_size=8))
def test_a_merged_state_says_what_its_events_say(events: dict[LogMoment, Decimal]) -> None:
    state = EMPTY
    for moment, value in events.items():
        state = merge(state, of_one(value, moment))

    assert quantity(Aggregation.COUNT, state, 0) == len(events)
    total = quantity(Aggregation.SUM, state, 0)
    assert total is not None
    assert Fraction(total) == sum(Fraction(one) for one in events.values())
    assert quantity(Aggregation.MIN, state, 0) == min(events.values())
    assert quantity(Aggregation.MAX, state, 0) == max(events.values())
    assert quantity(Aggregation.LATEST, state, 0) == events[max(events)]
    assert quantity(Aggregation.UNIQUE_COUNT, state, 3) == 3


def test_of_events_at_the_same_time_the_last_in_epoch_partition_and_offset_is_the_latest() -> None:
    at_offset_9 = of_one(Decimal(1), LogMoment(time=NOON, epoch="a", partition=0, offset=9))
    at_partition_1 = of_one(Decimal(2), LogMoment(time=NOON, epoch="a", partition=1, offset=0))
    in_epoch_b = of_one(Decimal(3), LogMoment(time=NOON, epoch="b", partition=0, offset=0))

    assert merge(at_offset_9, at_partition_1).value_latest == 2
    assert merge(in_epoch_b, at_partition_1).value_latest == 3


def test_digests_are_added_modulo_two_to_the_128th() -> None:
    assert merge(RollupState(digest=DIGEST_MODULUS - 1), RollupState(digest=3)).digest == 2


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [
        ("10", 4, "2.5"),
        ("1", 3, "0.333333333333"),
        ("2", 3, "0.666666666667"),
        ("-2", 3, "-0.666666666667"),
        ("0.000000000001", 2, "0.000000000001"),
        ("-0.000000000001", 2, "-0.000000000001"),
        ("0.000000000001", 3, "0"),
        ("0", 7, "0"),
        ("9" * 30 + "." + "9" * 12, 1, "9" * 30 + "." + "9" * 12),
    ],
)
def test_an_average_has_twelve_decimals_and_rounds_half_away_from_zero(total: str, count: int, expected: str) -> None:
    assert average(Decimal(total), count) == Decimal(expected)


@given(values, st.integers(1, 10**9))
def test_an_average_is_never_off_by_more_than_half_a_unit_of_its_last_decimal(total: Decimal, count: int) -> None:
    found = average(total, count)
    assert found is not None
    assert abs(Fraction(found) - Fraction(total) / count) <= Fraction(1, 2 * 10**12)


def test_nothing_has_a_count_and_a_sum_of_zero_and_no_other_quantity() -> None:
    found = {aggregation.value: quantity(aggregation, EMPTY, 0) for aggregation in Aggregation}

    none = dict.fromkeys(("min", "max", "avg", "latest", "time_weighted"))
    assert found == {"count": 0, "sum": 0, "unique_count": 0, **none}
