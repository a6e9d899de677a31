"""The catalog of the documentation and the one of the example can be applied as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from metering.catalog_file import parse_catalog, read_catalog
from metering.catalog_store import plan_apply
from schemas.catalog import Catalog, Customer
from schemas.charges import CHARGE_MODELS, Tier
from schemas.line_item import LineItem
from schemas.meter import Filter, Meter
from schemas.plan import Plan
from schemas.subscription import Subscription

ROOT = Path(__file__).parents[2]
CATALOG_PAGE = (ROOT / "docs" / "catalog.md").read_text(encoding="utf-8")
BILLING_PAGE = (ROOT / "docs" / "billing.md").read_text(encoding="utf-8")


def test_the_documented_catalog_can_be_applied() -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", CATALOG_PAGE, re.DOTALL)

    assert plan_apply(None, parse_catalog(example)).version == 1


def test_the_flights_catalog_bills_sixteen_carriers() -> None:
    catalog = read_catalog(ROOT / "examples" / "flights" / "catalog.yaml")

    assert plan_apply(None, catalog).version == 1
    assert [len(one) for one in (catalog.meters, catalog.customers, catalog.subscriptions)] == [5, 16, 16]
    assert {(one.timezone, one.currency) for one in catalog.customers} == {("America/New_York", "USD")}


@pytest.mark.parametrize("kind", [Catalog, Meter, Filter, Customer, Plan, Tier, Subscription, *CHARGE_MODELS.values()])
def test_every_key_of_the_file_is_documented(kind: type[msgspec.Struct]) -> None:
    keys = [field.encode_name for field in msgspec.structs.fields(kind)]

    assert [key for key in keys if f"`{key}`" not in CATALOG_PAGE] == []


def test_every_charge_model_is_documented() -> None:
    assert [model for model in CHARGE_MODELS if f"| `{model}` |" not in CATALOG_PAGE] == []


def test_every_field_of_a_line_item_is_documented() -> None:
    assert [name for name in LineItem.__struct_fields__ if f"`{name}`" not in BILLING_PAGE] == []
