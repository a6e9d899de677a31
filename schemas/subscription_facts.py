"""The life of a subscription as facts, one for each thing that happens to it: what KPIs are counted from. Pure.

A fact says what happened on which of the customer's days, and how the subscription stands once that day has begun.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final

import msgspec

from schemas.catalog import AppliedCatalog
from schemas.catalog_parts import parts_below
from schemas.charges import DynamicCharge, FlatCharge
from schemas.errors import InvariantViolationError
from schemas.plan import BillingPeriod, Plan, PriceList
from schemas.subscription import Subscription
from schemas.subscription_life import overridden, tenures
from schemas.zone import day_start, zone_of

MONTH_DAYS: Final = Fraction(3_652_425, 120_000)
"""The mean month of the Gregorian calendar, 30.436875 days: what weeks and days are brought to a month with."""

RECURRING_DECIMALS: Final = 12

_MONTHS: Final = {BillingPeriod.MONTH: 1, BillingPeriod.QUARTER: 3, BillingPeriod.YEAR: 12}
_WEEK_DAYS: Final = 7
_PRICES: Final = frozenset(
    {"amount", "unit_amount", "flat_amount", "package_amount", "rate", "fixed_amount", "event_min", "minimum"}
)
"""The fields of a price list that can make something cost money."""


class FactType(enum.Enum):
    """What happened. In this order the facts of one day are listed."""

    RESUMED = "subscription.resumed"
    STARTED = "subscription.started"
    TRIAL_STARTED = "trial.started"
    CHANGED = "subscription.changed"
    TRIAL_CONVERTED = "trial.converted"
    PAUSED = "subscription.paused"
    CANCELLED = "subscription.cancelled"
    WITHDRAWN = "subscription.withdrawn"
    """The catalog lists the subscription no more, as if it had never been."""


class Status(enum.Enum):
    """How a subscription stands. Whoever has one that is `paying` or `paused` is a customer."""

    TRIAL = "trial"
    FREE = "free"
    PAYING = "paying"
    PAUSED = "paused"
    ENDED = "ended"


class SubscriptionFact(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happens to a subscription on local day `day`, which begins at `at` (UTC).

    `plan`, `plan_version`, `status`, `recurring` (money a month) and `recurring_year` (money a year, both to 12
    decimals and before discounts) are those of the subscription after everything that happens on that day.
    """

    subscription: str
    number: int
    type: FactType
    day: date
    at: datetime
    customer: str
    currency: str
    plan: str
    plan_version: int
    status: Status
    recurring: Decimal
    recurring_year: Decimal


def life_of(catalog: AppliedCatalog, subscription: Subscription) -> tuple[SubscriptionFact, ...]:
    """Everything that happens to a subscription, in time order, future days included."""
    customer = catalog.customers[subscription.customer]
    zone = zone_of(customer.timezone)
    currency = catalog.currency_of(subscription)
    held = tenures(catalog, subscription)
    if not held:
        raise InvariantViolationError(
            f"subscription {subscription.id} has no plan on any day",
            where="catalog",
            fix="Report it: the catalog's checks should have refused this",
        )
    trial_end = subscription.start + timedelta(days=_trial_days(subscription, held[0].plan))
    happenings = sorted(_happenings(subscription, trial_end, [one.start for one in held[1:]]), key=_order)
    facts: list[SubscriptionFact] = []
    for number, (day, what) in enumerate(happenings):
        plan = next((one.plan for one in reversed(held) if one.start <= day), held[0].plan)
        prices = overridden(catalog.price_list(plan, currency), subscription)
        status = _status(subscription, trial_end, prices, day)
        fact = SubscriptionFact(
            subscription=subscription.id,
            number=number,
            type=what,
            day=day,
            at=day_start(day, zone),
            customer=subscription.customer,
            currency=currency,
            plan=plan.id,
            plan_version=plan.version,
            status=status,
            recurring=recurring_over(1, plan, prices) if status is Status.PAYING else Decimal(0),
            recurring_year=recurring_over(12, plan, prices) if status is Status.PAYING else Decimal(0),
        )
        facts.append(fact)
    return tuple(facts)


def recurring_over(months: int, plan: Plan, prices: PriceList) -> Decimal:
    """What the flat charges of a plan come to in so many months, rounded half up once, to 12 decimals.

    A year has its own number, because a twelfth of a yearly fee, rounded, is not the fee again when it is multiplied.
    """
    total = sum((Fraction(one.amount) for one in prices.charges if isinstance(one, FlatCharge)), Fraction(0))
    scaled = total * months * months_factor(plan) * 10**RECURRING_DECIMALS
    whole = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return Decimal(whole).scaleb(-RECURRING_DECIMALS)


def months_factor(plan: Plan) -> Fraction:
    """What an amount of one of the plan's periods is multiplied with to be the amount of a month."""
    if plan.period in _MONTHS:
        return Fraction(1, _MONTHS[plan.period])
    days = _WEEK_DAYS if plan.period is BillingPeriod.WEEK else plan.period_days
    if days is None:
        raise InvariantViolationError(
            f"plan {plan.id} has a period in days without period_days", where="catalog", fix="Give the plan period_days"
        )
    return MONTH_DAYS / days


def is_paid(prices: PriceList) -> bool:
    """Whether anything in a price list can cost money; a plan of which nothing can is a free one."""
    if any(isinstance(one, DynamicCharge) for one in prices.charges):
        return True
    records = [record for _, record in parts_below((), prices)]
    amounts = [getattr(one, name) for one in records for name in one.__struct_fields__ if name in _PRICES]
    return any(isinstance(one, Decimal) and one > 0 for one in amounts)


def _trial_days(subscription: Subscription, first: Plan) -> int:
    return first.trial_days if subscription.trial_days is None else subscription.trial_days


def _happenings(one: Subscription, trial_end: date, changed: list[date]) -> Iterator[tuple[date, FactType]]:
    end = one.end or date.max
    yield one.start, FactType.STARTED
    if trial_end > one.start:
        yield one.start, FactType.TRIAL_STARTED
        if trial_end < end:
            yield trial_end, FactType.TRIAL_CONVERTED
    for day in changed:
        yield day, FactType.CHANGED
    for pause in one.pauses:
        yield pause.start, FactType.PAUSED
        if pause.end is not None and pause.end < end:
            yield pause.end, FactType.RESUMED
    if one.end is not None:
        yield one.end, FactType.CANCELLED


def _order(happening: tuple[date, FactType]) -> tuple[date, int]:
    return happening[0], _PLACES[happening[1]]


_PLACES: Final = {one: place for place, one in enumerate(FactType)}


def _status(one: Subscription, trial_end: date, prices: PriceList, day: date) -> Status:
    if one.end is not None and day >= one.end:
        return Status.ENDED
    if day < trial_end:
        return Status.TRIAL
    if not is_paid(prices):
        return Status.FREE
    rests = any(pause.start <= day < (pause.end or date.max) for pause in one.pauses)
    return Status.PAUSED if rests else Status.PAYING
