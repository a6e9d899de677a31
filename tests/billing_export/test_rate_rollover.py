"""Rollover: what is left of free units, until it expires."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_export.rollover import PeriodUse, leftovers, rolled_over
from schemas.charges import Rollover


def periods(*used: int, free: int = 100) -> list[PeriodUse]:
    return [PeriodUse(free_quantity=Decimal(free), quantity=Decimal(one)) for one in used]


@pytest.mark.parametrize(
    ("used", "expires", "cap", "extra"),
    [
        ((), 1, None, 0),
        ((30,), 1, None, 70),
        ((100,), 1, None, 0),
        ((130,), 1, None, 0),
        ((30, 0), 1, None, 100),
        ((30, 50), 1, None, 100),
        ((30, 90), 1, None, 80),
        ((30, 0), 2, None, 170),
        ((30, 0, 0), 2, None, 200),
        ((30, 0), 2, 120, 120),
        ((30, 0), 2, 0, 0),
        ((-5,), 1, None, 100),
    ],
)
def test_units_roll_over_until_they_expire_and_the_oldest_are_used_first(
    used: tuple[int, ...], expires: int, cap: int | None, extra: int
) -> None:
    rollover = Rollover(expires_after_periods=expires, quantity_max=None if cap is None else Decimal(cap))

    assert rolled_over(rollover, periods(*used)) == extra


def test_beyond_the_cap_the_oldest_are_lost() -> None:
    kept = leftovers(Rollover(expires_after_periods=3, quantity_max=Decimal(150)), periods(30, 0))

    assert [(one.period, one.quantity) for one in kept] == [(0, Decimal(50)), (1, Decimal(100))]


@given(used=st.lists(st.integers(0, 200), max_size=12), expires=st.integers(1, 4), cap=st.none() | st.integers(0, 300))
def test_no_unit_is_free_twice(used: list[int], expires: int, cap: int | None) -> None:
    rollover = Rollover(expires_after_periods=expires, quantity_max=None if cap is None else Decimal(cap))
    history = periods(*used)
    freed = sum(
        min(Decimal(one), Decimal(100) + rolled_over(rollover, history[:place])) for place, one in enumerate(used)
    )
    left = rolled_over(rollover, history)

    assert freed + left <= 100 * len(used)
    assert left <= min(100 * expires, 300 if cap is None else cap) or cap is None
    assert all(len(history) - one.period <= expires for one in leftovers(rollover, history))
