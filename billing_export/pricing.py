"""From a segment to its lines: what must be read, and what the reading costs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final, NamedTuple

import msgspec

from billing_export.discounts import discount_quantity
from billing_export.history import Earlier, free_rolled_over
from billing_export.lines import Made, Measure, charged
from billing_export.money import as_quantity
from billing_export.proration import fraction_of
from billing_export.rate import needs_events, needs_every_bucket, rate
from billing_export.rate_records import Context, Usage
from billing_export.readings import Answers, Ask, Reading, Used
from billing_export.run import Run
from billing_export.segments import Segment
from billing_export.stocks import is_stock, needs_changes, stock_usage_of
from metering.usage.windows import from_us, plan_windows
from schemas.catalog import AppliedCatalog
from schemas.charges import Bucket, DynamicCharge, FlatCharge, MeteredCharge, Proration
from schemas.meter import Meter
from schemas.quantity import ZERO, add
from schemas.rollup import DIGEST_MODULUS
from schemas.usage_query import Window
from schemas.zone import zone_of

_ASK: Final = {None: Ask.TOTAL, Bucket.HOUR: Ask.HOUR, Bucket.DAY: Ask.DAY}
_ONE: Final = Decimal(1)


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What must be read for a segment: the usage itself, a dynamic charge's amounts, each event's value."""

    usage: Reading
    amounts: Reading | None = None
    events: Reading | None = None

    def __iter__(self) -> Iterator[Reading]:
        return (one for one in (self.usage, self.amounts, self.events) if one is not None)


class Priceable(msgspec.Struct, frozen=True, kw_only=True):
    """A segment with everything that its price depends on besides readings. `needs` is None for a flat charge.

    `earlier` are the readings of the periods before, for a charge whose free units roll over.
    """

    segment: Segment
    needs: Needs | None
    earlier: tuple[Earlier, ...] = ()

    @property
    def readings(self) -> Iterator[Reading]:
        if self.needs is not None:
            yield from self.needs
        for one in self.earlier:
            yield from one.readings


def needs_of(catalog: AppliedCatalog, segment: Segment) -> Needs | None:
    """What to read for a segment; None for a flat charge."""
    charge = segment.charge
    if isinstance(charge, FlatCharge):
        return None
    ask = _ASK[charge.bucket]
    usage = Reading(
        catalog_version=catalog.version,
        meter=charge.meter,
        group_by=charge.group_by,
        start=segment.start,
        end=segment.end,
        ask=ask,
        timezone="" if ask is Ask.TOTAL else segment.last.customer.timezone,
    )
    amounts = None
    if isinstance(charge, DynamicCharge):
        amounts = msgspec.structs.replace(usage, meter=charge.amount_meter, ask=Ask.TOTAL, timezone="")
    by_event = needs_events(charge) or needs_changes(catalog.meters[charge.meter], charge)
    events = msgspec.structs.replace(usage, ask=Ask.EVENTS, timezone="") if by_event else None
    return Needs(usage=usage, amounts=amounts, events=events)


class Priced(NamedTuple):
    """What one line of a metered segment is priced from."""

    measure: Measure
    usage: Usage
    context: Context


def lines_of(run: Run, catalog: AppliedCatalog, one: Priceable, answers: Answers) -> list[Made]:
    """The lines of a segment: of a flat charge one; of a metered one, one for each value of its dimensions in use.

    A metered charge without group_by has exactly one line, also when nothing was used: the invoice then says so.
    """
    owner, charge = one.segment.owner, one.segment.charge
    return [
        charged(run, catalog.version, owner, charge, measure=part.measure, rated=rate(charge, part.usage, part.context))
        for part in priced(catalog, one, answers)
    ]


def priced(catalog: AppliedCatalog, one: Priceable, answers: Answers) -> Iterator[Priced]:
    """What each line of a segment is priced from, in the order of its lines."""
    segment, needs = one.segment, one.needs
    charge = segment.charge
    if isinstance(charge, FlatCharge) or needs is None:
        yield Priced(Measure(quantity=_ONE), Usage(quantity=_ONE), _context(segment))
        return
    customer = segment.owner.customer.id
    found = _by_dimensions(answers, customer, needs.usage)
    if not found and not charge.group_by:
        found = {(): []}
    amounts = _by_dimensions(answers, customer, needs.amounts) if needs.amounts else {}
    events = _by_dimensions(answers, customer, needs.events) if needs.events else {}
    meter = catalog.meters[charge.meter]
    context = _context(segment)
    for values in sorted(found):
        used = found[values]
        usage = _usage(segment, charge, meter, used=used, amounts=amounts.get(values), events=events.get(values, ()))
        if charge.rollover is not None:
            extra = free_rolled_over(charge, one.earlier, customer, values, answers)
            context = msgspec.structs.replace(context, free_quantity_extra=extra)
        quantity = usage.quantity
        measure = Measure(
            quantity=quantity if isinstance(quantity, Decimal) else as_quantity(quantity),
            dimensions=used[0].dimensions if used else {},
            meter=meter,
            events_count=sum(part.events_count for part in used),
            digest=sum(part.digest for part in used) % DIGEST_MODULUS,
        )
        yield Priced(measure, usage, context)


def _context(segment: Segment) -> Context:
    """Which part of the period is charged, and the free units that discounts give."""
    charge, last = segment.charge, segment.last
    free = ZERO if isinstance(charge, FlatCharge) else discount_quantity(segment)
    if charge.proration is Proration.NONE:
        return Context(discount_quantity=free, with_steps=False) if free else _ORDINARY
    whole = (last.period.start, last.period.end)
    rests = [rest for phase in segment.phases for rest in phase.rests] if isinstance(charge, FlatCharge) else ()
    zone = last.customer.timezone
    before = Fraction(0)
    if segment.start > whole[0]:
        before = fraction_of(whole, (whole[0], segment.start), proration=charge.proration, timezone=zone)
    return Context(
        fraction=fraction_of(
            whole, (segment.start, segment.end), proration=charge.proration, timezone=zone, rests=rests
        ),
        fraction_before=before,
        discount_quantity=free,
        with_steps=False,
    )


_ORDINARY: Final = Context(with_steps=False)


def _by_dimensions(answers: Answers, customer: str, reading: Reading) -> Mapping[tuple[str, ...], Sequence[Used]]:
    found: dict[tuple[str, ...], list[Used]] = {}
    for one in answers.get((customer, reading), ()):
        found.setdefault(tuple([one.dimensions[name] for name in reading.group_by]), []).append(one)
    return found


def _usage(
    segment: Segment,
    charge: MeteredCharge,
    meter: Meter,
    *,
    used: Sequence[Used],
    amounts: Sequence[Used] | None,
    events: Sequence[Used],
) -> Usage:
    if is_stock(meter):
        return stock_usage_of(segment, charge, meter, used, events)
    quantity = used[0].quantity if len(used) == 1 else ZERO
    if len(used) > 1:
        for one in used:
            quantity = add(quantity, one.quantity)
    return Usage(
        quantity=quantity,
        events_count=sum(one.events_count for one in used),
        amount=None if not isinstance(charge, DynamicCharge) else amounts[0].quantity if amounts else ZERO,
        events=tuple([one.quantity for one in events]) if needs_events(charge) else None,
        buckets=() if charge.bucket is None else _buckets(segment, charge, used),
        dimensions=used[0].dimensions if used else {},
    )


def _buckets(segment: Segment, charge: MeteredCharge, used: Sequence[Used]) -> tuple[Decimal, ...]:
    if not needs_every_bucket(charge):
        return tuple([one.quantity for one in used])
    zone = zone_of(segment.last.customer.timezone)
    edges_us = plan_windows(segment.start, segment.end, Window(_ASK[charge.bucket].value), zone).edges_us
    given = {one.at: one.quantity for one in used}
    return tuple([given.get(from_us(edge_us), ZERO) for edge_us in edges_us[:-1]])
