"""Tables and JSON that the billing commands print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from billing_export.run import Run
from billing_export.totals import CustomerTotal
from schemas.line_item import LineItem


def run_fields(run: Run) -> dict[str, Any]:
    """A run as it is printed in JSON."""
    return {
        "run": run.id,
        "period": run.period,
        "state": run.state,
        "at": run.at,
        "catalog_version": run.catalog_version,
        "forced": run.forced,
        "lines_count": run.lines_count,
        "lines_digest": run.lines_digest,
        "cut": run.cut.positions,
    }


def show_totals(console: Console, totals: Sequence[CustomerTotal]) -> None:
    """A line for each customer and currency."""
    table = Table("customer", "name", "lines", "amount", "currency", box=None, pad_edge=False)
    table.columns[2].justify = table.columns[3].justify = "right"
    for one in totals:
        table.add_row(one.customer, one.customer_name, str(one.lines_count), one.amount, one.currency)
    console.print(table)


def show_lines(console: Console, items: Sequence[LineItem]) -> None:
    """A line for each line item."""
    table = Table(
        "customer", "charge", "dimensions", "quantity", "unit", "amount", "currency", box=None, pad_edge=False
    )
    table.columns[3].justify = table.columns[5].justify = "right"
    for item in items:
        values = ", ".join(f"{name}={value}" for name, value in item.dimensions.items())
        table.add_row(item.customer, item.charge, values, item.quantity, item.unit, item.amount, item.currency)
    console.print(table)
