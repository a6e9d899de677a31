"""Whom a run bills for which of their periods. Pure: the catalogs and claims of runs in, terms out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime, timedelta

import msgspec

from billing_export.run import Run, RunKind
from schemas.catalog import AppliedCatalog, Customer
from schemas.charges import FlatCharge, Timing
from schemas.errors import RequestError
from schemas.period import Period, billing_period, billing_period_at, next_period, parse_label
from schemas.plan import Plan
from schemas.subscription import Subscription
from schemas.subscription_life import cadence_of, service_span, tenures


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription in one of its billing periods: what is billed once, by one run."""

    customer: Customer
    subscription: Subscription
    period: Period


def terms(catalog: AppliedCatalog, label: str, customers: Collection[str] = ()) -> list[Term]:
    """The subscriptions that have any time in their period `label`, by customer and then subscription id.

    Also those whose first period is the next one and which are charged in advance for it: its bill is this one.
    `customers` leaves the others out; empty is everybody. Raises RequestError for a label that is none.
    """
    parse_label(label)
    found: list[Term] = []
    for subscription in _subscriptions(catalog, customers):
        customer = catalog.customers[subscription.customer]
        cadence = cadence_of(catalog, subscription)
        period = billing_period(cadence, label, customer.timezone)
        if period is None:
            continue
        start, end = service_span(catalog, subscription)
        if end is not None and end <= max(start, period.start):
            continue
        if start >= period.end:
            following = next_period(cadence, period)
            if start >= following.end or not _is_charged_in_advance(tenures(catalog, subscription)[0].plan):
                continue
        found.append(Term(customer=customer, subscription=subscription, period=period))
    return found


def _is_charged_in_advance(plan: Plan) -> bool:
    return any(isinstance(one, FlatCharge) and one.timing is Timing.ADVANCE for one in plan.charges)


def billed_before(
    run_sequence: int, runs: Iterable[Run], load: Callable[[int], AppliedCatalog], customers: Collection[str] = ()
) -> set[str]:
    """The subscriptions that some runs of one period billed, of those that come before a place in the log."""
    found: set[str] = set()
    for run in runs:
        if run.sequence < run_sequence:
            found |= {one.subscription.id for one in _terms_in_scope(run, load, customers)}
    return found


def terms_of(
    run: Run, of_period: Iterable[Run], load: Callable[[int], AppliedCatalog], customers: Collection[str] = ()
) -> list[Term]:
    """What a run bills: its customers' terms that no earlier run of the period billed. None for adjustments only.

    `customers` leaves the others out.
    """
    found = _terms_in_scope(run, load, customers)
    before = billed_before(run.sequence, of_period, load, customers) if found else set()
    return [one for one in found if one.subscription.id not in before] if before else found


def _terms_in_scope(run: Run, load: Callable[[int], AppliedCatalog], customers: Collection[str]) -> list[Term]:
    if run.kind is RunKind.ADJUSTMENTS:
        return []
    asked: Collection[str] = run.customers
    if customers:
        asked = set(customers) & set(run.customers) if run.customers else customers
        if not asked:
            return []
    return terms(load(run.catalog_version), run.period, asked)


def _subscriptions(catalog: AppliedCatalog, customers: Collection[str]) -> Iterable[Subscription]:
    """The subscriptions of some customers, or of all, by customer and then by id."""
    if not customers:
        return catalog.subscriptions_sorted
    return (one for customer in sorted(set(customers)) for one in catalog.subscriptions_of(customer))


def has_later_bill(catalog: AppliedCatalog, customer: str, now: datetime) -> bool:
    """Whether a period of the customer has still to end."""
    for subscription in catalog.subscriptions_of(customer):
        start, end = service_span(catalog, subscription)
        if end is None or end > max(now, start):
            return True
        if subscription.end is not None and end > start:
            cadence = cadence_of(catalog, subscription)
            last_day = subscription.end - timedelta(days=1)
            if billing_period_at(cadence, last_day, catalog.customers[customer].timezone).end > now:
                return True
    return False


def check_customers(catalog: AppliedCatalog, customers: Iterable[str]) -> None:
    """Raise RequestError for a customer that the catalog does not have."""
    for one in customers:
        if one not in catalog.customers:
            raise RequestError(
                f"there is no customer {one!r}",
                where=f"catalog version {catalog.version}",
                fix="Use an id of the catalog's customers",
            )


def due_labels(
    catalog: AppliedCatalog,
    before: Callable[[str], Collection[str]],
    *,
    now: datetime,
    grace_s: int,
    customers: Collection[str] = (),
) -> list[str]:
    """The labels that can be billed: something in them is not, and all of that is over, grace time included.

    `before` gives the subscriptions that were billed for a label. In the order in which the periods ended.
    """
    latest = now - timedelta(seconds=grace_s)
    ends: dict[str, datetime] = {}
    billed: dict[str, Collection[str]] = {}
    for subscription in _subscriptions(catalog, customers):
        for period in _begun(catalog, subscription, now):
            if period.label not in billed:
                billed[period.label] = before(period.label)
            if subscription.id not in billed[period.label]:
                ends[period.label] = max(period.end, ends.get(period.label, period.end))
    return [label for end, label in sorted((end, label) for label, end in ends.items()) if end <= latest]


def _begun(catalog: AppliedCatalog, subscription: Subscription, now: datetime) -> Iterator[Period]:
    """The periods of a subscription that have begun."""
    start, end = service_span(catalog, subscription)
    if end is not None and end <= start:
        return
    timezone = catalog.customers[subscription.customer].timezone
    cadence = cadence_of(catalog, subscription)
    period = billing_period_at(cadence, subscription.start, timezone)
    while period.start < (now if end is None else min(now, end)):
        yield period
        period = next_period(cadence, period)
