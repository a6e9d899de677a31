"""Commitments, minimum and maximum of one charge: what is due whatever was used, and what is not."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from billing_export.rate_models import price
from billing_export.rate_number import Billable, Convert, N, Note, Priced
from billing_export.rate_records import Context
from schemas.charges import DynamicCharge, MeteredCharge, PercentageCharge, Proration
from schemas.quantity import ZERO


def scaled(charge: MeteredCharge, whole: Decimal, context: Context, number: Convert[N]) -> N:
    """The part of a whole period's allowance, commitment or limit that is due, as the charge's proration says."""
    if charge.proration is Proration.NONE or context.fraction == 1:
        return number(whole)
    return number(whole) * number(context.fraction)


def committed(charge: MeteredCharge, used: Billable[N], context: Context, number: Convert[N]) -> Priced[N]:
    """The price with the charge's commitment: what goes beyond it times the factor, what falls short topped up."""
    priced: Priced[N] = price(charge, used, number)
    commitment = charge.commitment
    if commitment is None:
        return priced
    if commitment.quantity is None:
        promised = scaled(charge, commitment.amount or ZERO, context, number)
        difference = priced.amount - promised
        is_beyond = difference > 0
    else:
        quantity = scaled(charge, commitment.quantity, context, number)
        difference = priced.amount - _price_of(charge, used, priced, quantity, number)
        is_beyond = used.quantity > quantity
    if is_beyond:
        factor = commitment.overage_factor
        extra = max(difference, number(ZERO)) * (number(factor) - 1)
        note = Note("beyond the commitment at {} times the price", None, extra, numbers=(factor,))
    elif commitment.true_up:
        note = Note("short of the commitment", None, max(-difference, number(ZERO)), is_top_up=True)
    else:
        return priced
    if not note.amount:
        return priced
    return msgspec.structs.replace(priced, amount=priced.amount + note.amount, notes=(*priced.notes, note))


def limited(charge: MeteredCharge, amount: N, context: Context, number: Convert[N]) -> list[Note[N]]:
    """What the minimum adds to `amount`, and what the maximum takes away."""
    notes: list[Note[N]] = []
    if charge.minimum is not None and context.minimum_applies:
        least = scaled(charge, charge.minimum, context, number)
        if amount < least:
            notes.append(Note("minimum of {}", None, least - amount, is_top_up=True, numbers=(charge.minimum,)))
            amount = least
    if charge.maximum is not None:
        most = scaled(charge, charge.maximum, context, number)
        if amount > most:
            notes.append(Note("maximum of {}", None, most - amount, numbers=(charge.maximum,)))
    return notes


def _price_of(charge: MeteredCharge, used: Billable[N], priced: Priced[N], quantity: N, number: Convert[N]) -> N:
    """What the committed units cost by the model; of a percentage at its rate, of a dynamic charge on average."""
    if isinstance(charge, PercentageCharge):
        return quantity * number(charge.rate) * number(Decimal("0.01"))
    if isinstance(charge, DynamicCharge):
        return priced.amount * quantity / used.quantity if used.quantity > 0 else number(ZERO)
    return price(charge, Billable(quantity, quantity, dimensions=used.dimensions), number).amount
