"""The rollup state against plain lists of events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.meter import Aggregation, TimeUnit
from schemas.quantity import EXACT
from schemas.rollup import (
    DIGEST_MODULUS,
    EMPTY,
    LogMoment,
    RollupState,
    average,
    integral,
    merge,
    moment,
    quantity,
    time_weighted,
)

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
NEW_YEAR = datetime(2013, 1, 1, tzinfo=UTC)

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
    for at, value in events.items():
        state = merge(state, of_one(value, at))

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


changes = st.lists(st.tuples(values, st.integers(0, 10**9)), max_size=8)


def weighted(events: list[tuple[Decimal, int]], start_us: int, end_us: int) -> Decimal:
    """The integral over a range of microseconds since 2013, by way of the state of the changes within it."""
    state, balance = EMPTY, Decimal(0)
    for value, at_us in events:
        if at_us < start_us:
            balance = EXACT.add(balance, value)
        elif at_us < end_us:
            time = NEW_YEAR + timedelta(microseconds=at_us)
            state = merge(state, RollupState(events_count=1, value_sum=value, value_moment=moment(value, time)))
    start, end = (NEW_YEAR + timedelta(microseconds=one) for one in (start_us, end_us))
    return integral(balance, state, start, end)


@given(changes, st.integers(0, 10**9), st.integers(1, 10**9))
def test_an_integral_is_what_each_change_lasted(events: list[tuple[Decimal, int]], start_us: int, for_us: int) -> None:
    end_us = start_us + for_us

    plain = sum(Fraction(value) * max(0, end_us - max(at_us, start_us)) for value, at_us in events)

    assert Fraction(weighted(events, start_us, end_us)) * 10**6 == plain


@given(changes, st.lists(st.integers(0, 10**9), min_size=3, max_size=6, unique=True).map(sorted))
def test_the_integrals_of_the_parts_of_a_range_add_up(events: list[tuple[Decimal, int]], edges: list[int]) -> None:
    parts = [weighted(events, start, end) for start, end in pairwise(edges)]

    total = Decimal(0)
    for part in parts:
        total = EXACT.add(total, part)
    assert total == weighted(events, edges[0], edges[-1])


@pytest.mark.parametrize(
    ("unit_seconds", "unit", "expected"),
    [
        ("7200", TimeUnit.HOUR, "2"),
        ("-5400", TimeUnit.HOUR, "-1.5"),
        ("86400", TimeUnit.DAY, "1"),
        ("1", TimeUnit.HOUR, "0.000277777778"),
        ("-1", TimeUnit.HOUR, "-0.000277777778"),
        ("0.0000000000005", TimeUnit.SECOND, "0"),
        ("0.0000000000015", TimeUnit.SECOND, "0.000000000002"),
        ("-0.0000000000005", TimeUnit.SECOND, "0"),
        ("-0.0000000000015", TimeUnit.SECOND, "-0.000000000002"),
        ("0.000000000000500001", TimeUnit.SECOND, "0.000000000001"),
        ("90", TimeUnit.MINUTE, "1.5"),
    ],
)
def test_an_integral_in_a_unit_of_time_is_rounded_half_even(unit_seconds: str, unit: TimeUnit, expected: str) -> None:
    assert time_weighted(Decimal(unit_seconds), unit) == Decimal(expected)
