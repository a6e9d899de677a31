"""Rating: a charge and what was used in, an exact amount and the account of it out. Pure.

In this order: the quantity's rounding, free units (those rolled over among them), discounts by quantity, the model's
price, the commitment (in each bucket), the minimum, the maximum. Nothing is rounded on the way; an amount that does
not end within 24 decimals is rounded there once.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Final, Generic

import msgspec

from billing_export.money import as_quantity, cumulative_parts, unrounded
from billing_export.rate_limits import committed, limited, scaled
from billing_export.rate_number import EXACT, Convert, N, Note, Share, to_decimal, to_fraction
from billing_export.rate_percentage import needs_each_event
from billing_export.rate_quantity import billables, combined
from billing_export.rate_records import Change, Context, Rated, Step, Usage
from billing_export.rate_tiers import negative, tier_shares
from schemas.charges import (
    Charge,
    DynamicCharge,
    FlatCharge,
    GraduatedCharge,
    GraduatedPercentageCharge,
    MeteredCharge,
    PercentageCharge,
    Proration,
    VolumeCharge,
)
from schemas.errors import InvariantViolationError
from schemas.quantity import ZERO, format_quantity

__all__ = ["Change", "Context", "Rated", "Step", "Usage", "needs_events", "needs_every_bucket", "rate"]

ORDINARY: Final = Context()
ROLLED_OVER: Final = "free, rolled over"
FREE: Final = "free"
DISCOUNT: Final = "free, by discount"
NOTHING_RATED: Final = Rated(amount_unrounded=ZERO, unit_amount=None)


def needs_events(charge: Charge) -> bool:
    """Whether `Usage.events` must be given: the price depends on each event's value, not only on their sum."""
    return isinstance(charge, PercentageCharge) and needs_each_event(charge)


def needs_every_bucket(charge: Charge) -> bool:
    """Whether `Usage.buckets` must have the hours or days without usage too, because they cost something."""
    if isinstance(charge, FlatCharge) or charge.bucket is None:
        return False
    if charge.commitment is not None and charge.commitment.true_up:
        return True
    match charge:
        case GraduatedCharge() | VolumeCharge() | GraduatedPercentageCharge():
            return charge.flat_amount_at_zero
        case _:
            return False


def rate(charge: Charge, usage: Usage, context: Context = ORDINARY) -> Rated:
    """The exact price of `usage` under `charge`, in the plan's currency, and how it came about.

    A flat charge ignores the usage. A quantity below zero, which corrections can give, is credited: at the unit
    price, at the first tier's without its flat amount, for each whole package.
    Raises InvariantViolationError when the charge needs events or buckets and the usage has none.
    """
    with localcontext(EXACT):
        if isinstance(charge, FlatCharge):
            return _flat(charge, context)
        whole = usage if context.previous is None else combined(context.previous, usage)
        if _ends(charge, whole, context):
            return _rated(charge, whole, context, to_decimal)
        return _rated(charge, whole, context, to_fraction)


def _ends(charge: MeteredCharge, usage: Usage, context: Context) -> bool:
    """Whether decimals are enough: nothing is divided on the way to the amount."""
    if usage.full_quantity is not None or usage.changes or isinstance(charge, DynamicCharge):
        return False
    if charge.proration is not Proration.NONE and context.fraction != 1:
        return False
    return not any(isinstance(one, Fraction) for one in (usage.quantity, *usage.buckets))


def _flat(charge: FlatCharge, context: Context) -> Rated:
    """The amount, or the part of it that a part of the period costs: the difference of what is due until then.

    Without proration any part costs the whole; a part of nothing, a pause throughout, costs nothing.
    """
    amount = charge.amount
    steps = [Step(what="flat amount", quantity="1", amount=format_quantity(amount))]
    part = amount
    if context.fraction != 1 and (charge.proration is not Proration.NONE or context.fraction == 0):
        whole, before = Fraction(amount), context.fraction_before
        part = unrounded(whole * (before + context.fraction)) - unrounded(whole * before)
        what = f"{context.fraction} of the period"
        steps.append(Step(what=what, quantity=None, amount=format_quantity(part - amount)))
    if context.previous_billed is not None:
        part -= context.previous_billed
        steps.append(Step(what="priced before", quantity=None, amount=format_quantity(-context.previous_billed)))
    return Rated(
        amount_unrounded=part,
        unit_amount=amount,
        quantity_billed=Decimal(1),
        steps=tuple(steps),
    )


class _Found(msgspec.Struct, Generic[N], frozen=True):
    """The price of a whole usage. Its notes' amounts add up to `amount`."""

    amount: N
    unit_amount: Decimal | None
    notes: tuple[Note[N], ...]
    shares: tuple[Share[N], ...]
    quantity: N
    free_used: N
    discount_used: N
    topped_up: N


def _rated(charge: MeteredCharge, whole: Usage, context: Context, number: Convert[N]) -> Rated:
    """The price of it all, less what was priced before; each is rounded alone, so that prices of parts add up."""
    found: _Found[N] = _price(charge, whole, context, number)
    rated: Rated = _finished(found, with_steps=context.with_steps)
    if context.previous is not None:
        return _without(rated, found.shares, _price(charge, context.previous, context, number), context)
    if context.previous_billed is not None:
        return _less(rated, NOTHING_RATED, context.previous_billed)
    return rated


def _without(rated: Rated, shares: Sequence[Share[N]], before: _Found[N], context: Context) -> Rated:
    """The price of it all without that of the usage before, or without what was billed for that."""
    less = _finished(before, with_steps=False)
    billed = less.amount_unrounded if context.previous_billed is None else context.previous_billed
    tiers = tier_shares((*shares, *negative(before.shares)))
    return msgspec.structs.replace(_less(rated, less, billed), tiers=tiers)


def _less(rated: Rated, less: Rated, billed: Decimal) -> Rated:
    quantity, amount = format_quantity(-less.quantity_billed), format_quantity(-billed)
    already = Step(what="priced before", quantity=quantity, amount=amount)
    return msgspec.structs.replace(
        rated,
        amount_unrounded=rated.amount_unrounded - billed,
        quantity_billed=rated.quantity_billed - less.quantity_billed,
        free_used=rated.free_used - less.free_used,
        discount_used=rated.discount_used - less.discount_used,
        topped_up=rated.topped_up - less.topped_up,
        steps=(*rated.steps, already) if rated.steps else (),
    )


def _price(charge: MeteredCharge, usage: Usage, context: Context, number: Convert[N]) -> _Found[N]:
    zero = number(ZERO)
    allowances = (
        (ROLLED_OVER, context.free_quantity_extra),
        (FREE, scaled(charge, charge.free_quantity, context, number)),
        (DISCOUNT, context.discount_quantity),
    )
    used, notes, used_up = billables(_bucketed(charge, usage), charge.rounding, allowances, number)
    amount, quantity, topped_up = zero, zero, zero
    shares: list[Share[N]] = []
    unit_amount: Decimal | None = None
    for one in used:
        priced = committed(charge, one, context, number)
        amount += priced.amount
        quantity += one.quantity
        notes += priced.notes
        shares += priced.shares
        unit_amount = priced.unit_amount
    for note in limited(charge, amount, context, number):
        amount += note.amount
        notes.append(note)
    for note in notes:
        topped_up += note.amount if note.is_top_up else zero
    return _Found(
        amount,
        unit_amount,
        tuple(notes),
        tuple(shares),
        quantity,
        used_up.get(ROLLED_OVER, zero) + used_up.get(FREE, zero),
        used_up.get(DISCOUNT, zero),
        topped_up,
    )


def _bucketed(charge: MeteredCharge, usage: Usage) -> Usage:
    """The usage with the buckets that its charge has; percentages and dynamic prices have no use for them."""
    if charge.bucket is None or isinstance(charge, PercentageCharge | DynamicCharge):
        return msgspec.structs.replace(usage, buckets=()) if usage.buckets else usage
    if not usage.buckets and usage.quantity:
        raise InvariantViolationError(
            f"charge {charge.id!r} is priced by {charge.bucket.value}, and was given no buckets", where="rating"
        )
    return usage


def _finished(found: _Found[N], *, with_steps: bool) -> Rated:
    return Rated(
        amount_unrounded=unrounded(found.amount),
        unit_amount=found.unit_amount,
        tiers=tier_shares(found.shares),
        quantity_billed=as_quantity(found.quantity),
        free_used=as_quantity(found.free_used),
        discount_used=as_quantity(found.discount_used),
        topped_up=unrounded(found.topped_up),
        steps=_steps(found.notes) if with_steps else (),
    )


def _steps(notes: Sequence[Note[N]]) -> tuple[Step, ...]:
    """The notes as text; those of the same words as one, where the first of them stands: buckets repeat their tiers."""
    found: dict[str, Note[N]] = {}
    for note in notes:
        what = str(note)
        known = found.get(what)
        found[what] = note if known is None else known.plus(note)
    amounts = cumulative_parts([one.amount for one in found.values()])
    return tuple(
        [
            Step(
                what=what,
                quantity=None if one.quantity is None else format_quantity(as_quantity(one.quantity)),
                amount=format_quantity(amount),
            )
            for (what, one), amount in zip(found.items(), amounts, strict=True)
        ]
    )
