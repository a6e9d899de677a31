"""What a period's lines are: pure functions of the catalog, the run and the quantities that were read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from billing_export.money import format_amount, round_amount
from billing_export.rate import rate
from billing_export.run import Run
from schemas.catalog import AppliedCatalog, Customer
from schemas.charges import Charge, FlatCharge
from schemas.line_item import LineItem, LineKind, line_item_id
from schemas.period import Period, month, start_of_day
from schemas.plan import Plan
from schemas.quantity import ZERO, format_quantity
from schemas.subscription import Subscription
from schemas.zone import zone_of


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription in a period: what is charged to whom, for [start, end), the part of the period it covers."""

    customer: Customer
    subscription: Subscription
    plan: Plan
    period: Period
    start: datetime
    end: datetime


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What must be read for a charge: a meter over [start, end), UTC, by some of its dimensions."""

    meter: str
    group_by: tuple[str, ...]
    start: datetime
    end: datetime


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """What was read: a quantity, and the events behind it as a count and as a sum of digests modulo 2^128."""

    dimensions: dict[str, str]
    quantity: Decimal
    events_count: int
    digest: int


def services(catalog: AppliedCatalog, label: str) -> list[Service]:
    """Every subscription that has any time in the month `label`, by customer and then subscription id.

    Raises RequestError for a label that is no month.
    """
    found: list[Service] = []
    for subscription in catalog.catalog.subscriptions:
        customer = catalog.customers[subscription.customer]
        period = month(label, customer.timezone)
        start = max(period.start, start_of_day(subscription.start, customer.timezone))
        end = period.end
        if subscription.end is not None:
            end = min(end, start_of_day(subscription.end, customer.timezone))
        if start < end:
            plan = catalog.plans[subscription.plan][-1]
            found.append(
                Service(customer=customer, subscription=subscription, plan=plan, period=period, start=start, end=end)
            )
    return sorted(found, key=lambda one: (one.customer.id, one.subscription.id))


def reading_of(service: Service, charge: Charge) -> Reading | None:
    """What to read for a charge; None for a flat one."""
    if isinstance(charge, FlatCharge):
        return None
    return Reading(meter=charge.meter, group_by=charge.group_by, start=service.start, end=service.end)


def line_items(
    run: Run, catalog: AppliedCatalog, service: Service, used: Mapping[Reading, Sequence[Used]]
) -> Iterator[LineItem]:
    """The lines of a subscription: its charges in the plan's order, dimension values in text order.

    A charge without group_by has exactly one line, also when nothing was used: the invoice then says so. A charge
    with group_by has a line for each value that was used.
    """
    for charge in service.plan.charges:
        reading = reading_of(service, charge)
        if reading is None:
            yield _line(
                run, catalog, service, charge, Used(dimensions={}, quantity=Decimal(1), events_count=0, digest=0)
            )
            continue
        found = sorted(used.get(reading, ()), key=lambda one: sorted(one.dimensions.items()))
        if not found and not reading.group_by:
            found = [Used(dimensions={}, quantity=ZERO, events_count=0, digest=0)]
        for one in found:
            yield _line(run, catalog, service, charge, one)


def _line(run: Run, catalog: AppliedCatalog, service: Service, charge: Charge, used: Used) -> LineItem:
    meter = None if isinstance(charge, FlatCharge) else catalog.meters[charge.meter]
    rated = rate(charge, used.quantity)
    dimensions = {name: used.dimensions[name] for name in sorted(used.dimensions)}
    revision = 0
    kind = LineKind.FLAT if meter is None else LineKind.USAGE
    return LineItem(
        id=line_item_id(
            customer=service.customer.id,
            subscription=service.subscription.id,
            plan=service.plan.id,
            charge=charge.id,
            kind=kind,
            reference="",
            dimensions=dimensions,
            period=service.period.label,
            service_start=service.start,
            revision=revision,
        ),
        run=run.id,
        revision=revision,
        corrects=None,
        adjustment=None,
        kind=kind,
        reference="",
        reduces=None,
        period=service.period.label,
        timezone=service.period.timezone,
        period_start=service.period.start,
        period_end=service.period.end,
        period_start_local=local_text(service.period.start, service.period.timezone),
        period_end_local=local_text(service.period.end, service.period.timezone),
        service_start=service.start,
        service_end=service.end,
        customer=service.customer.id,
        customer_name=service.customer.name,
        external_ids=dict(sorted(service.customer.external_ids.items())),
        subscription=service.subscription.id,
        plan=service.plan.id,
        plan_version=service.plan.version,
        charge=charge.id,
        model=str(charge.__struct_config__.tag),
        description=charge.description or charge.id,
        meter=None if meter is None else meter.name,
        unit="" if meter is None else meter.unit,
        dimensions=dimensions,
        quantity=format_quantity(used.quantity),
        unit_amount=None if rated.unit_amount is None else format_quantity(rated.unit_amount),
        tiers=rated.tiers,
        amount_unrounded=format_quantity(rated.amount_unrounded),
        amount=format_amount(round_amount(rated.amount_unrounded, service.plan.currency)),
        currency=service.plan.currency,
        tax_code=charge.tax_code,
        terms_days=service.plan.terms_days,
        events_count=used.events_count,
        digest=f"{used.digest:032x}",
        catalog_version=catalog.version,
    )


def local_text(moment: datetime, timezone: str) -> str:
    """An instant as the clocks of a zone show it, with their offset: `2013-01-01T00:00:00-05:00`."""
    return moment.astimezone(zone_of(timezone)).isoformat(timespec="seconds")
