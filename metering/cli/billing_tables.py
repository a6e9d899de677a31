"""Tables and JSON that the billing commands print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from billing_export.run import Run
from billing_export.totals import CustomerTotal
from schemas.line_item import LineItem, LineKind

PIPE_WIDTH: Final = 400


def console() -> Console:
    """Standard output. Where that is no terminal, lines are as wide as they need, so that no digit is cut."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def run_fields(run: Run) -> dict[str, Any]:
    """A run as it is printed in JSON."""
    return {
        "run": run.id,
        "sequence": run.sequence,
        "period": run.period,
        "kind": run.kind,
        "customers": run.customers,
        "state": run.state,
        "at": run.at,
        "catalog_version": run.catalog_version,
        "forced": run.forced,
        "lines_count": run.lines_count,
        "lines_digest": run.lines_digest,
        "cut": run.cut.positions,
    }


def show_totals(out: Console, totals: Sequence[CustomerTotal]) -> None:
    """A line for each customer and currency."""
    table = _table(["customer", "name"], ["lines", "amount"], ["currency"])
    for one in totals:
        table.add_row(one.customer, escape(one.customer_name), str(one.lines_count), one.amount, one.currency)
    out.print(table)


def show_lines(out: Console, items: Sequence[LineItem]) -> None:
    """A line for each line item."""
    table = _table(["customer", "period", "line", "dimensions"], ["quantity"], ["unit"], ["amount"], ["currency"])
    for item in items:
        values = ", ".join(f"{name}={value}" for name, value in item.dimensions.items())
        table.add_row(
            item.customer,
            item.period,
            escape(_what(item)),
            escape(values),
            item.quantity,
            escape(item.unit),
            item.amount,
            item.currency,
        )
    out.print(table)


def _what(item: LineItem) -> str:
    """What a line is about: `calls`, `discount spring of calls`, `calls, corrected: late events`."""
    words = item.charge
    if item.kind not in (LineKind.USAGE, LineKind.FLAT):
        of = f" of {item.charge}" if item.charge else ""
        words = f"{item.kind.value.replace('_', ' ')} {item.reference}{of}"
    if item.adjustment is not None:
        words += f", corrected: {item.adjustment.reason.replace('_', ' ')}"
    return words


def _table(*groups: list[str]) -> Table:
    """Groups of columns by turns of text, which may wrap, and of numbers, which may not."""
    table = Table(box=None, pad_edge=False)
    for place, names in enumerate(groups):
        for name in names:
            if place % 2:
                table.add_column(name, justify="right", no_wrap=True)
            else:
                table.add_column(name, overflow="fold")
    return table
