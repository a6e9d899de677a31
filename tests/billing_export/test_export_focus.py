"""FOCUS 1.2: what `focus-validator` says, and what a row is made of."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from billing_export.export import ExportFormat, Totals, write_files
from billing_export.export_focus import COLUMNS, FocusOptions, check_options, focus_row
from billing_export.export_focus_columns import CHARGE_CATEGORIES, DECIMAL, FOCUS_COLUMNS, SERVICE_CATEGORIES, TIME
from schemas.errors import RequestError
from schemas.line_item import LineItem, LineKind
from tests.support.checkers import focus_failures
from tests.support.made_lines import CARRIED, CORRECTION, CREDIT, EVERY_KIND, FLAT, TIERED, chunks, line

OPTIONS = FocusOptions(provider="Example Cloud", service_category="Developer Tools")

CONTRADICTION = {"InvoiceId-C-005-C"}
"""The validator holds each file against both halves of an alternative: InvoiceId must be null (C-004) and must not be
null (C-005). One of them fails for every file with a row; the rule above both, C-003, holds, and so does the dataset's.
"""

OF_PROVIDERS_LIKE_US = (
    "ACCOUNT_NAMING_SUPPORTED", "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED", "MULTIPLE_PRICING_CATEGORIES_SUPPORTED",
    "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED", "NEGOTIATED_PRICING_SUPPORTED", "PUBLIC_PRICE_LIST_SUPPORTED",
    "SUB_ACCOUNT_SUPPORTED", "UNIT_PRICING_SUPPORTED", "USAGE_MEASUREMENT_SUPPORTED",
)  # fmt: skip
"""Optional parts of FOCUS that the lines have: without them the validator would not check the columns for those."""


def row(item: LineItem) -> dict[str, Any]:
    ((_, (record,)),) = chunks((item,))
    return focus_row(record, OPTIONS)


@pytest.mark.parametrize("export_format", [ExportFormat.FOCUS, ExportFormat.FOCUS_PARQUET])
def test_focus_validator_finds_nothing_wrong(tmp_path: Path, export_format: ExportFormat) -> None:
    suffix = "csv" if export_format is ExportFormat.FOCUS else "parquet"
    file = tmp_path / f"focus.{suffix}"
    write_files(chunks(), {export_format: file}, totals=Totals(), focus=OPTIONS)

    failures, checked = focus_failures(file, tmp_path, *OF_PROVIDERS_LIKE_US)

    assert set(failures) == CONTRADICTION
    assert checked > 200


def test_focus_validator_does_find_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "focus.csv"
    write_files(chunks(), {ExportFormat.FOCUS: file}, totals=Totals(), focus=OPTIONS)
    file.write_text(file.read_text().replace(",USD,", ",XXZ,"))

    failures, _ = focus_failures(file, tmp_path)

    assert "BillingCurrency-C-006-M" in failures


ALLOWED: dict[str, set[str | None]] = {
    "ChargeCategory": {"Usage", "Purchase", "Tax", "Credit", "Adjustment"},
    "ChargeClass": {None, "Correction"},
    "ChargeFrequency": {"One-Time", "Recurring", "Usage-Based"},
    "PricingCategory": {None, "Standard", "Committed", "Dynamic", "Other"},
    "ServiceCategory": {*SERVICE_CATEGORIES},
}
NEVER_NULL = (
    "BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory",
    "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName",
    "ListCost", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName",
)  # fmt: skip


@pytest.mark.parametrize("item", EVERY_KIND, ids=lambda one: f"{one.kind.value}-{one.charge}-{one.currency}")
def test_every_row_has_what_the_specification_allows_and_demands(item: LineItem) -> None:
    """Row by row, where the validator is content when some row is right."""
    found = row(item)

    assert all(found[name] in values for name, values in ALLOWED.items())
    assert [name for name in NEVER_NULL if not found[name]] == []
    assert [name for name in COLUMNS if found[name] is not None and not str(found[name]).strip()] == []
    for name, kind in FOCUS_COLUMNS.items():
        if found[name] is not None and kind == DECIMAL:
            assert re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", found[name]), name
        if kind == TIME:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found[name]), name
    priced = found["ChargeCategory"] == "Usage"
    assert all((found[name] is not None) == priced for name in ("SkuId", "SkuPriceId", "PricingUnit", "ConsumedUnit"))


def test_every_column_of_the_specification_is_there_and_ours_come_after() -> None:
    assert len(FOCUS_COLUMNS) == 57
    assert list(FOCUS_COLUMNS) == sorted(FOCUS_COLUMNS)
    assert COLUMNS[:57] == tuple(FOCUS_COLUMNS)
    assert all(name.startswith("x_") for name in COLUMNS[57:])
    assert tuple(row(FLAT)) == COLUMNS


def test_every_kind_of_line_has_a_category() -> None:
    assert set(CHARGE_CATEGORIES) == {kind.value for kind in LineKind}
    assert [row(item)["ChargeCategory"] for item in (FLAT, TIERED, CREDIT, CARRIED)] == [
        "Usage", "Usage", "Credit", "Adjustment",
    ]  # fmt: skip


@pytest.mark.parametrize("item", [one for one in EVERY_KIND if row(one)["ListUnitPrice"] is not None])
def test_price_times_quantity_is_the_cost_exactly(item: LineItem) -> None:
    found = row(item)

    assert Decimal(found["ListUnitPrice"]) * Decimal(found["PricingQuantity"]) == Decimal(item.amount_unrounded)
    assert Decimal(found["ListUnitPrice"]) >= 0
    assert found["BilledCost"] == item.amount


def test_a_line_with_tiers_is_priced_as_a_whole_and_keeps_what_was_consumed() -> None:
    found = row(TIERED)

    assert (found["PricingQuantity"], found["PricingUnit"], found["ListUnitPrice"]) == ("1", "Charges", "3.0075")
    assert (found["ConsumedQuantity"], found["ConsumedUnit"]) == ("1000.5", "GB")


def test_a_negative_amount_without_a_unit_price_is_a_negative_quantity() -> None:
    found = row(line(unit_amount=None, amount_unrounded="-2.5", amount="-2.50"))

    assert (found["PricingQuantity"], found["ListUnitPrice"], found["ListCost"]) == ("-1", "2.5", "-2.5")


def test_an_adjustment_is_a_correction_that_names_its_line() -> None:
    found = row(CORRECTION)

    assert (found["ChargeClass"], found["x_CorrectsLineItemId"]) == ("Correction", line().id)
    assert row(line())["ChargeClass"] is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (FocusOptions(provider=" "), "METERING_FOCUS_PROVIDER"),
        (FocusOptions(provider="x", service_category="Software"), "is no service category of FOCUS 1.2"),
    ],
)
def test_options_that_no_valid_file_can_be_made_with_are_refused(options: FocusOptions, named: str) -> None:
    with pytest.raises(RequestError, match=named):
        check_options(options)


def test_every_service_category_can_be_chosen() -> None:
    for category in SERVICE_CATEGORIES:
        check_options(FocusOptions(provider="x", service_category=category))
