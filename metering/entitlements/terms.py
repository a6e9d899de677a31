"""What a customer may use at a moment: the quotas and allowances that hold then, and until when they do. Pure.

Everything that decides here changes at the start of a local day, so that every span is made of whole rollup windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

import msgspec

from schemas.catalog import AppliedCatalog, Customer
from schemas.charges import FlatCharge, MeteredCharge, Proration
from schemas.meter import Aggregation
from schemas.period import Cadence, Period, billing_period_at
from schemas.plan import BillingPeriod
from schemas.quota import LimitKind, Quota
from schemas.subscription_life import Phase, cadence_of, phases, service_span

_ANY_DAY: Final = date(2000, 1, 1)
"""Calendar periods do not depend on the day that a cadence starts on."""

_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Usage of a meter over [start, end), UTC."""

    meter: str
    start: datetime
    end: datetime


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """`quantity` of the span's meter may be used in it. `id` is the quota's, or that of the charge that includes it."""

    id: str
    kind: LimitKind
    quantity: Decimal
    span: Span


class MeterTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a customer and a meter: quotas, or without them allowances.

    `covered` is the billing period in which an active subscription charges the meter, None when none does.
    `beside` are the allowances where quotas are the limits.
    """

    covered: Span | None = None
    limits: tuple[Limit, ...] = ()
    beside: tuple[Limit, ...] = ()

    @property
    def spans(self) -> frozenset[Span]:
        """All usage that has to be known to say what is left."""
        held = frozenset(one.span for one in (*self.limits, *self.beside))
        return held or (frozenset() if self.covered is None else frozenset([self.covered]))


class CustomerTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a customer by meter, until `until`; meters that nothing is said about are not there."""

    customer: str
    until: datetime
    meters: dict[str, MeterTerms]


class TermsBook:
    """Says what holds for the customers of one catalog."""

    def __init__(self, catalog: AppliedCatalog) -> None:
        self._catalog = catalog
        self.balances = frozenset(
            one.meter.name for one in catalog.meter_versions if one.meter.aggregation is Aggregation.TIME_WEIGHTED
        )
        """Meters whose usage is no quantity of a period: nothing is said about them."""
        self._of_customer = _by(catalog.catalog.quotas, "customer")
        self._of_plan = _by(catalog.catalog.quotas, "plan")

    def at(self, customer: Customer, now: datetime) -> CustomerTerms:
        """What holds for a customer now. Raises RequestError beyond the years that have periods."""
        held, until = self._active(customer, now)
        covered: dict[str, Span] = {}
        quotas: dict[str, list[Limit]] = {}
        allowances: dict[str, list[Limit]] = {}
        for phase in held:
            for charge in phase.prices.charges:
                if isinstance(charge, FlatCharge) or charge.meter in self.balances:
                    continue
                covered.setdefault(charge.meter, _span(charge.meter, phase.period))
                for limit in _allowance(charge, phase):
                    allowances.setdefault(charge.meter, []).append(limit)
            for quota in self._of_plan.get(phase.plan.id, ()):
                period = phase.period if quota.period is None else _calendar(quota.period, customer, now)
                quotas.setdefault(quota.meter, []).append(_limit(quota, period))
        own: dict[str, list[Limit]] = {}
        for quota in self._of_customer.get(customer.id, ()):
            period = _calendar(quota.period or BillingPeriod.MONTH, customer, now)
            own.setdefault(quota.meter, []).append(_limit(quota, period))
        quotas |= own
        meters = {
            meter: MeterTerms(
                covered=covered.get(meter),
                limits=tuple(quotas.get(meter) or allowances.get(meter) or ()),
                beside=tuple(allowances.get(meter, ())) if meter in quotas else (),
            )
            for meter in sorted({*covered, *quotas})
        }
        ends = [limit.span.end for terms in meters.values() for limit in terms.limits]
        return CustomerTerms(customer=customer.id, until=min([until, *ends]), meters=meters)

    def _active(self, customer: Customer, now: datetime) -> tuple[list[Phase], datetime]:
        """The phases that the customer's subscriptions are in, and when that changes next."""
        found: list[Phase] = []
        until = _NEVER
        for subscription in self._catalog.subscriptions_of(customer.id):
            start, end = service_span(self._catalog, subscription)
            if now < start:
                until = min(until, start)
            if now < start or (end is not None and end <= now):
                continue
            period = billing_period_at(cadence_of(self._catalog, subscription), now, customer.timezone)
            for phase in phases(self._catalog, subscription, period):
                if phase.start <= now < phase.end:
                    found.append(phase)
                    until = min(until, phase.end)
        return found, until


def _by(quotas: Iterable[Quota], field: str) -> dict[str, list[Quota]]:
    found: dict[str, list[Quota]] = {}
    for one in quotas:
        owner = getattr(one, field)
        if owner is not None:
            found.setdefault(owner, []).append(one)
    return found


def _calendar(unit: BillingPeriod, customer: Customer, now: datetime) -> Period:
    return billing_period_at(Cadence(period=unit, start=_ANY_DAY), now, customer.timezone)


def _span(meter: str, period: Period) -> Span:
    return Span(meter=meter, start=period.start, end=period.end)


def _limit(quota: Quota, period: Period) -> Limit:
    return Limit(id=quota.id, kind=LimitKind.QUOTA, quantity=quota.quantity, span=_span(quota.meter, period))


def _allowance(charge: MeteredCharge, phase: Phase) -> Iterator[Limit]:
    """The free units of a charge, where the catalog alone says how many: not of parts of usage, or carried over."""
    is_whole = (phase.start, phase.end) == (phase.period.start, phase.period.end)
    if (
        charge.free_quantity > 0
        and not charge.group_by
        and charge.rollover is None
        and (is_whole or charge.proration is Proration.NONE)
        and not phase.is_trial
    ):
        span = Span(meter=charge.meter, start=phase.start, end=phase.end)
        yield Limit(id=charge.id, kind=LimitKind.ALLOWANCE, quantity=charge.free_quantity, span=span)
