"""Rollover: free units that were not used move on to later periods, until they expire."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from billing_export.rate_number import EXACT
from schemas.charges import Rollover
from schemas.quantity import ZERO


class PeriodUse(msgspec.Struct, frozen=True, kw_only=True):
    """One period of a charge: its own free units (prorated where it was a part), and what was used, after rounding."""

    free_quantity: Decimal
    quantity: Decimal


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """Free units that were left over in a period, counted from the first period of the charge, 0."""

    period: int
    quantity: Decimal


def leftovers(rollover: Rollover, history: Iterable[PeriodUse]) -> tuple[Leftover, ...]:
    """What the period after `history` (every period of the charge so far, in time order) begins with, oldest first.

    Units are used in the order in which they expire: those rolled over, the oldest first, then the period's own.
    What is left is kept for `expires_after_periods` periods, of all together no more than `quantity_max`; beyond it
    the oldest are lost, for they would expire first.
    """
    kept: list[Leftover] = []
    for period, one in enumerate(history):
        wanted = max(one.quantity, ZERO)
        left: list[Leftover] = []
        for units in [*kept, Leftover(period=period, quantity=one.free_quantity)]:
            taken = min(units.quantity, wanted)
            wanted = EXACT.subtract(wanted, taken)
            if units.quantity > taken:
                left.append(Leftover(period=units.period, quantity=EXACT.subtract(units.quantity, taken)))
        valid = [units for units in left if period + 1 - units.period <= rollover.expires_after_periods]
        kept = _capped(valid, rollover.quantity_max)
    return tuple(kept)


def rolled_over(rollover: Rollover, history: Iterable[PeriodUse]) -> Decimal:
    """How many units the period after `history` has on top of its own: `Context.free_quantity_extra`."""
    total = ZERO
    for one in leftovers(rollover, history):
        total = EXACT.add(total, one.quantity)
    return total


def _capped(units: list[Leftover], quantity_max: Decimal | None) -> list[Leftover]:
    if quantity_max is None:
        return units
    room, kept = quantity_max, []
    for one in reversed(units):
        quantity = min(one.quantity, room)
        room = EXACT.subtract(room, quantity)
        if quantity:
            kept.append(Leftover(period=one.period, quantity=quantity))
    return kept[::-1]
