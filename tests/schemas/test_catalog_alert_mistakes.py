"""Alerts that cannot be meant are refused, with the line."""

from __future__ import annotations

from decimal import Decimal

import pytest

from metering.catalog_diff import catalog_changes
from metering.catalog_file import parse_catalog
from schemas.alert import Watch
from schemas.errors import CatalogError

CATALOG = """\
meters: [{name: calls, event_type: call, aggregation: count}, \
{name: seats, event_type: seat, aggregation: time_weighted, value: n}]
customers: [{id: acme, subjects: [a]}]
alerts:
"""


@pytest.mark.parametrize(
    ("alert", "problem"),
    [
        (
            "{id: a, watch: x}",
            "alerts[0].watch: found 'x', expected one of quota, allowance, budget, period_end, drop, spike",
        ),
        ("{id: a, watch: budget, currency: USD}", "alerts[0].amount: missing, expected the amount of the budget"),
        ("{id: a, watch: budget, amount: 5}", "alerts[0].currency: missing, expected the currency of the budget"),
        (
            "{id: a, watch: budget, amount: 0, currency: USD}",
            "alerts[0].amount: found 0, expected more than 0",
        ),
        (
            "{id: a, watch: quota, amount: 5}",
            "alerts[0].amount: found 5, expected none: it belongs to a budget, and this is quota",
        ),
        (
            "{id: a, watch: period_end, meter: calls}",
            "alerts[0].meter: found 'calls', expected none: a period_end is not of one meter",
        ),
        (
            "{id: a, watch: quota, meter: cals}",
            "alerts[0].meter: found 'cals', expected a meter (calls, seats); did you mean 'calls'?",
        ),
        (
            "{id: a, watch: quota, customers: [acne]}",
            "alerts[0].customers[0]: found 'acne', expected a customer (acme); did you mean 'acme'?",
        ),
        (
            "{id: a, watch: quota, thresholds: []}",
            "alerts[0].thresholds: empty, expected at least one percentage such as 80",
        ),
        (
            "{id: a, watch: quota, thresholds: [80, 80]}",
            "alerts[0].thresholds[1]: 80 stands twice, expected once",
        ),
        (
            "{id: a, watch: quota, thresholds: [0]}",
            "alerts[0].thresholds[0]: found '0', expected a whole number, 1 to 10000",
        ),
        (
            "{id: a, watch: period_end, hours_before: 0}",
            "alerts[0].hours_before: found '0', expected a whole number, 1 to 744",
        ),
        (
            "{id: a, watch: drop, thresholds: [50, 100]}",
            "alerts[0].thresholds[1]: found 100, expected less than 100: a drop is to so many percent of the usual",
        ),
        (
            "{id: a, watch: spike, thresholds: [100, 200]}",
            "alerts[0].thresholds[0]: found 100, expected more than 100: a spike is to so many percent of the usual",
        ),
        (
            "{id: a, watch: spike, thresholds: []}",
            "alerts[0].thresholds: empty, expected at least one percentage such as 80",
        ),
        (
            "{id: a, watch: drop, meter: seats}",
            "alerts[0].meter: 'seats' is time_weighted, expected a meter whose usage is that of a day",
        ),
        ("{id: a, watch: drop, quantity_min: -1}", "alerts[0].quantity_min: found -1, expected 0 or more"),
        (
            "{id: a, watch: quota, quantity_min: 5}",
            "alerts[0].quantity_min: found 5, expected none: it belongs to a drop or a spike",
        ),
        (
            "{id: a, watch: drop, amount: 5}",
            "alerts[0].amount: found 5, expected none: it belongs to a budget, and this is drop",
        ),
        ("{id: a, watch: drop, weeks: 13}", "alerts[0].weeks: found '13', expected a whole number, 1 to 12"),
        (
            "{id: a, watch: drop, hours_after: 49}",
            "alerts[0].hours_after: found '49', expected a whole number, 0 to 48",
        ),
    ],
)
def test_a_mistake_in_an_alert_is_named_with_its_line(alert: str, problem: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(f"{CATALOG}- {alert}\n", where="c.yaml")

    assert caught.value.problems == [f"c.yaml:4: {problem}"]


def test_an_alert_is_read_with_its_defaults_and_its_change_is_shown() -> None:
    before = parse_catalog(f"{CATALOG}- {{id: a, watch: quota}}")
    after = parse_catalog(f"{CATALOG}- {{id: a, watch: budget, amount: 10.50, currency: USD, thresholds: [90]}}")

    assert (before.alerts[0].watch, before.alerts[0].percentages) == (Watch.QUOTA, (50, 80, 100))
    assert after.alerts[0].amount == Decimal("10.50")
    assert [(one.section, one.name, one.change.value) for one in catalog_changes(before, after)] == [
        ("alerts", "a", "changed")
    ]


def test_drops_and_spikes_have_thresholds_of_their_own() -> None:
    found = parse_catalog(
        f"{CATALOG}- {{id: a, watch: drop, quantity_min: 10.5}}\n- {{id: b, watch: spike, meter: calls, weeks: 8}}"
    )

    assert [(one.percentages, one.weeks, one.hours_after, one.quantity_min) for one in found.alerts] == [
        ((50,), 4, 6, Decimal("10.5")),
        ((200,), 8, 6, Decimal(0)),
    ]
