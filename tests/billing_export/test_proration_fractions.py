"""Proration: parts of a period by the second and by the local day, and what a change of plan costs."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_export.proration import Span, fraction_of, local_days, plan_change_net, without
from schemas.charges import Proration
from schemas.errors import InvariantViolationError

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Sao_Paulo")


def day(text: str, zone: str = "UTC") -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(dt.UTC)


def span(first: str, last: str, zone: str = "UTC") -> Span:
    return day(first, zone), day(last, zone)


@pytest.mark.parametrize(
    ("active", "by_day", "by_second"),
    [
        (("2013-01-01", "2013-02-01"), Fraction(1), Fraction(1)),
        (("2013-01-22", "2013-02-01"), Fraction(10, 31), Fraction(10, 31)),
        (("2013-01-31T23:59:59", "2013-02-01"), Fraction(1, 31), Fraction(1, 31 * 86_400)),
        (("2013-01-10T12:00:00", "2013-01-11T12:00:00"), Fraction(2, 31), Fraction(1, 31)),
        (("2013-01-10", "2013-01-10"), Fraction(0), Fraction(0)),
    ],
)
def test_a_part_is_counted_in_days_it_touches_or_in_seconds(
    active: tuple[str, str], by_day: Fraction, by_second: Fraction
) -> None:
    whole = span("2013-01-01", "2013-02-01")

    assert fraction_of(whole, span(*active), proration=Proration.DAY, timezone="UTC") == by_day
    assert fraction_of(whole, span(*active), proration=Proration.SECOND, timezone="UTC") == by_second
    assert fraction_of(whole, span(*active), proration=Proration.NONE, timezone="UTC") == (1 if by_day else 0)


def test_a_day_of_23_hours_is_one_day_and_23_hours() -> None:
    zone = "Europe/Berlin"
    whole = span("2013-03-01", "2013-04-01", zone)
    last = span("2013-03-31", "2013-04-01", zone)

    assert fraction_of(whole, last, proration=Proration.DAY, timezone=zone) == Fraction(1, 31)
    assert fraction_of(whole, last, proration=Proration.SECOND, timezone=zone) == Fraction(23, 31 * 24 - 1)


def test_rests_are_cut_out_and_a_day_that_is_only_begun_to_rest_counts() -> None:
    whole = span("2013-01-01", "2013-02-01")
    rests = [span("2013-01-10T06:00:00", "2013-01-20"), span("2013-01-15", "2013-01-21")]

    assert fraction_of(whole, whole, proration=Proration.DAY, timezone="UTC", rests=rests) == Fraction(21, 31)
    assert fraction_of(whole, whole, proration=Proration.SECOND, timezone="UTC", rests=rests) == Fraction(81, 124)
    assert fraction_of(whole, whole, proration=Proration.NONE, timezone="UTC", rests=[whole]) == 0


def test_a_part_that_lies_outside_is_no_part() -> None:
    whole = span("2013-01-01", "2013-02-01")

    with pytest.raises(InvariantViolationError, match="is no part of 2013-01-01"):
        fraction_of(whole, span("2012-12-31", "2013-01-02"), proration=Proration.DAY, timezone="UTC")
    with pytest.raises(InvariantViolationError, match="is no part"):
        fraction_of(whole[::-1], whole, proration=Proration.SECOND, timezone="UTC")


@given(
    zone=st.sampled_from(ZONES),
    month=st.integers(1, 12),
    cuts=st.sets(st.integers(1, 27), max_size=5),
    proration=st.sampled_from([Proration.DAY, Proration.SECOND]),
)
def test_parts_that_meet_at_local_midnights_add_up_to_their_whole(
    zone: str, month: int, cuts: set[int], proration: Proration
) -> None:
    first = dt.datetime(2013, month, 1, tzinfo=ZoneInfo(zone))
    after = dt.datetime(2013 + month // 12, month % 12 + 1, 1, tzinfo=ZoneInfo(zone))
    borders = [first, *(first.replace(day=cut + 1) for cut in sorted(cuts)), after]
    instants = [border.astimezone(dt.UTC) for border in borders]
    whole = (instants[0], instants[-1])

    parts = [fraction_of(whole, active, proration=proration, timezone=zone) for active in pairwise(instants)]

    assert sum(parts) == 1


def test_local_days_are_those_of_the_customers_clock() -> None:
    assert list(local_days(span("2013-01-01T22:00:00", "2013-01-01T23:30:00"), "Europe/Berlin")) == [
        dt.date(2013, 1, 1),
        dt.date(2013, 1, 2),
    ]
    assert list(local_days(span("2013-01-01", "2013-01-01"), "UTC")) == []


@given(edges=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=5))
def test_what_is_left_without_rests_is_what_no_rest_covers(edges: list[tuple[int, int]]) -> None:
    start = day("2013-01-01")
    hour = dt.timedelta(hours=1)
    rests = [(start + min(pair) * hour, start + max(pair) * hour) for pair in edges]
    active = (start + 5 * hour, start + 45 * hour)

    left = [(first, last) for first, last in without(active, rests)]

    covered = {one for one in range(5, 45) if any(min(pair) <= one < max(pair) for pair in edges)}
    told = {one for one in range(5, 45) if any(first <= start + one * hour < last for first, last in left)}
    assert told == set(range(5, 45)) - covered
    assert all(first < last for first, last in left)


def test_a_change_of_plan_credits_the_unused_and_charges_the_rest_each_in_whole_cents() -> None:
    net = plan_change_net(Decimal(10), Decimal(20), Fraction(17, 31), "USD")

    assert (net.credit, net.charge, net.net) == (Decimal("-5.48"), Decimal("10.97"), Decimal("5.49"))
