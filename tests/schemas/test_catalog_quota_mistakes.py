"""Quotas that cannot be meant are refused, with the line."""

from __future__ import annotations

from decimal import Decimal

import pytest

from metering.catalog_diff import catalog_changes
from metering.catalog_file import parse_catalog
from schemas.catalog_check import check_catalog
from schemas.errors import CatalogError
from schemas.plan import BillingPeriod

CATALOG = """\
meters: [{name: calls, event_type: call, aggregation: count}, \
{name: seats, event_type: seat, aggregation: time_weighted, value: n}]
customers: [{id: acme, subjects: [a]}]
plans: [{id: pro, charges: [{id: calls, model: per_unit, meter: calls, unit_amount: 1}]}]
quotas:
"""


@pytest.mark.parametrize(
    ("quotas", "problem"),
    [
        (
            "- {id: q, meter: calls, quantity: 5}",
            "c.yaml:5: quotas[0]: found neither plan nor customer, expected one of them",
        ),
        (
            "- {id: q, meter: calls, plan: pro, customer: acme, quantity: 5}",
            "c.yaml:5: quotas[0]: found plan and customer, expected one of them",
        ),
        (
            "- {id: q, meter: calls, plan: pro, quantity: -1}",
            "c.yaml:5: quotas[0].quantity: found -1, expected 0 or more",
        ),
        (
            "- {id: q, meter: calls, plan: pro, quantity: 1, period: days}",
            "c.yaml:5: quotas[0].period: found days, expected week, month, quarter, year, or none",
        ),
        (
            "- {id: q, meter: seats, plan: pro, quantity: 1}",
            (
                "c.yaml:5: quotas[0].meter: 'seats' is time_weighted, expected a meter whose usage adds up in a "
                "period, or a max or latest one"
            ),
        ),
        (
            "- {id: q, meter: calls, customer: acne, quantity: 1}",
            "c.yaml:5: quotas[0].customer: found 'acne', expected a customer (acme); did you mean 'acme'?",
        ),
        (
            "- {id: q, meter: calls, plan: prp, quantity: 1}",
            "c.yaml:5: quotas[0].plan: found 'prp', expected a plan (pro); did you mean 'pro'?",
        ),
        (
            "- {id: q, meter: calls, plan: pro, quantity: 1}\n- {id: r, meter: calls, plan: pro, quantity: 2}",
            "c.yaml:6: quotas[1]: plan 'pro' has a quota of 'calls' already (quotas[0]), expected one",
        ),
        (
            "- {id: q, meter: calls, plan: pro, quantity: 1}\n- {id: q, meter: calls, customer: acme, quantity: 2}",
            "c.yaml:6: quotas[1].id: 'q' stands twice, first at quotas[0], expected once",
        ),
    ],
)
def test_a_mistake_in_a_quota_is_named_with_its_line(quotas: str, problem: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(f"{CATALOG}{quotas}\n", where="c.yaml")

    assert caught.value.problems == [problem]


def test_a_quota_is_read_and_its_change_is_shown() -> None:
    before = parse_catalog(f"{CATALOG}- {{id: q, meter: calls, plan: pro, quantity: 10.5, period: week}}")
    after = parse_catalog(f"{CATALOG}- {{id: q, meter: calls, plan: pro, quantity: 11, period: week}}")

    check_catalog(before)
    assert (before.quotas[0].quantity, before.quotas[0].period) == (Decimal("10.5"), BillingPeriod.WEEK)
    assert [
        (one.section, one.name, one.change.value, [(field.field, field.before, field.after) for field in one.fields])
        for one in catalog_changes(before, after)
    ] == [("quotas", "q", "changed", [("quantity", "10.5", "11")])]
