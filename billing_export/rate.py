"""Rating: a charge and a quantity in, an exact amount out. Pure, and rounds nothing."""

from __future__ import annotations

from decimal import Clamped, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow, Rounded
from typing import Final

import msgspec

from schemas.charges import Charge, FlatCharge, GraduatedCharge, PerUnitCharge, Tier
from schemas.line_item import TierShare
from schemas.quantity import ZERO, format_quantity

_EXACT: Final = Context(prec=200, traps=[Inexact, Rounded, InvalidOperation, Overflow, DivisionByZero, Clamped])
"""Room for the largest sum times the largest price; anything that would have to round raises."""


class Rated(msgspec.Struct, frozen=True, kw_only=True):
    """What a quantity costs. `unit_amount` is None where tiers set the price; `tiers` has those that were entered."""

    amount_unrounded: Decimal
    unit_amount: Decimal | None
    tiers: tuple[TierShare, ...] = ()


def rate(charge: Charge, quantity: Decimal) -> Rated:
    """The exact amount of `quantity` under `charge`, in the plan's currency.

    A flat charge ignores the quantity. A quantity below zero, which corrections can give, is credited: at the unit
    price, or at the first tier's without its flat amount.
    """
    match charge:
        case FlatCharge():
            return Rated(amount_unrounded=charge.amount, unit_amount=charge.amount)
        case PerUnitCharge():
            return Rated(amount_unrounded=_EXACT.multiply(quantity, charge.unit_amount), unit_amount=charge.unit_amount)
        case GraduatedCharge():
            tiers = _graduated(charge.tiers, quantity)
            total = ZERO
            for share in tiers:
                total = _EXACT.add(total, Decimal(share.amount))
            return Rated(amount_unrounded=total, unit_amount=None, tiers=tiers)


def _graduated(tiers: tuple[Tier, ...], quantity: Decimal) -> tuple[TierShare, ...]:
    """The share of each tier that any of the quantity falls into; upper bounds are inclusive."""
    if quantity < 0:
        return (_share(tiers[0], ZERO, quantity, flat_amount=ZERO),)
    shares: list[TierShare] = []
    bound = ZERO
    for tier in tiers:
        if quantity <= bound:
            break
        reached = quantity if tier.up_to is None else min(quantity, tier.up_to)
        shares.append(_share(tier, bound, _EXACT.subtract(reached, bound), flat_amount=tier.flat_amount))
        bound = reached
    return tuple(shares)


def _share(tier: Tier, bound: Decimal, quantity: Decimal, *, flat_amount: Decimal) -> TierShare:
    amount = _EXACT.fma(quantity, tier.unit_amount, flat_amount)
    return TierShare(
        from_=format_quantity(bound),
        up_to=None if tier.up_to is None else format_quantity(tier.up_to),
        quantity=format_quantity(quantity),
        unit_amount=format_quantity(tier.unit_amount),
        flat_amount=format_quantity(flat_amount),
        amount=format_quantity(amount),
    )
