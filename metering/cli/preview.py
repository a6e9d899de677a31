"""`metering preview`: the running bill of a customer, and what it will come to."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console

from billing_export.preview import Preview, PreviewLine
from billing_export.preview import preview as preview_of
from metering.cli.billing_tables import console
from metering.cli.close import usage_reader
from metering.cli.connection import database_client
from metering.cli.explain_tables import pairs, say, show_table
from metering.clock import SystemClock
from metering.config import load_settings


def preview(
    customer: Annotated[str, typer.Argument(help="Id of the customer.", show_default=False)],
    *,
    period: Annotated[
        str, typer.Option("--period", help="A period that was not billed. Default: those that run now.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
) -> None:
    """Show a customer's running bill: so far, and projected to the end of the period. Nothing is written.

    Projected, counts and sums go on as they did so far; maxima, latest values, members and balances stay what they are.
    Flat charges are those of the period; tiers, discounts, minimum and credits are what that gives. What was folded
    counts.

    Examples:
        metering preview acme

        metering preview acme --period 2013-Q1 --json
    """
    with database_client(load_settings()) as client:
        found = preview_of(client, customer, usage_reader(client), now=SystemClock().now(), label=period)
    if json:
        typer.echo(msgspec.json.encode({"customer": customer, "previews": found}))
        return
    out = console()
    for one in found:
        _show(out, one)


def _show(out: Console, found: Preview) -> None:
    say(
        out,
        f"{found.customer} {found.customer_name}".strip()
        + f", {found.period}: {'all' if found.elapsed == '1' else found.elapsed} of it is over at "
        f"{found.now:%Y-%m-%d %H:%M:%S} UTC",
        style="bold",
    )
    rows = [
        (
            _what(one),
            one.period,
            pairs(one.dimensions) if one.charge else "",
            one.quantity_so_far or "",
            one.quantity_projected or "",
            one.unit,
            one.amount_so_far or "",
            one.amount_projected or "",
            one.currency,
        )
        for one in found.lines
    ]
    rows += [("total", "", "", "", "", "", one.so_far, one.projected, one.currency) for one in found.totals]
    names = ("line", "period", "dimensions", "so far", "projected", "unit", "amount so far", "amount projected", "")
    show_table(out, names, rows, right=(3, 4, 6, 7))
    for warning in found.warnings:
        say(out, f"A close would refuse: {warning}", style="bold red")


def _what(one: PreviewLine) -> str:
    """What a line is about: `calls`, `discount spring of calls`, `calls, corrected`."""
    words = one.charge
    if one.kind.value not in ("usage", "flat"):
        reference = one.reference if one.kind.value in ("discount", "credit", "true_up") else ""
        words = " ".join(part for part in (one.kind.value.replace("_", " "), reference) if part)
        words += f" of {one.charge}" if one.charge else ""
    return f"{words}, corrected" if one.is_correction else words
