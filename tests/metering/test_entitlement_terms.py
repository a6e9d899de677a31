"""What a customer may use at a moment: which quotas and allowances hold, in which span, and what is said about them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from metering.catalog_file import parse_catalog
from metering.catalog_store import plan_apply
from metering.entitlements.answer import entitlement
from metering.entitlements.terms import Limit, MeterTerms, Span, TermsBook
from schemas.catalog import AppliedCatalog
from schemas.quota import LimitKind, Reason

METERS = """
meters:
  - {name: calls, event_type: call, aggregation: count}
  - {name: bytes, event_type: call, aggregation: sum, value: n}
  - {name: seats, event_type: seat, aggregation: time_weighted, value: n}
customers:
  - {id: acme, subjects: [a], timezone: America/New_York}
  - {id: bolt, subjects: [b]}
"""
PLANS = """
plans:
  - id: pro
    anchor: anniversary
    charges:
      - {id: calls, model: per_unit, meter: calls, unit_amount: 1, free_quantity: 100}
      - {id: bytes, model: per_unit, meter: bytes, unit_amount: 1}
      - {id: seats, model: per_unit, meter: seats, unit_amount: 1, free_quantity: 5}
subscriptions:
  - {id: acme-pro, customer: acme, plan: pro, start: 2013-01-10, end: 2013-06-10}
"""


def catalog_of(*parts: str) -> AppliedCatalog:
    return plan_apply(None, parse_catalog("".join(parts)))


def at(day: str, hour: int = 12) -> datetime:
    return datetime.fromisoformat(day).replace(hour=hour, tzinfo=UTC)


def terms(catalog: AppliedCatalog, customer: str, now: datetime) -> dict[str, MeterTerms]:
    return TermsBook(catalog).at(catalog.customers[customer], now).meters


def shown(limits: tuple[Limit, ...]) -> list[tuple[str, str, str, str]]:
    return [
        (one.id, str(one.quantity), f"{one.span.start:%Y-%m-%dT%H}", f"{one.span.end:%Y-%m-%dT%H}") for one in limits
    ]


def test_a_plans_quota_counts_in_the_billing_period_of_the_subscription() -> None:
    catalog = catalog_of(METERS, PLANS, "quotas: [{id: q, plan: pro, meter: calls, quantity: 1000}]")

    held = terms(catalog, "acme", at("2013-03-20"))

    # Days begin at 5 in the morning UTC in New York, and at 4 in summer, which begins on 10 March 2013.
    assert shown(held["calls"].limits) == [("q", "1000", "2013-03-10T05", "2013-04-10T04")]


def test_a_quota_with_a_period_counts_by_the_calendar_of_the_customer() -> None:
    catalog = catalog_of(METERS, PLANS, "quotas: [{id: q, plan: pro, meter: calls, quantity: 7, period: week}]")

    held = terms(catalog, "acme", at("2013-01-31"))

    assert shown(held["calls"].limits) == [("q", "7", "2013-01-28T05", "2013-02-04T05")]


def test_a_customers_quota_stands_in_the_place_of_the_plans_and_needs_no_subscription() -> None:
    quotas = """
quotas:
  - {id: q, plan: pro, meter: calls, quantity: 7}
  - {id: own, customer: acme, meter: calls, quantity: 8}
  - {id: other, customer: bolt, meter: calls, quantity: 9}
"""
    catalog = catalog_of(METERS, PLANS, quotas)

    assert shown(terms(catalog, "acme", at("2013-01-31"))["calls"].limits) == [
        ("own", "8", "2013-01-01T05", "2013-02-01T05")
    ]
    assert shown(terms(catalog, "bolt", at("2013-01-31"))["calls"].limits) == [
        ("other", "9", "2013-01-01T00", "2013-02-01T00")
    ]


def test_free_units_are_the_limit_where_there_is_no_quota() -> None:
    held = terms(catalog_of(METERS, PLANS), "acme", at("2013-01-31"))

    assert shown(held["calls"].limits) == [("calls", "100", "2013-01-10T05", "2013-02-10T05")]
    assert held["calls"].limits[0].kind is LimitKind.ALLOWANCE
    assert held["bytes"].limits == ()
    assert held["bytes"].covered is not None
    assert "seats" not in held  # a balance is no quantity of a period


@pytest.mark.parametrize(
    "change",
    ["group_by: [kind]", "rollover: {expires_after_periods: 1}"],
)
def test_an_allowance_that_the_catalog_alone_cannot_say_is_not_said(change: str) -> None:
    text = PLANS.replace("free_quantity: 100", f"free_quantity: 100, {change}")
    meters = METERS.replace("aggregation: count", "aggregation: count, group_by: {kind: kind}")

    held = terms(catalog_of(meters, text), "acme", at("2013-01-31"))

    assert held["calls"].limits == ()


@pytest.mark.parametrize(
    ("day", "until"),
    [
        ("2013-01-01", "2013-01-10T05"),  # not begun
        ("2013-01-31", "2013-02-10T05"),  # the first period ends
        ("2013-06-01", "2013-06-10T04"),  # the subscription ends with its fifth period
    ],
)
def test_terms_hold_until_a_period_or_the_subscription_begins_or_ends(day: str, until: str) -> None:
    catalog = catalog_of(METERS, PLANS)

    found = TermsBook(catalog).at(catalog.customers["acme"], at(day))

    assert f"{found.until:%Y-%m-%dT%H}" == until


def test_nothing_is_said_before_a_subscription_and_after_it() -> None:
    catalog = catalog_of(METERS, PLANS, "quotas: [{id: q, plan: pro, meter: calls, quantity: 1000}]")

    assert terms(catalog, "acme", at("2013-01-09")) == {}
    assert terms(catalog, "acme", at("2013-06-10")) == {}
    assert TermsBook(catalog).at(catalog.customers["bolt"], at("2013-01-09")).until.year == 9999


SPAN = Span(meter="calls", start=at("2013-01-01", 0), end=at("2013-02-01", 0))
WEEK = Span(meter="calls", start=at("2013-01-07", 0), end=at("2013-01-14", 0))


def quota(name: str, quantity: str, span: Span = SPAN, kind: LimitKind = LimitKind.QUOTA) -> Limit:
    return Limit(id=name, kind=kind, quantity=Decimal(quantity), span=span)


@pytest.mark.parametrize(
    ("terms", "used", "expected"),
    [
        # nothing of the kind is in a plan of the customer
        (MeterTerms(), {}, (False, Reason.NOT_IN_PLAN, None, None, None)),
        # in the plan without a limit
        (MeterTerms(covered=SPAN), {SPAN: "12"}, (True, Reason.NO_QUOTA, None, "12", None)),
        (MeterTerms(limits=(quota("q", "10"),)), {SPAN: "9.5"}, (True, Reason.WITHIN_QUOTA, "10", "9.5", "0.5")),
        (MeterTerms(limits=(quota("q", "10"),)), {SPAN: "10"}, (False, Reason.QUOTA_USED_UP, "10", "10", "0")),
        (MeterTerms(limits=(quota("q", "10"),)), {SPAN: "12"}, (False, Reason.QUOTA_USED_UP, "10", "12", "0")),
        (MeterTerms(limits=(quota("q", "0"),)), {SPAN: "0"}, (False, Reason.QUOTA_USED_UP, "0", "0", "0")),
        # what was taken back leaves more than the quota
        (MeterTerms(limits=(quota("q", "10"),)), {SPAN: "-2"}, (True, Reason.WITHIN_QUOTA, "10", "-2", "12")),
        # beyond an allowance usage is billed, not forbidden
        (
            MeterTerms(covered=SPAN, limits=(quota("c", "10", kind=LimitKind.ALLOWANCE),)),
            {SPAN: "12"},
            (True, Reason.NO_QUOTA, "10", "12", "0"),
        ),
        # of several quotas the one with the least left decides
        (
            MeterTerms(limits=(quota("month", "100"), quota("week", "20", WEEK))),
            {SPAN: "50", WEEK: "15"},
            (True, Reason.WITHIN_QUOTA, "20", "15", "5"),
        ),
    ],
)
def test_what_is_left_decides_what_is_allowed(
    terms: MeterTerms, used: dict[Span, str], expected: tuple[object, ...]
) -> None:
    numbers = {span: Decimal(text) for span, text in used.items()}

    found = entitlement("acme", "calls", "calls", terms, numbers, as_of=at("2013-01-08"), catalog_version=3)

    assert (found.allowed, found.reason, found.limit, found.used, found.left) == expected
