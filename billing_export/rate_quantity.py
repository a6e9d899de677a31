"""From what was used to what is priced: rounding, free units and discounts by quantity, in that order."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Final

from billing_export.rate_number import EXACT, Billable, Convert, N, Note
from billing_export.rate_records import Change, Number, Usage
from schemas.charges import QuantityRounding, RoundingMode
from schemas.quantity import ZERO

_MODES: Final = {
    RoundingMode.ROUND: ROUND_HALF_UP,
    RoundingMode.CEIL: ROUND_CEILING,
    RoundingMode.FLOOR: ROUND_FLOOR,
}
_ROUNDING: Final = Context(prec=400)


def round_quantity(quantity: Number, rounding: QuantityRounding) -> Decimal:
    """The quantity with `rounding.digits` decimals (negative: tens, hundreds). A half goes away from zero."""
    if isinstance(quantity, Decimal):
        shifted = _ROUNDING.scaleb(quantity, rounding.digits)
        whole = shifted.to_integral_value(_MODES[rounding.mode], _ROUNDING)
        return _ROUNDING.add(_ROUNDING.scaleb(whole, -rounding.digits), ZERO)
    moved = quantity * Fraction(10) ** rounding.digits
    match rounding.mode:
        case RoundingMode.CEIL:
            number = ceil(moved)
        case RoundingMode.FLOOR:
            number = floor(moved)
        case RoundingMode.ROUND:
            number = floor(moved + Fraction(1, 2)) if moved >= 0 else ceil(moved - Fraction(1, 2))
    return _ROUNDING.scaleb(Decimal(number), -rounding.digits)


def combined(previous: Usage, now: Usage) -> Usage:
    """Both usages as one, the previous first. A bucket that both have a part of must stand in one of them only."""
    amount, full = now.amount, now.full_quantity
    events = previous.events if previous.quantity or previous.events_count else ()
    return Usage(
        quantity=_sum(previous.quantity, now.quantity),
        events_count=previous.events_count + now.events_count,
        amount=None if amount is None else _sum(previous.amount or ZERO, amount),
        events=None if events is None or now.events is None else events + now.events,
        buckets=previous.buckets + now.buckets,
        full_quantity=None if full is None else _sum(previous.full_quantity or ZERO, full),
        changes=previous.changes + now.changes,
        dimensions=now.dimensions,
    )


def billables(
    usage: Usage, rounding: QuantityRounding | None, allowances: Sequence[tuple[str, Number]], number: Convert[N]
) -> tuple[list[Billable[N]], list[Note[N]], dict[str, N]]:
    """What is priced of a usage: a billable, or one for each bucket; the notes; how much each allowance gave.

    `allowances` are units that cost nothing, each with the words for them, in the order in which they are used up.
    """
    zero = number(ZERO)
    notes: list[Note[N]] = [Note("used", number(usage.quantity), zero)]
    read = [number(one) for one in (usage.buckets or (usage.quantity,))]
    quantities = read
    if rounding is not None:
        quantities = [number(round_quantity(one, rounding)) for one in read]
        word = {"ceil": "up", "floor": "down", "round": "half up"}[rounding.mode.value]
        where = f"{rounding.digits} decimals" if rounding.digits >= 0 else f"{10**-rounding.digits}s"
        notes.append(Note(f"rounded {word} to {where}", sum(quantities, zero), zero))
    rounded = quantities
    used_up: dict[str, N] = {}
    for what, free in allowances:
        if free:
            before = sum(quantities, zero)
            quantities = _reduced(quantities, number(free), zero)
            used_up[what] = before - sum(quantities, zero)
            if used_up[what]:
                notes.append(Note(what, -used_up[what], zero))
    if usage.buckets:
        found = [
            Billable(left, before, dimensions=usage.dimensions)
            for left, before in zip(quantities, rounded, strict=True)
        ]
        return found, notes, used_up
    return [_billable(usage, quantities[0], read[0], rounded[0], number)], notes, used_up


def _billable(usage: Usage, left: N, read: N, rounded: N, number: Convert[N]) -> Billable[N]:
    full = None if usage.full_quantity is None else number(usage.full_quantity)
    events = None if usage.events is None else tuple(number(one) for one in usage.events)
    changes = usage.changes
    if left != read:
        if full is not None and read:
            full = full * left / read
        if changes and read:
            part = Fraction(left) / Fraction(read)
            changes = tuple(
                Change(full=Fraction(one.full) * part, prorated=Fraction(one.prorated) * part) for one in changes
            )
        if events is not None:
            events = tuple(_reduced(events, read - left, number(ZERO)))
    return Billable(
        left,
        rounded,
        events_count=usage.events_count,
        amount=None if usage.amount is None else number(usage.amount),
        events=events,
        full=full,
        changes=changes,
        dimensions=usage.dimensions,
    )


def _reduced(quantities: Sequence[N], free: N, zero: N) -> list[N]:
    """The quantities without their first `free` units, in time order; what is below zero stays as it is."""
    left: list[N] = []
    for one in quantities:
        taken = min(max(one, zero), free)
        free = free - taken
        left.append(one - taken)
    return left


def _sum(left: Number, right: Number) -> Number:
    if isinstance(left, Decimal) and isinstance(right, Decimal):
        return EXACT.add(left, right)
    return Fraction(left) + Fraction(right)
