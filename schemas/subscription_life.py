"""What happens to a subscription: which plan version it has on which days, and what of it lies in a period. Pure.

Days are the customer's own: each begins where the clocks of the customer's zone say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TypeAlias

import msgspec

from schemas.catalog import AppliedCatalog, Customer, MigrationIndex
from schemas.period import Cadence, Period, period_number
from schemas.plan import Plan, PriceList
from schemas.subscription import Subscription
from schemas.zone import day_start, zone_of

Span: TypeAlias = tuple[datetime, datetime]
"""[start, end), UTC."""


class Tenure(msgspec.Struct, frozen=True, kw_only=True):
    """The local days [start, end) on which a subscription has a plan version; end None is open."""

    start: date
    end: date | None
    plan: Plan


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a billing period in which a subscription has one plan version, and is in its trial or is not.

    `start` and `end` are UTC, half-open and within the period. `prices` are the plan's in `currency`, with this
    subscription's overrides. `period_number` is 0 for the subscription's first period. `rests` are its pauses, as far
    as they lie in the phase, in order.
    """

    customer: Customer
    subscription: Subscription
    plan: Plan
    prices: PriceList
    currency: str
    period: Period
    period_number: int
    start: datetime
    end: datetime
    is_trial: bool
    rests: tuple[Span, ...]


def plan_on(versions: Sequence[Plan], version: int | None, day: date) -> Plan | None:
    """The version named, or the newest (of versions oldest first) in effect on a day; None where there is none."""
    if version is not None:
        return next((one for one in versions if one.version == version), None)
    effective = [one for one in versions if one.effective_from is None or one.effective_from <= day]
    return effective[-1] if effective else None


def tenures_of(
    subscription: Subscription, plans: Mapping[str, Sequence[Plan]], migrations: MigrationIndex
) -> tuple[Tenure, ...]:
    """The plan versions a subscription has, in time order without a gap; none before a plan that is not there.

    It begins with the version it names or the newest in effect. A change gives it another one from its day on. A
    migration moves it when it has `from_version` as that day begins, or from that very day on.
    """
    starts = [(subscription.start, subscription.plan, subscription.version)]
    starts += [(one.at, one.plan, one.version) for one in subscription.changes]
    found: list[tuple[date, Plan]] = []
    for place, (day, name, version) in enumerate(starts):
        until = starts[place + 1][0] if place + 1 < len(starts) else subscription.end or date.max
        plan = plan_on(plans.get(name, ()), version, day)
        if plan is None:
            return _without_empty(found, day)
        found.append((day, plan))
        for one in sorted(migrations.concerning(name, subscription.customer), key=lambda one: one.at):
            if day <= one.at < until and plan.version == one.from_version:
                plan = plan_on(plans[name], one.to_version, one.at)
                if plan is None:
                    return _without_empty(found, one.at)
                found.append((one.at, plan))
    return _without_empty(found, subscription.end)


def _without_empty(starts: Sequence[tuple[date, Plan]], end: date | None) -> tuple[Tenure, ...]:
    """Each start until the next one; without those that end as they begin, and with equal neighbours as one."""
    found: list[Tenure] = []
    for place, (start, plan) in enumerate(starts):
        until = starts[place + 1][0] if place + 1 < len(starts) else end
        if until is not None and until <= start:
            continue
        if found and (found[-1].plan.id, found[-1].plan.version) == (plan.id, plan.version):
            found[-1] = msgspec.structs.replace(found[-1], end=until)
        else:
            found.append(Tenure(start=start, end=until, plan=plan))
    return tuple(found)


def tenures(catalog: AppliedCatalog, subscription: Subscription) -> tuple[Tenure, ...]:
    """The plan versions that a subscription of this catalog has, in time order without a gap."""
    return tenures_of(subscription, catalog.plans, catalog.migrations)


def cadence_of(catalog: AppliedCatalog, subscription: Subscription) -> Cadence:
    """What decides a subscription's periods. Changes and migrations keep it, so that its first plan says it."""
    return cadence_with(tenures(catalog, subscription)[0].plan, subscription.start)


def cadence_with(plan: Plan, start: date) -> Cadence:
    """The cadence of a subscription to `plan` that begins on day `start`."""
    return Cadence(period=plan.period, period_days=plan.period_days, anchor=plan.anchor, start=start)


def service_span(catalog: AppliedCatalog, subscription: Subscription) -> tuple[datetime, datetime | None]:
    """When a subscription begins and ends, UTC; None is open."""
    zone = zone_of(catalog.customers[subscription.customer].timezone)
    end = None if subscription.end is None else day_start(subscription.end, zone)
    return day_start(subscription.start, zone), end


def phases(catalog: AppliedCatalog, subscription: Subscription, period: Period) -> list[Phase]:
    """What of a subscription lies in one of its periods, in time order without a gap; empty when nothing does.

    A phase ends where the plan version changes and where the trial is over.
    """
    customer = catalog.customers[subscription.customer]
    zone = zone_of(customer.timezone)
    held = tenures(catalog, subscription)
    first = held[0].plan
    trial_days = first.trial_days if subscription.trial_days is None else subscription.trial_days
    trial_end = day_start(subscription.start + timedelta(days=trial_days), zone)
    pauses = [
        (day_start(one.start, zone), period.end if one.end is None else day_start(one.end, zone))
        for one in sorted(subscription.pauses, key=lambda one: one.start)
    ]
    number = period_number(cadence_with(first, subscription.start), period)
    currency = catalog.currency_of(subscription)
    found: list[Phase] = []
    for tenure in held:
        start = max(period.start, day_start(tenure.start, zone))
        end = period.end if tenure.end is None else min(period.end, day_start(tenure.end, zone))
        for part, is_trial in (((start, min(end, trial_end)), True), ((max(start, trial_end), end), False)):
            if part[0] < part[1]:
                phase = Phase(
                    customer=customer,
                    subscription=subscription,
                    plan=tenure.plan,
                    prices=overridden(catalog.price_list(tenure.plan, currency), subscription),
                    currency=currency,
                    period=period,
                    period_number=number,
                    start=part[0],
                    end=part[1],
                    is_trial=is_trial,
                    rests=_clipped(pauses, part),
                )
                found.append(phase)
    return found


def overridden(prices: PriceList, subscription: Subscription) -> PriceList:
    """The prices with the subscription's own charges in the places of those they stand for."""
    if not subscription.overrides:
        return prices
    own = {one.id: one for one in subscription.overrides}
    return msgspec.structs.replace(prices, charges=tuple(own.get(one.id, one) for one in prices.charges))


def _clipped(spans: Sequence[Span], within: Span) -> tuple[Span, ...]:
    clipped = [(max(start, within[0]), min(end, within[1])) for start, end in spans]
    return tuple((start, end) for start, end in clipped if start < end)
