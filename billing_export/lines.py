"""Line items as they are made, with their exact amounts beside them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final

import msgspec

from billing_export.money import format_amount, round_amount
from billing_export.rate_records import Rated
from billing_export.run import Run
from schemas.catalog import Customer
from schemas.charges import Charge
from schemas.line_item import LineItem, LineKind, TierShare, line_item_id
from schemas.meter import Meter
from schemas.period import Period
from schemas.plan import MoneyRounding, Plan
from schemas.quantity import format_quantity
from schemas.zone import zone_of

NO_DIGEST: Final = "0" * 32


class Made(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A line and its numbers: `exact` is amount_unrounded, `amount` the rounded one, `charge` what it is priced by."""

    item: LineItem
    exact: Decimal
    amount: Decimal
    quantity: Decimal
    charge: Charge | None = None
    rounding: MoneyRounding = MoneyRounding.HALF_UP


class Owner(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whom a line is for, and where in time: a subscription under a plan version, or a whole bill (plan None)."""

    customer: Customer
    subscription: str
    plan: Plan | None
    currency: str
    period: Period
    start: datetime
    end: datetime


class Measure(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the line counts. `digest` is the sum of the digests of `events_count` events."""

    quantity: Decimal
    dimensions: Mapping[str, str] = {}
    meter: Meter | None = None
    events_count: int = 0
    digest: int = 0


def charged(run: Run, catalog_version: int, owner: Owner, charge: Charge, *, measure: Measure, rated: Rated) -> Made:
    """The line of a charge."""
    return made(
        run,
        catalog_version,
        owner,
        kind=LineKind.FLAT if measure.meter is None else LineKind.USAGE,
        charge=charge,
        charge_id=charge.id,
        model=str(charge.__struct_config__.tag),
        description=charge.description or charge.id,
        measure=measure,
        unit_amount=rated.unit_amount,
        tiers=rated.tiers,
        exact=rated.amount_unrounded,
        tax_code=charge.tax_code,
    )


def made(
    run: Run,
    catalog_version: int,
    owner: Owner,
    *,
    kind: LineKind,
    exact: Decimal,
    description: str,
    measure: Measure,
    charge: Charge | None = None,
    charge_id: str = "",
    model: str = "",
    reference: str = "",
    reduces: str | None = None,
    unit_amount: Decimal | None = None,
    tiers: tuple[TierShare, ...] = (),
    tax_code: str = "",
    revision: int = 0,
    amount: Decimal | None = None,
    terms_days: int | None = None,
) -> Made:
    """A line of any kind; its amount is rounded here unless it is given, where parts of one amount have to add up."""
    plan, period, customer = owner.plan, owner.period, owner.customer
    rounding = MoneyRounding.HALF_UP if plan is None else plan.rounding
    if amount is None:
        amount = round_amount(exact, owner.currency, rounding)
    dimensions = measure.dimensions
    if len(dimensions) > 1:
        dimensions = {name: dimensions[name] for name in sorted(dimensions)}
    item = LineItem(
        id=line_item_id(
            customer=customer.id,
            subscription=owner.subscription,
            plan="" if plan is None else plan.id,
            charge=charge_id,
            kind=kind,
            reference=reference,
            dimensions=dimensions,
            period=period.label,
            service_start=owner.start,
            revision=revision,
        ),
        run=run.id,
        revision=revision,
        corrects=None,
        adjustment=None,
        kind=kind,
        reference=reference,
        reduces=reduces,
        period=period.label,
        timezone=period.timezone,
        period_start=period.start,
        period_end=period.end,
        period_start_local=local_text(period.start, period.timezone),
        period_end_local=local_text(period.end, period.timezone),
        service_start=owner.start,
        service_end=owner.end,
        customer=customer.id,
        customer_name=customer.name,
        external_ids=sorted_texts(customer.external_ids),
        subscription=owner.subscription,
        plan="" if plan is None else plan.id,
        plan_version=0 if plan is None else plan.version,
        charge=charge_id,
        model=model,
        description=description,
        meter=None if measure.meter is None else measure.meter.name,
        unit="" if measure.meter is None else measure.meter.unit,
        dimensions=dict(dimensions),
        quantity=format_quantity(measure.quantity),
        unit_amount=None if unit_amount is None else format_quantity(unit_amount),
        tiers=tiers,
        amount_unrounded=format_quantity(exact),
        amount=format_amount(amount),
        currency=owner.currency,
        tax_code=tax_code,
        terms_days=terms_days if plan is None or terms_days is not None else plan.terms_days,
        events_count=measure.events_count,
        digest=f"{measure.digest:032x}" if measure.digest else NO_DIGEST,
        catalog_version=catalog_version,
    )
    return Made(item=item, exact=exact, amount=amount, quantity=measure.quantity, charge=charge, rounding=rounding)


def root_id(item: LineItem) -> str:
    """The id of the first line of a line's chain of corrections."""
    return item.id if item.revision == 0 else revised_id(item, 0)


def revised_id(item: LineItem, revision: int) -> str:
    """The id that a line would have with another revision."""
    return line_item_id(
        customer=item.customer,
        subscription=item.subscription,
        plan=item.plan,
        charge=item.charge,
        kind=item.kind,
        reference=item.reference,
        dimensions=item.dimensions,
        period=item.period,
        service_start=item.service_start,
        revision=revision,
    )


def sorted_texts(texts: dict[str, str]) -> dict[str, str]:
    """The same texts, by name."""
    return dict(sorted(texts.items())) if len(texts) > 1 else texts


@lru_cache(maxsize=16_384)
def local_text(moment: datetime, timezone: str) -> str:
    """An instant as the clocks of a zone show it, with their offset: `2013-01-01T00:00:00-05:00`."""
    return moment.astimezone(zone_of(timezone)).isoformat(timespec="seconds")
