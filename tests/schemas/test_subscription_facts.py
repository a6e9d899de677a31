"""The life of a subscription as facts, and recurring revenue brought to a month."""

from __future__ import annotations

from decimal import Decimal

import pytest

from metering.catalog_file import parse_catalog
from schemas.catalog import AppliedCatalog, applied
from schemas.subscription_facts import SubscriptionFact, life_of

BASIC = "{id: basic, trial_days: 14, charges: [{id: fee, model: flat, amount: 10}]}"
PRO = "{id: pro, charges: [{id: fee, model: flat, amount: 30}, {id: more, model: flat, amount: 0.5}]}"
FREE = "{id: free, charges: [{id: fee, model: flat, amount: 0}]}"


def catalog_of(subscription: str, *plans: str, timezone: str = "UTC") -> AppliedCatalog:
    listed = "".join(f"  - {one}\n" for one in plans or (BASIC, PRO, FREE))
    text = f"""
plans:
{listed}customers: [{{id: acme, subjects: [acme], timezone: {timezone}}}]
subscriptions:
  - {{id: s, customer: acme, {subscription}}}
"""
    return applied(1, parse_catalog(text), ())


def life(subscription: str, *plans: str, timezone: str = "UTC") -> tuple[SubscriptionFact, ...]:
    catalog = catalog_of(subscription, *plans, timezone=timezone)
    return life_of(catalog, catalog.subscriptions["s"])


def told(facts: tuple[SubscriptionFact, ...]) -> list[str]:
    return [f"{one.day} {one.type.value} {one.plan} {one.status.value} {one.recurring.normalize():f}" for one in facts]


def test_a_life_with_everything_in_it_is_told_in_order() -> None:
    facts = life(
        "plan: basic, start: 2024-01-01, end: 2025-01-01, changes: [{at: 2024-03-01, plan: pro}],"
        " pauses: [{start: 2024-08-01, end: 2024-09-01}, {start: 2024-09-01, end: 2024-10-01}]"
    )

    assert told(facts) == [
        "2024-01-01 subscription.started basic trial 0",
        "2024-01-01 trial.started basic trial 0",
        "2024-01-15 trial.converted basic paying 10",
        "2024-03-01 subscription.changed pro paying 30.5",
        "2024-08-01 subscription.paused pro paused 0",
        "2024-09-01 subscription.resumed pro paused 0",
        "2024-09-01 subscription.paused pro paused 0",
        "2024-10-01 subscription.resumed pro paying 30.5",
        "2025-01-01 subscription.cancelled pro ended 0",
    ]
    assert [one.number for one in facts] == list(range(9))


def test_a_trial_that_ends_with_the_subscription_is_not_converted() -> None:
    assert told(life("plan: basic, start: 2024-01-01, end: 2024-01-15")) == [
        "2024-01-01 subscription.started basic trial 0",
        "2024-01-01 trial.started basic trial 0",
        "2024-01-15 subscription.cancelled basic ended 0",
    ]


def test_a_pause_until_further_notice_is_not_resumed() -> None:
    assert told(life("plan: pro, start: 2024-01-01, pauses: [{start: 2024-02-01}]"))[1:] == [
        "2024-02-01 subscription.paused pro paused 0"
    ]


def test_who_leaves_a_free_plan_pays_from_that_day_on() -> None:
    assert told(life("plan: free, start: 2024-01-01, changes: [{at: 2024-02-01, plan: pro}]")) == [
        "2024-01-01 subscription.started free free 0",
        "2024-02-01 subscription.changed pro paying 30.5",
    ]


def test_a_day_begins_on_the_customers_clock() -> None:
    facts = life("plan: pro, start: 2024-01-01", timezone="Asia/Kathmandu")

    assert facts[0].at.isoformat() == "2023-12-31T18:15:00+00:00"


@pytest.mark.parametrize(
    ("period", "month", "year"),
    [
        ("period: month", "100", "1200"),
        ("period: quarter", "33.333333333333", "400"),
        ("period: year", "8.333333333333", "100"),
        ("period: week", "434.8125", "5217.75"),
        ("period: days, period_days: 1", "3043.6875", "36524.25"),
        ("period: days, period_days: 90", "33.81875", "405.825"),
        ("period: days, period_days: 7, anchor: anniversary", "434.8125", "5217.75"),
    ],
)
def test_a_hundred_a_period_is_brought_to_a_month_and_to_a_year(period: str, month: str, year: str) -> None:
    plan = f"{{id: plan, {period}, charges: [{{id: fee, model: flat, amount: 100}}]}}"
    (fact,) = life("plan: plan, start: 2024-01-01", plan)

    assert (fact.recurring, fact.recurring_year) == (Decimal(month), Decimal(year))


def test_a_negotiated_price_is_what_recurs() -> None:
    (fact,) = life("plan: pro, start: 2024-01-01, overrides: [{id: fee, model: flat, amount: 12.25}]")

    assert fact.recurring == Decimal("12.75")


@pytest.mark.parametrize(
    ("price", "status"),
    [
        ("{id: calls, model: per_unit, meter: calls, unit_amount: 0.000000000001}", "paying"),
        ("{id: calls, model: per_unit, meter: calls, unit_amount: 0}", "free"),
        ("{id: calls, model: per_unit, meter: calls, unit_amount: 0, minimum: 5}", "paying"),
        (
            "{id: calls, model: graduated, meter: calls, tiers: [{up_to: 5, unit_amount: 0}, {unit_amount: 1}]}",
            "paying",
        ),
        ("{id: calls, model: graduated, meter: calls, tiers: [{unit_amount: 0}], free_quantity: 9}", "free"),
        ("{id: calls, model: package, meter: calls, package_size: 10, package_amount: 3}", "paying"),
        ("{id: calls, model: volume, meter: calls, tiers: [{unit_amount: 0}], minimum: 0}", "free"),
    ],
)
def test_a_plan_is_free_when_nothing_in_it_can_cost_money(price: str, status: str) -> None:
    text = f"""
meters: [{{name: calls, event_type: call, aggregation: count}}]
plans: [{{id: plan, charges: [{price}]}}]
customers: [{{id: acme, subjects: [acme]}}]
subscriptions: [{{id: s, customer: acme, plan: plan, start: 2024-01-01}}]
"""
    catalog = applied(1, parse_catalog(text), ())

    (fact,) = life_of(catalog, catalog.subscriptions["s"])

    assert (fact.status.value, fact.recurring) == (status, Decimal(0))
