"""What earlier periods of a charge left over of their free units. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final

import msgspec

from billing_export.money import as_quantity
from billing_export.proration import fraction_of
from billing_export.rate_quantity import round_quantity
from billing_export.readings import Answers, Reading
from billing_export.rollover import PeriodUse, rolled_over
from billing_export.segments import Segment, segments
from schemas.catalog import AppliedCatalog
from schemas.charges import MeteredCharge, Proration, Timing
from schemas.period import period_number, previous_period
from schemas.quantity import ZERO, add
from schemas.subscription_life import cadence_of, phases

PERIODS_MAX: Final = 120
"""How far back free units are followed."""


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier period of a charge: the free units it had, and what to read to know how many were used."""

    free_quantity: Decimal
    readings: tuple[Reading, ...]


def earlier_periods(catalog: AppliedCatalog, segment: Segment) -> tuple[Earlier, ...]:
    """The periods before a segment's, oldest first, since the subscription has had the charge without a break."""
    charge = segment.charge
    if not isinstance(charge, MeteredCharge) or charge.rollover is None:
        return ()
    last = segment.last
    cadence = cadence_of(catalog, last.subscription)
    period = last.period
    found: list[Earlier] = []
    while period_number(cadence, period) > 0 and len(found) < PERIODS_MAX:
        period = previous_period(cadence, period)
        parts = [
            one
            for one in segments(phases(catalog, last.subscription, period), Timing.ARREARS)
            if one.charge.id == charge.id and one.last.plan.id == last.plan.id
        ]
        if not parts:
            break
        found.append(Earlier(free_quantity=_free(parts), readings=tuple(_reading(catalog, one) for one in parts)))
    return tuple(reversed(found))


def free_rolled_over(
    charge: MeteredCharge, earlier: Sequence[Earlier], customer: str, values: tuple[str, ...], answers: Answers
) -> Decimal:
    """The free units that a line with these values of its dimensions has on top of its period's own."""
    if charge.rollover is None:
        return ZERO
    return rolled_over(charge.rollover, uses(charge, earlier, customer, values, answers))


def uses(
    charge: MeteredCharge, earlier: Sequence[Earlier], customer: str, values: tuple[str, ...], answers: Answers
) -> Iterator[PeriodUse]:
    """The free units of each earlier period, and what was used of the charge in it, oldest first."""
    for one in earlier:
        quantity = ZERO
        for reading in one.readings:
            for used in answers.get((customer, reading), ()):
                if tuple(used.dimensions[name] for name in reading.group_by) == values:
                    quantity = add(quantity, used.quantity)
        if charge.rounding is not None:
            quantity = round_quantity(quantity, charge.rounding)
        yield PeriodUse(free_quantity=one.free_quantity, quantity=quantity)


def _free(parts: Sequence[Segment]) -> Decimal:
    total = Fraction(0)
    for one in parts:
        charge, period = one.charge, one.last.period
        if isinstance(charge, MeteredCharge):
            part = Fraction(1)
            if charge.proration is not Proration.NONE:
                part = fraction_of(
                    (period.start, period.end),
                    (one.start, one.end),
                    proration=charge.proration,
                    timezone=one.last.customer.timezone,
                )
            total += Fraction(charge.free_quantity) * part
    return as_quantity(total)


def _reading(catalog: AppliedCatalog, segment: Segment) -> Reading:
    charge = segment.charge
    if not isinstance(charge, MeteredCharge):
        raise TypeError(charge.id)
    return Reading(
        catalog_version=catalog.version,
        meter=charge.meter,
        group_by=charge.group_by,
        start=segment.start,
        end=segment.end,
    )
