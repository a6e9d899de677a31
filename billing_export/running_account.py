"""How the charges of a running bill are priced so far: what is included, what is left of it, and each tier. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

import msgspec

from billing_export.money import as_quantity, format_amount, round_amount
from billing_export.preview import Previewed
from billing_export.pricing import Priced, priced
from billing_export.rate import FREE, rate
from billing_export.rate_limits import scaled
from billing_export.rate_number import to_fraction
from billing_export.rate_records import Rated, Step
from billing_export.segments import Segment
from schemas.charges import FlatCharge, GraduatedCharge
from schemas.line_item import TierShare
from schemas.quantity import ZERO, add, format_quantity

ROLLED_OVER: Final = "rolled over"
BY_DISCOUNT: Final = "by discount"
FREE_TIERS: Final = "in tiers without a price"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Units that cost nothing, and where they come from."""

    what: str
    quantity: str


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """Units of a period that cost nothing: `used` and `left` add up to `quantity`, which is that of all `parts`."""

    quantity: str
    used: str
    left: str
    parts: tuple[Part, ...]


class ChargeAccount(msgspec.Struct, frozen=True, kw_only=True):
    """A charge so far, for one value of its dimensions. The amounts of `steps` add up to `amount_unrounded`.

    `allowance` is None for a charge that includes nothing.
    """

    subscription: str
    plan: str
    charge: str
    description: str
    model: str
    meter: str
    unit: str
    dimensions: dict[str, str]
    quantity: str
    allowance: Allowance | None
    steps: tuple[Step, ...]
    tiers: tuple[TierShare, ...]
    amount_unrounded: str
    amount: str
    currency: str


def accounts_of(found: Previewed) -> list[ChargeAccount]:
    """The account of every charge of a running bill that is billed when its period is over, in the bill's order."""
    return list(_accounts(found))


def _accounts(found: Previewed) -> Iterator[ChargeAccount]:
    catalog = found.assembly.catalogs.load(found.assembly.run.catalog_version)
    for term in (term for work in found.work for term in work.works):
        for priceable in term.priceables:
            for part in priced(catalog, priceable, found.until_now):
                yield _account(priceable.segment, part)


def _account(segment: Segment, part: Priced) -> ChargeAccount:
    charge, last = segment.charge, segment.last
    rated = rate(charge, part.usage, msgspec.structs.replace(part.context, with_steps=True))
    meter = part.measure.meter
    return ChargeAccount(
        subscription=segment.owner.subscription,
        plan=last.plan.name or last.plan.id,
        charge=charge.id,
        description=charge.description or charge.id,
        model=str(charge.__struct_config__.tag),
        meter="" if meter is None else meter.name,
        unit="" if meter is None else meter.unit,
        dimensions=dict(part.measure.dimensions),
        quantity=format_quantity(part.measure.quantity),
        allowance=allowance_of(segment, part, rated),
        steps=rated.steps,
        tiers=rated.tiers,
        amount_unrounded=format_quantity(rated.amount_unrounded),
        amount=format_amount(round_amount(rated.amount_unrounded, segment.owner.currency, last.plan.rounding)),
        currency=segment.owner.currency,
    )


def allowance_of(segment: Segment, part: Priced, rated: Rated) -> Allowance | None:
    """What a charge includes in this period; None for one that includes nothing.

    Free events and amounts of a percentage are no units: its steps say what they took off.
    """
    charge, context = segment.charge, part.context
    if isinstance(charge, FlatCharge):
        return None
    given = [
        (FREE, as_quantity(scaled(charge, charge.free_quantity, context, to_fraction))),
        (ROLLED_OVER, context.free_quantity_extra),
        (BY_DISCOUNT, context.discount_quantity),
    ]
    used = add(rated.free_used, rated.discount_used)
    free_tiers = _free_tiers(charge) if isinstance(charge, GraduatedCharge) and _is_one_amount(charge, part) else ZERO
    if free_tiers:
        given.append((FREE_TIERS, free_tiers))
        used = add(used, min(max(rated.quantity_billed, ZERO), free_tiers))
    quantity = ZERO
    for _, one in given:
        quantity = add(quantity, one)
    if not quantity:
        return None
    return Allowance(
        quantity=format_quantity(quantity),
        used=format_quantity(used),
        left=format_quantity(add(quantity, -used)),
        parts=tuple(Part(what=what, quantity=format_quantity(one)) for what, one in given if one),
    )


def _is_one_amount(charge: GraduatedCharge, part: Priced) -> bool:
    """Whether the tiers are gone through once, by the quantity on the line: no buckets, no prorated stock."""
    return charge.bucket is None and part.usage.full_quantity is None and not part.usage.changes


def _free_tiers(charge: GraduatedCharge) -> Decimal:
    """Up to where the first tiers cost nothing; an open tier without a price includes no number of units."""
    end = ZERO
    for tier in charge.tiers:
        if tier.unit_amount or tier.flat_amount or tier.up_to is None:
            return end
        end = tier.up_to
    return end
