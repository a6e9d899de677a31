"""Stocks: a balance over time, exactly, and what a charge prices of it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from billing_export.balance import (
    BalanceChange,
    Stock,
    closing,
    highest,
    highest_by_day,
    integral,
    stock_usage,
)
from billing_export.rate import rate
from schemas.charges import GraduatedCharge, PerUnitCharge, Proration, Tier, TimeUnit, VolumeCharge
from schemas.errors import InvariantViolationError

START = dt.datetime(2013, 4, 1, tzinfo=dt.UTC)
END = dt.datetime(2013, 5, 1, tzinfo=dt.UTC)
MONTH = (START, END)


def at(day: int, hour: int = 0) -> dt.datetime:
    return dt.datetime(2013, 4, day, hour, tzinfo=dt.UTC)


def stock(
    *changes: tuple[dt.datetime, int], opening: int = 0, start: dt.datetime = START, end: dt.datetime = END
) -> Stock:
    return Stock(
        start=start,
        end=end,
        opening=Decimal(opening),
        changes=tuple(BalanceChange(time=time, amount=Decimal(amount)) for time, amount in changes),
    )


SEATS = stock((at(11), 2), (at(21), -4), (at(21, 12), 1), opening=10)


def quantity(proration: Proration, unit: TimeUnit, of: Stock = SEATS) -> Fraction:
    usage = stock_usage(of, whole=MONTH, proration=proration, time_unit=unit, timezone="UTC")
    return Fraction(usage.quantity)


def test_the_balance_is_integrated_exactly() -> None:
    assert integral(SEATS) == (10 * 10 + 12 * 10) * 86_400 + 8 * 43_200 + 9 * 43_200 + 9 * 9 * 86_400
    assert (closing(SEATS), highest(SEATS)) == (Decimal(9), Decimal(12))


@pytest.mark.parametrize(
    ("proration", "unit", "expected"),
    [
        (Proration.SECOND, TimeUnit.DAY, Fraction(619, 2)),
        (Proration.SECOND, TimeUnit.HOUR, Fraction(619 * 12)),
        (Proration.SECOND, TimeUnit.PERIOD, Fraction(619, 60)),
        (Proration.DAY, TimeUnit.DAY, Fraction(310)),
        (Proration.DAY, TimeUnit.HOUR, Fraction(310 * 24)),
        (Proration.DAY, TimeUnit.PERIOD, Fraction(31, 3)),
        (Proration.NONE, TimeUnit.PERIOD, Fraction(12)),
    ],
)
def test_a_stock_counts_by_second_by_day_or_at_its_highest(
    proration: Proration, unit: TimeUnit, expected: Fraction
) -> None:
    assert quantity(proration, unit) == expected


def test_the_days_are_those_of_the_customers_clock() -> None:
    held = stock((dt.datetime(2013, 4, 1, 23, tzinfo=dt.UTC), 5), end=at(3))

    assert highest_by_day(held, "UTC") == {dt.date(2013, 4, 1): 5, dt.date(2013, 4, 2): 5}
    assert highest_by_day(held, "Europe/Berlin") == {
        dt.date(2013, 4, 1): 0,
        dt.date(2013, 4, 2): 5,
        dt.date(2013, 4, 3): 5,
    }


def test_changes_of_one_instant_are_one_change() -> None:
    swapped = stock((at(5), 7), (at(5), -7), opening=3)

    assert highest(swapped) == 3
    assert quantity(Proration.DAY, TimeUnit.PERIOD, swapped) == 3


def test_a_change_out_of_order_or_outside_is_refused() -> None:
    for wrong in (stock((at(5), 1), (at(4), 1)), stock((at(5), 1), end=at(4)), stock((at(5), 1), start=at(6))):
        with pytest.raises(InvariantViolationError, match="out of order"):
            integral(wrong)


def test_a_seat_for_half_the_period_costs_half_wherever_the_tiers_are() -> None:
    tiers = (Tier(up_to=Decimal(10), unit_amount=Decimal(30)), Tier(unit_amount=Decimal(20)))
    half = stock((at(16), 12))
    usage = stock_usage(half, whole=MONTH, proration=Proration.SECOND, time_unit=TimeUnit.PERIOD, timezone="UTC")

    assert usage.quantity == 6
    assert rate(PerUnitCharge(id="p", meter="m", unit_amount=Decimal(30)), usage).amount_unrounded == 180
    assert rate(GraduatedCharge(id="g", meter="m", tiers=tiers), usage).amount_unrounded == 5 * 30 + 1 * 20
    assert rate(VolumeCharge(id="v", meter="m", tiers=tiers), usage).amount_unrounded == 6 * 20


def test_a_stock_that_came_late_counts_of_the_whole_period() -> None:
    late = stock(opening=4, start=at(21))

    assert quantity(Proration.SECOND, TimeUnit.PERIOD, late) == Fraction(4, 3)
    assert quantity(Proration.DAY, TimeUnit.PERIOD, late) == Fraction(4, 3)


stocks = st.lists(st.tuples(st.integers(0, 30 * 24 - 1), st.integers(-5, 9)), max_size=8).map(
    lambda pairs: stock(*[(START + dt.timedelta(hours=hour), amount) for hour, amount in sorted(pairs)], opening=20)
)


@given(held=stocks, hour=st.integers(1, 30 * 24 - 1), unit=st.sampled_from(TimeUnit))
def test_splitting_a_period_anywhere_never_changes_the_total_by_the_second(
    held: Stock, hour: int, unit: TimeUnit
) -> None:
    middle = START + dt.timedelta(hours=hour)
    first = Stock(
        start=START,
        end=middle,
        opening=held.opening,
        changes=tuple(one for one in held.changes if one.time < middle),
    )
    second = Stock(
        start=middle,
        end=END,
        opening=closing(first),
        changes=tuple(one for one in held.changes if one.time >= middle),
    )

    parts = [quantity(Proration.SECOND, unit, part) for part in (first, second)]

    assert sum(parts) == quantity(Proration.SECOND, unit, held)


@given(held=stocks)
def test_tiers_of_a_stock_are_the_price_of_its_balance_integrated_over_time(held: Stock) -> None:
    tiers = (Tier(up_to=Decimal(22), unit_amount=Decimal(5)), Tier(unit_amount=Decimal(2)))
    charge = GraduatedCharge(id="g", meter="m", tiers=tiers)
    assume(min(_levels(held)) >= 0)
    usage = stock_usage(held, whole=MONTH, proration=Proration.SECOND, time_unit=TimeUnit.PERIOD, timezone="UTC")
    total, level = Fraction(0), 20
    for hour in range(30 * 24):
        level += sum(int(one.amount) for one in held.changes if one.time == START + dt.timedelta(hours=hour))
        total += Fraction(5 * min(max(level, 0), 22) + 2 * max(level - 22, 0), 30 * 24)

    assert abs(Fraction(rate(charge, usage).amount_unrounded) - total) < Fraction(1, 10**20)


def _levels(held: Stock) -> list[Decimal]:
    found = [held.opening]
    for one in held.changes:
        found.append(found[-1] + one.amount)
    return found
