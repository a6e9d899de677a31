"""What each pricing model makes of a quantity, before commitments and limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from billing_export import rate_tiers
from billing_export.rate_number import Billable, Convert, N, Note, Priced, Share, ceiling
from billing_export.rate_percentage import percentage
from schemas.charges import (
    DynamicCharge,
    GraduatedCharge,
    GraduatedPercentageCharge,
    MatrixCharge,
    MatrixPrice,
    MeteredCharge,
    PackageCharge,
    PercentageCharge,
    PerUnitCharge,
    Tier,
    VolumeCharge,
)
from schemas.quantity import ZERO


def price(charge: MeteredCharge, used: Billable[N], number: Convert[N]) -> Priced[N]:
    """The exact price of `used` by the charge's model."""
    match charge:
        case PerUnitCharge():
            priced = _per_unit(charge.unit_amount, used.quantity, number)
        case GraduatedCharge():
            priced = _graduated(charge.tiers, used, number, flat_at_zero=charge.flat_amount_at_zero)
        case GraduatedPercentageCharge():
            tiers = rate_tiers.as_tiers(charge.tiers)
            priced = _graduated(tiers, used, number, flat_at_zero=charge.flat_amount_at_zero)
        case VolumeCharge():
            choosing = used.quantity if used.full is None else used.full
            at_zero = charge.flat_amount_at_zero
            priced = _tiered(
                rate_tiers.volume(charge.tiers, used.quantity, choosing, number, flat_at_zero=at_zero), number
            )
        case PackageCharge():
            priced = _package(charge, used.quantity, number)
        case PercentageCharge():
            priced = percentage(charge, used, number)
        case DynamicCharge():
            priced = _dynamic(charge, used, number)
        case MatrixCharge():
            found = matrix_price(charge, used.dimensions)
            if found.unit_amount is not None:
                priced = _per_unit(found.unit_amount, used.quantity, number)
            else:
                priced = _graduated(found.tiers, used, number, flat_at_zero=False)
    return priced


def matrix_price(charge: MatrixCharge, dimensions: Mapping[str, str]) -> MatrixPrice:
    """The first price whose every named dimension has its value, or the one for everything else."""
    for one in charge.prices:
        if all(dimensions.get(name) == value for name, value in one.values.items()):
            return one
    return charge.otherwise


def _per_unit(unit_amount: Decimal, quantity: N, number: Convert[N]) -> Priced[N]:
    amount = quantity * number(unit_amount)
    return Priced(amount, unit_amount, (Note("{} each", quantity, amount, numbers=(unit_amount,)),))


def _package(charge: PackageCharge, quantity: N, number: Convert[N]) -> Priced[N]:
    packages = number(Decimal(ceiling(quantity, number(charge.package_size))))
    amount = packages * number(charge.package_amount)
    numbers = (charge.package_size, charge.package_amount)
    return Priced(amount, None, (Note("packages of {} at {} each", packages, amount, numbers=numbers),))


def _dynamic(charge: DynamicCharge, used: Billable[N], number: Convert[N]) -> Priced[N]:
    """What the events say, and of it the part of the units that is left; without units nothing."""
    zero = number(ZERO)
    if not used.quantity or not used.quantity_before or used.amount is None:
        return Priced(zero, None, (Note("amounts of the events, without units", used.quantity, zero),))
    amount = used.amount * number(charge.amount_factor)
    if used.quantity != used.quantity_before:
        amount = amount * used.quantity / used.quantity_before
    numbers = (charge.amount_factor,)
    return Priced(amount, None, (Note("amounts of the events times {}", used.quantity, amount, numbers=numbers),))


def _graduated(tiers: Sequence[Tier], used: Billable[N], number: Convert[N], *, flat_at_zero: bool) -> Priced[N]:
    if used.changes:
        shares = rate_tiers.by_changes(tiers, used.changes, number, flat_at_zero=flat_at_zero)
    elif used.full is not None:
        shares = rate_tiers.spread(tiers, used.quantity, used.full, number, flat_at_zero=flat_at_zero)
    else:
        shares = rate_tiers.graduated(tiers, used.quantity, number, flat_at_zero=flat_at_zero)
    return _tiered(shares, number)


def _tiered(shares: Sequence[Share[N]], number: Convert[N]) -> Priced[N]:
    amount = number(ZERO)
    for one in shares:
        amount = amount + one.amount
    notes = [Note(one, one.quantity, one.amount) for one in shares]
    return Priced(amount, None, tuple(notes), tuple(shares))
