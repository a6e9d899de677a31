"""Which alerts hold: pure decisions over what was used, spent, and how late it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_export.alerts.decide import Spend, passed, period_alerts, spend_alerts, usage_alerts
from billing_export.alerts.message import message
from billing_export.alerts.periods import running_periods
from billing_export.alerts.store import Fired
from metering.entitlements.reader import Held
from metering.entitlements.terms import TermsBook
from schemas.alert import Alert, AlertRule, Watch
from schemas.period import period_of
from tests.support.made_limits import NOW, catalog_with

QUOTAS = AlertRule(id="quotas", watch=Watch.QUOTA)
JANUARY = period_of("2013-01")


def held_with(used: dict[str, str], *rules: AlertRule, **quantities: int) -> Held:
    """What the customers have used of the meter `sum`, at the 20th of January."""
    catalog = catalog_with(1, rules, **quantities)
    book = TermsBook(catalog)
    terms = {one.id: book.at(one, NOW) for one in catalog.catalog.customers}
    spans = {span for one in terms.values() for meter in one.meters.values() for span in meter.spans}
    numbers = {customer: Decimal(text) for customer, text in used.items()}
    return Held(
        as_of=NOW,
        read_at_s=0.0,
        catalog=catalog,
        terms=terms,
        used={span: numbers if span.meter == "sum" else {} for span in spans},
        refused=frozenset(),
    )


@pytest.mark.parametrize(
    ("used", "limit", "expected"),
    [
        ("49.999999999999", "100", []),
        ("50", "100", [50]),
        ("80", "100", [50, 80]),
        ("1000", "100", [50, 80, 100]),
        ("1", "3", []),
        ("1.5", "3", [50]),
        ("0.000000000001", "0", [50, 80, 100]),
    ],
)
def test_a_threshold_is_passed_when_it_is_reached_exactly(used: str, limit: str, expected: list[int]) -> None:
    assert passed((100, 50, 80), Decimal(used), Decimal(limit)) == expected


def test_a_quota_is_told_of_with_what_was_used_and_until_when_it_holds() -> None:
    found = list(usage_alerts(held_with({"acme": "85", "bolt": "10"}, QUOTAS, sum=100)))

    assert [(one.customer, one.meter, one.limit_id, one.threshold) for one in found] == [
        ("acme", "sum", "sum-quota", 50),
        ("acme", "sum", "sum-quota", 80),
    ]
    assert (found[0].limit, found[0].value, found[0].unit) == (Decimal(100), Decimal(85), "things")
    assert (found[0].period_start, found[0].period_end) == (JANUARY.start, JANUARY.end)


def test_an_alert_for_one_meter_and_one_customer_is_for_no_other() -> None:
    rule = AlertRule(id="r", watch=Watch.QUOTA, meter="count", customers=("bolt",))

    assert list(usage_alerts(held_with({"acme": "85", "bolt": "85"}, rule, sum=100))) == []
    assert list(usage_alerts(held_with({"acme": "85"}, msgspec.structs.replace(rule, meter="sum"), sum=100))) == []
    assert len(list(usage_alerts(held_with({"bolt": "85"}, msgspec.structs.replace(rule, meter="sum"), sum=100)))) == 2


def test_quotas_are_no_allowances() -> None:
    assert list(usage_alerts(held_with({"acme": "85"}, AlertRule(id="r", watch=Watch.ALLOWANCE), sum=100))) == []


def test_a_budget_is_told_of_in_its_own_currency() -> None:
    rule = AlertRule(id="b", watch=Watch.BUDGET, amount=Decimal(200), currency="USD", thresholds=(50, 100))
    spent = [
        Spend(customer="acme", period=JANUARY, currency="USD", amount=Decimal("100.00")),
        Spend(customer="acme", period=JANUARY, currency="EUR", amount=Decimal("900.00")),
        Spend(customer="bolt", period=JANUARY, currency="USD", amount=Decimal("99.99")),
    ]

    found = list(spend_alerts([rule], spent, as_of=NOW))

    assert [(one.customer, one.limit_id, one.threshold, one.unit) for one in found] == [("acme", "2013-01", 50, "USD")]


@pytest.mark.parametrize(
    ("hours_before_the_end", "expected"), [(25, []), (24, ["2013-01"]), (1, ["2013-01"]), (0, []), (-1, [])]
)
def test_the_end_of_a_period_is_told_of_before_it_and_not_after(hours_before_the_end: int, expected: list[str]) -> None:
    rule = AlertRule(id="end", watch=Watch.PERIOD_END, hours_before=24, customers=("acme",))
    now = JANUARY.end - timedelta(hours=hours_before_the_end)

    found = period_alerts([rule], {"acme": [JANUARY], "bolt": [JANUARY]}, now=now)

    assert [one.limit_id for one in found] == expected


def test_running_periods_are_right_until_the_next_quarter_of_an_hour() -> None:
    periods, until = running_periods(catalog_with(), datetime(2013, 1, 20, 10, 7, tzinfo=UTC))

    assert {customer: [one.label for one in held] for customer, held in periods.items()} == {
        "acme": ["2013-01"],
        "bolt": ["2013-01"],
    }
    assert until == datetime(2013, 1, 20, 10, 15, tzinfo=UTC)


@given(
    amounts=st.lists(st.decimals(min_value=-50, max_value=300, places=3), min_size=1, max_size=8),
    restarts=st.sets(st.integers(0, 7)),
)
def test_each_threshold_is_told_once_however_usage_moves_and_whoever_looks(
    amounts: list[Decimal], restarts: set[int]
) -> None:
    """A successor begins with what is on record, as the ids of what was told."""
    record: list[Alert] = []
    known: set[str] = set()
    for place, amount in enumerate(amounts):
        if place in restarts:
            known = {one.id for one in record}
        for one in usage_alerts(held_with({"acme": str(amount)}, QUOTAS, sum=200)):
            if one.id not in known:
                known.add(one.id)
                record.append(one)

    greatest = max(amounts)
    expected = [percent for percent in (50, 80, 100) if greatest > 0 and greatest * 100 >= 200 * percent]
    assert sorted(one.threshold for one in record) == expected


def alert(**changes: object) -> Alert:
    [found] = usage_alerts(held_with({"acme": "55"}, QUOTAS, sum=100))
    return msgspec.structs.replace(found, **changes)


def test_the_id_names_what_is_told_of_and_not_when_or_how_much() -> None:
    first = alert()
    same = alert(value=Decimal(60), limit=Decimal(110), as_of=NOW + timedelta(hours=1), unit="other")
    others = [
        alert(rule="other"),
        alert(watch=Watch.ALLOWANCE),
        alert(customer="bolt"),
        alert(meter="count"),
        alert(limit_id="other"),
        alert(threshold=80),
        alert(period_start=NOW),
        alert(period_end=NOW),
        alert(customer="acme4:sum", meter=""),
    ]

    assert first.id == same.id
    assert len({first.id, *(one.id for one in others)}) == 1 + len(others)


def test_the_message_is_a_cloud_event_with_exact_numbers() -> None:
    fired = Fired(alert=alert(value=Decimal("55.500000000000")), fired_at=NOW)

    assert msgspec.json.decode(message(fired)) == {
        "specversion": "1.0",
        "id": fired.alert.id,
        "source": "/metering/alerts",
        "type": "metering.alert.quota",
        "subject": "acme",
        "time": "2013-01-20T00:00:00.000Z",
        "datacontenttype": "application/json",
        "data": {
            "rule": "quotas",
            "customer": "acme",
            "meter": "sum",
            "limit_id": "sum-quota",
            "threshold_percent": 50,
            "limit": "100",
            "value": "55.5",
            "unit": "things",
            "period_start": "2013-01-01T00:00:00.000Z",
            "period_end": "2013-02-01T00:00:00.000Z",
            "as_of": "2013-01-20T00:00:00.000Z",
        },
    }
