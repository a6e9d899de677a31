"""What the demo prints and writes: usage by month, invoices by customer."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec
from rich.table import Table

from billing_export.totals import CustomerTotal
from schemas.quantity import ZERO, add, format_quantity


class MonthlyUsage(msgspec.Struct, frozen=True, kw_only=True):
    """A line of usage_monthly.csv."""

    meter: str
    customer: str
    origin: str
    month: str
    value: str


def write_usage(file: Path, rows: Iterable[MonthlyUsage]) -> None:
    """Write usage_monthly.csv."""
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(MonthlyUsage.__struct_fields__)
        writer.writerows(msgspec.structs.astuple(row) for row in rows)


def usage_table(title: str, what: str, meters: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> Table:
    """A row for each customer or month, a column for each meter."""
    table = Table(title=title, title_justify="left", box=None)
    table.add_column(what)
    for meter in meters:
        table.add_column(meter, justify="right")
    for name, values in rows:
        table.add_row(name, *(f"{Decimal(value):,f}" for value in values))
    return table


def invoice_table(totals: Sequence[tuple[str, Sequence[CustomerTotal]]]) -> Table:
    """A row for each customer: lines and amount of the year."""
    table = Table(title="Invoices of 2013, twelve monthly runs", title_justify="left", box=None)
    for heading, justify in (("customer", "left"), ("name", "left"), ("line items", "right"), ("amount", "right")):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    by_customer: dict[str, list[CustomerTotal]] = {}
    for _, run in totals:
        for one in run:
            by_customer.setdefault(one.customer, []).append(one)
    for customer, ones in sorted(by_customer.items()):
        amount = _total([Decimal(one.amount) for one in ones])
        lines = sum(one.lines_count for one in ones)
        table.add_row(customer, ones[0].customer_name, str(lines), f"{amount:,.2f} {ones[0].currency}")
    amounts = [Decimal(one.amount) for _, run in totals for one in run]
    table.add_section()
    table.add_row(
        "all", "", str(sum(one.lines_count for _, run in totals for one in run)), f"{_total(amounts):,.2f} USD"
    )
    return table


def _total(values: Iterable[Decimal]) -> Decimal:
    total = ZERO
    for value in values:
        total = add(total, value)
    return Decimal(format_quantity(total))
