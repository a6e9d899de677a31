"""What a frozen run comes to, by customer and currency."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.line_store import read_lines
from billing_export.money import format_amount
from billing_export.run import Run
from schemas.line_item import LineItem, decode_line_item
from schemas.quantity import ZERO, add


class CustomerTotal(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of a customer's rounded amounts in one currency; `amount` is an exact decimal text."""

    customer: str
    customer_name: str
    currency: str
    lines_count: int
    amount: str


def totals_of(items: Iterable[LineItem]) -> list[CustomerTotal]:
    """One total for each customer and currency, by customer. Pure."""
    names: dict[tuple[str, str], str] = {}
    counts: dict[tuple[str, str], int] = {}
    amounts: dict[tuple[str, str], Decimal] = {}
    for item in items:
        key = (item.customer, item.currency)
        names[key] = item.customer_name
        counts[key] = counts.get(key, 0) + 1
        amounts[key] = add(amounts.get(key, ZERO), Decimal(item.amount))
    return [
        CustomerTotal(
            customer=key[0],
            customer_name=names[key],
            currency=key[1],
            lines_count=counts[key],
            amount=format_amount(amounts[key]),
        )
        for key in sorted(names)
    ]


def run_totals(client: Client, run: Run) -> list[CustomerTotal]:
    """The totals of a run's stored lines."""
    return totals_of(decode_line_item(line.document) for line in read_lines(client, run))
