"""The catalog of the documentation and the one of the example can be applied as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from metering.catalog_file import parse_catalog, read_catalog
from metering.catalog_reader import CatalogReader
from metering.catalog_store import plan_apply
from metering.catalog_text import plain_of
from schemas.catalog import Catalog, Customer
from schemas.catalog_rules import own_problems
from schemas.charges import (
    CHARGE_MODELS,
    Charge,
    Commitment,
    Discount,
    MatrixPrice,
    PercentageTier,
    QuantityRounding,
    Rollover,
    Tier,
)
from schemas.health import Health, Trend
from schemas.line_item import LineItem
from schemas.meter import Filter, Meter
from schemas.period import billing_period
from schemas.plan import Plan, PriceList
from schemas.subscription import CreditGrant, Migration, Pause, PlanChange, Subscription
from schemas.subscription_life import cadence_of, phases, tenures

ROOT = Path(__file__).parents[2]
CATALOG_PAGE = (ROOT / "docs" / "catalog.md").read_text(encoding="utf-8")
PRICING_PAGE = (ROOT / "docs" / "pricing.md").read_text(encoding="utf-8")
BILLING_PAGE = (ROOT / "docs" / "billing.md").read_text(encoding="utf-8")


EXAMPLES = re.findall(r"```yaml\n(.*?)```", CATALOG_PAGE, re.DOTALL)


def documented(*examples: str) -> Catalog:
    """The catalog that some examples of the page make together."""
    sections: dict[str, Any] = {}
    for example in examples:
        plain = plain_of(example, "docs/catalog.md")
        assert isinstance(plain, dict)
        for name, entries in plain.items():
            if isinstance(entries, list):
                sections.setdefault(name, []).extend(entries)
            else:
                assert sections.setdefault(name, entries) is entries  # a section that is one mapping stands once
    return parse_catalog(json.dumps(sections))


def test_the_documented_catalog_can_be_applied_at_first_and_with_all_that_comes_to_it() -> None:
    first, whole = plan_apply(None, documented(EXAMPLES[0])), plan_apply(None, documented(*EXAMPLES))

    assert (first.version, len(EXAMPLES)) == (1, 5)
    assert [(one.id, one.version) for one in whole.catalog.plans] == [
        ("standard", 1), ("standard", 2), ("professional", 1),
    ]  # fmt: skip


def test_the_documented_life_has_the_parts_that_the_page_says() -> None:
    catalog = plan_apply(None, documented(*EXAMPLES))
    globex, acme = catalog.subscriptions["globex-main"], catalog.subscriptions["acme-standard"]
    rows = re.findall(r"^\| `(2024-\d\d)` \| (.*) \|$", CATALOG_PAGE, re.MULTILINE)

    lived = {}
    for label, _ in rows:
        period = billing_period(cadence_of(catalog, globex), label, "Europe/Berlin")
        assert period is not None
        lived[label] = [
            (f"{one.start:%d}", f"{one.end:%d}", f"{one.plan.id}.{one.plan.version}", one.is_trial, len(one.rests))
            for one in phases(catalog, globex, period)
        ]
        assert {one.currency for one in phases(catalog, globex, period)} == {"EUR"}
    # Berlin's days begin at 22:00 UTC of the day before in summer, and at 23:00 in winter.
    assert lived == {
        "2024-04": [("14", "28", "standard.2", True, 0), ("28", "30", "standard.2", False, 0)],
        "2024-05": [("30", "31", "standard.2", False, 0)],
        "2024-06": [("31", "09", "standard.2", False, 0), ("09", "30", "professional.1", False, 0)],
        "2024-08": [("31", "31", "professional.1", False, 1)],
        "2024-12": [("30", "31", "professional.1", False, 0)],
    }
    assert [(f"{one.start}", one.plan.version) for one in tenures(catalog, acme)] == [
        ("2024-01-01", 1), ("2024-07-01", 2),
    ]  # fmt: skip


def test_every_charge_of_the_pricing_page_is_one_that_can_be_applied() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", PRICING_PAGE, re.DOTALL)
    charges = [plain_of(one, "docs/pricing.md") for one in examples]
    read = CatalogReader()

    for charge in charges:
        if isinstance(charge, dict) and "model" in charge:
            read.read(charge, Charge, ("charge", str(charge.get("id"))))
    assert len(read.parts) > len(CHARGE_MODELS)
    assert [*read.problems, *(problem for path, part in read.parts for problem in own_problems(path, part))] == []


def test_the_flights_catalog_bills_sixteen_carriers() -> None:
    catalog = read_catalog(ROOT / "examples" / "flights" / "catalog.yaml")

    assert plan_apply(None, catalog).version == 1
    assert [len(one) for one in (catalog.meters, catalog.customers, catalog.subscriptions)] == [5, 16, 16]
    assert {(one.timezone, one.currency) for one in catalog.customers} == {("America/New_York", "USD")}


KINDS = [
    Catalog, Meter, Filter, Customer, Plan, PriceList, Tier, PercentageTier, Subscription, PlanChange, Pause, Migration,
    CreditGrant, Discount, Commitment, Rollover, QuantityRounding, MatrixPrice, Health, Trend,
    *CHARGE_MODELS.values(),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_of_the_file_is_documented(kind: type[msgspec.Struct]) -> None:
    keys = [field.encode_name for field in msgspec.structs.fields(kind)]

    assert [key for key in keys if f"`{key}`" not in CATALOG_PAGE] == []


def test_every_charge_model_is_documented() -> None:
    assert [model for model in CHARGE_MODELS if f"| `{model}` |" not in CATALOG_PAGE] == []


def test_every_field_of_a_line_item_is_documented() -> None:
    assert [name for name in LineItem.__struct_fields__ if f"`{name}`" not in BILLING_PAGE] == []
