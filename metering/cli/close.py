"""`metering close`: bill a period and freeze it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer
from clickhouse_connect.driver.client import Client
from rich.console import Console

from billing_export import runs
from billing_export.assemble import UsageReader
from billing_export.close import Closed, close_period, preview_lines
from billing_export.log_wait import wait_for_ledger
from billing_export.totals import CustomerTotal, run_totals, totals_of
from metering.cli.billing_tables import console, run_fields, show_lines, show_totals
from metering.cli.connection import database_client, whoami
from metering.clock import SystemClock
from metering.config import load_settings
from metering.usage.answer import answer
from metering.version import CODE_VERSION
from schemas.catalog import AppliedCatalog
from schemas.line_item import LineItem
from schemas.period import month
from schemas.usage_query import UsageQuery, UsageRow

LEDGER_TIMEOUT_S = 60.0


def close(
    *,
    period: Annotated[str, typer.Option("--period", help="The month to bill, such as 2013-01.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the lines; freeze nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Close before the period and its grace time are over; it is recorded.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Bill what was folded; do not ask Kafka whether that is everything.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Bill a period: take a cut of the log, rate every subscription, and freeze the lines.

    A period is closed once. Closing it again changes nothing and says so; a close that died is taken up where it was,
    with the same cut, catalog and lines.

    Examples:
        metering close --period 2013-01 --dry-run

        metering close --period 2013-01
    """
    month(period)
    settings, clock = load_settings(), SystemClock()
    with database_client(settings) as client:
        if not no_wait and runs.find(client, period) is None:
            wait_for_ledger(client, settings, clock=clock, timeout_s=LEDGER_TIMEOUT_S)
        read = usage_reader(client)
        if dry_run:
            lines = preview_lines(client, period, read_usage=read, clock=clock, grace_s=settings.grace_s, force=force)
            _say_preview(lines, json=json)
            return
        status = Console(stderr=True, quiet=not sys.stderr.isatty()).status(f"Closing {period}")
        with status:
            done = close_period(
                client,
                period,
                read_usage=read,
                clock=clock,
                grace_s=settings.grace_s,
                closed_by=whoami(),
                code_version=CODE_VERSION,
                force=force,
                on_step=lambda step: status.update(f"Closing {period}: {step.replace('_', ' ')}"),
            )
        _say(done, run_totals(client, done.run), json=json)


def usage_reader(client: Client) -> UsageReader:
    """Reads usage for a close. An answer may have as many rows as it takes: there is a line for each."""

    def read(catalog: AppliedCatalog, query: UsageQuery) -> Sequence[UsageRow]:
        return answer(client, catalog, query, rows_max=sys.maxsize)

    return read


def _say(done: Closed, totals: Sequence[CustomerTotal], *, json: bool) -> None:
    if json:
        document = {**run_fields(done.run), "changed": done.changed, "totals": totals}
        typer.echo(msgspec.json.encode(document))
        return
    out = console()
    show_totals(out, totals)
    run = done.run
    if done.changed:
        forced = ", forced before its grace time was over" if run.forced else ""
        out.print(f"Run {run.id} is closed with {run.lines_count} lines{forced}.")
    else:
        out.print(f"Nothing changed: run {run.id} was closed at {run.at:%Y-%m-%d %H:%M:%S} UTC already.")


def _say_preview(lines: Sequence[LineItem], *, json: bool) -> None:
    if json:
        typer.echo(msgspec.json.encode({"dry_run": True, "lines": lines, "totals": totals_of(lines)}))
        return
    out = console()
    show_lines(out, lines)
    show_totals(out, totals_of(lines))
    out.print("Nothing was frozen.")
