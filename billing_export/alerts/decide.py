"""Which alerts hold, from what was used and spent. Pure: what was told before is somebody else's to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from metering.entitlements.reader import Held
from schemas.alert import Alert, AlertRule, Watch
from schemas.catalog import AppliedCatalog
from schemas.period import Period
from schemas.quantity import EXACT, ZERO
from schemas.quota import LimitKind


class Spend(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer's subscriptions in a billing period come to so far, in one currency."""

    customer: str
    period: Period
    currency: str
    amount: Decimal


_KINDS = {Watch.QUOTA: LimitKind.QUOTA, Watch.ALLOWANCE: LimitKind.ALLOWANCE}


def usage_alerts(held: Held) -> Iterator[Alert]:
    """Every threshold of a quota or an allowance that usage has reached."""
    catalog = held.catalog
    if catalog is None:
        return
    for rule in catalog.catalog.alerts:
        kind = _KINDS.get(rule.watch)
        if kind is not None:
            for customer in rule.customers or held.terms:
                yield from _of_customer(rule, kind, customer, held, catalog)


def _of_customer(
    rule: AlertRule, kind: LimitKind, customer: str, held: Held, catalog: AppliedCatalog
) -> Iterator[Alert]:
    for meter, terms in held.terms[customer].meters.items():
        if rule.meter not in (None, meter):
            continue
        for limit in (*terms.limits, *terms.beside):
            used = held.used.get(limit.span, {}).get(customer, ZERO)
            if limit.kind is kind and used > 0 and limit.span not in held.refused:
                for threshold in passed(rule.percentages, used, limit.quantity):
                    yield Alert(
                        rule=rule.id,
                        watch=rule.watch,
                        customer=customer,
                        meter=meter,
                        limit_id=limit.id,
                        threshold=threshold,
                        period_start=limit.span.start,
                        period_end=limit.span.end,
                        limit=limit.quantity,
                        value=used,
                        unit=catalog.meters[meter].unit,
                        as_of=held.as_of,
                    )


def passed(thresholds: Sequence[int], value: Decimal, limit: Decimal) -> list[int]:
    """The percentages of a limit that a value has reached, least first."""
    hundredfold = EXACT.multiply(value, Decimal(100))
    return [one for one in sorted(thresholds) if hundredfold >= EXACT.multiply(limit, Decimal(one))]


def spend_alerts(rules: Sequence[AlertRule], spent: Sequence[Spend], *, as_of: datetime) -> Iterator[Alert]:
    """Every threshold of a budget that was reached."""
    for rule in rules:
        if rule.watch is not Watch.BUDGET or rule.amount is None:
            continue
        for one in spent:
            if one.currency == rule.currency and (not rule.customers or one.customer in rule.customers):
                for threshold in passed(rule.percentages, one.amount, rule.amount):
                    yield Alert(
                        rule=rule.id,
                        watch=rule.watch,
                        customer=one.customer,
                        meter="",
                        limit_id=one.period.label,
                        threshold=threshold,
                        period_start=one.period.start,
                        period_end=one.period.end,
                        limit=rule.amount,
                        value=one.amount,
                        unit=one.currency,
                        as_of=as_of,
                    )


def period_alerts(
    rules: Sequence[AlertRule], periods: Mapping[str, Sequence[Period]], *, now: datetime
) -> Iterator[Alert]:
    """Every running billing period that ends soon; `periods` are by customer."""
    for rule in rules:
        if rule.watch is not Watch.PERIOD_END:
            continue
        for customer in rule.customers or periods:
            for period in periods.get(customer, ()):
                if period.end - timedelta(hours=rule.hours_before) <= now < period.end:
                    yield Alert(
                        rule=rule.id,
                        watch=rule.watch,
                        customer=customer,
                        meter="",
                        limit_id=period.label,
                        threshold=0,
                        period_start=period.start,
                        period_end=period.end,
                        limit=None,
                        value=None,
                        unit="",
                        as_of=now,
                    )
