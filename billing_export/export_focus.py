"""Line items as FOCUS 1.2 rows (FinOps Open Cost and Usage Specification, dataset Cost and Usage)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Any, Final

import msgspec
import orjson

from billing_export.export_focus_columns import CHARGE_CATEGORIES, FOCUS_COLUMNS, SERVICE_CATEGORIES
from billing_export.export_lines import Record
from schemas.errors import RequestError
from schemas.quantity import format_quantity

CUSTOM_COLUMNS: Final = (
    "x_LineItemId", "x_BillId", "x_RunId", "x_Revision", "x_CorrectsLineItemId", "x_Kind", "x_Reference", "x_TaxCode",
    "x_Dimensions",
)  # fmt: skip
"""Columns of ours, after all of FOCUS's own, as the specification asks."""

COLUMNS: Final = (*FOCUS_COLUMNS, *CUSTOM_COLUMNS)
WHOLE_CHARGE: Final = "Charges"
"""The pricing unit of a row whose price is no plain price of one unit: the charge as a whole, once."""
_WIDE: Final = Context(prec=200)
NO_UNIT: Final = "Units"
NO_SERVICE: Final = "Billing"
"""The service of a line that belongs to a whole bill and not to a plan, such as a carried credit."""


class FocusOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What FOCUS wants to know and no line item says: who sells, and what kind of service it is."""

    provider: str
    service_category: str = "Other"


def check_options(options: FocusOptions) -> None:
    """Raises RequestError for options that no valid file can be made with."""
    if not options.provider.strip():
        raise RequestError(
            "FOCUS names who sells in every row, and nobody is named",
            where="--focus-provider",
            fix="Give your company's name, or set METERING_FOCUS_PROVIDER",
        )
    if options.service_category not in SERVICE_CATEGORIES:
        raise RequestError(
            f"{options.service_category!r} is no service category of FOCUS 1.2",
            where="--focus-service-category",
            fix=f"Use one of: {', '.join(SERVICE_CATEGORIES)}",
        )


def focus_row(item: Record, options: FocusOptions) -> dict[str, str | None]:
    """One row: a text for every column of COLUMNS, or None for null. Decimals are plain digits, times ISO 8601 UTC."""
    category, frequency = CHARGE_CATEGORIES[item["kind"]]
    correction = item["revision"] > 0 or item["adjustment"] is not None
    row: dict[str, str | None] = dict.fromkeys(COLUMNS)
    row |= {
        "BilledCost": item["amount"],
        "EffectiveCost": item["amount"],
        "BillingAccountId": item["customer"],
        "BillingAccountName": item["customer_name"],
        "BillingAccountType": "Customer",
        "BillingCurrency": item["currency"],
        "BillingPeriodStart": item["period_start"],
        "BillingPeriodEnd": item["period_end"],
        "ChargeCategory": category,
        "ChargeClass": "Correction" if correction else None,
        "ChargeDescription": item["description"],
        "ChargeFrequency": frequency,
        "ChargePeriodStart": item["service_start"],
        "ChargePeriodEnd": item["service_end"],
        "InvoiceIssuerName": options.provider,
        "ProviderName": options.provider,
        "PublisherName": options.provider,
        "ServiceName": item["plan"] or NO_SERVICE,
        "ServiceCategory": options.service_category,
        "ServiceSubcategory": f"Other ({options.service_category})",
        "PricingCurrency": item["currency"],
        "PricingCurrencyEffectiveCost": item["amount"],
        "x_LineItemId": item["id"],
        "x_BillId": f"{item['run']}/{item['customer']}/{item['currency']}",
        "x_RunId": item["run"],
        "x_Revision": str(item["revision"]),
        "x_CorrectsLineItemId": item["corrects"],
        "x_Kind": item["kind"],
        "x_Reference": item["reference"] or None,
        "x_TaxCode": item["tax_code"] or None,
        "x_Dimensions": orjson.dumps(item["dimensions"]).decode() if item["dimensions"] else None,
    }
    if item["subscription"]:
        row |= {
            "SubAccountId": item["subscription"],
            "SubAccountName": item["subscription"],
            "SubAccountType": "Subscription",
        }
    if category == "Usage":
        row |= {"ConsumedQuantity": item["quantity"], "ConsumedUnit": item["unit"] or NO_UNIT}
        return row | _price(item)
    return row | {"ListCost": item["amount_unrounded"], "ContractedCost": item["amount_unrounded"]}


def _price(item: Mapping[str, Any]) -> dict[str, str | None]:
    """Price and quantity whose product is the cost, exactly.

    A plain price of one unit stands as it is. Where tiers, minimums or discounts made the amount, no price of one unit
    gives it, so the charge is priced as a whole, once: then the quantity is 1, or -1 for an amount below zero.
    """
    amount = Decimal(item["amount_unrounded"])
    quantity, unit = Decimal(item["quantity"]), item["unit"] or NO_UNIT
    price = Decimal(item["unit_amount"]) if item["unit_amount"] is not None else None
    if price is None or price < 0 or _WIDE.multiply(price, quantity) != amount:
        quantity, unit, price = Decimal(-1 if amount < 0 else 1), WHOLE_CHARGE, abs(amount)
    sku = f"{item['plan'] or NO_SERVICE}/{item['charge']}"
    text = format_quantity(price)
    return {
        "ListCost": item["amount_unrounded"],
        "ContractedCost": item["amount_unrounded"],
        "ListUnitPrice": text,
        "ContractedUnitPrice": text,
        "PricingCurrencyListUnitPrice": text,
        "PricingCurrencyContractedUnitPrice": text,
        "PricingQuantity": format_quantity(quantity),
        "PricingUnit": unit,
        "PricingCategory": "Standard",
        "SkuId": sku,
        "SkuMeter": item["meter"] or item["charge"],
        "SkuPriceId": f"{sku}/{item['plan_version']}",
        "SkuPriceDetails": orjson.dumps({"x_Model": item["model"]}).decode() if item["model"] else None,
    }
