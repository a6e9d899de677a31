"""`metering close`: bill a period and freeze it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer
from clickhouse_connect.driver.client import Client
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from billing_export import prepare, runs
from billing_export.close import Closed, Closer
from billing_export.log_wait import wait_for_ledger
from billing_export.run import Run, RunKind
from billing_export.totals import run_totals, totals_of
from billing_export.usage_reader import RollupReader
from metering.cli.billing_tables import console, run_fields, show_lines, show_totals
from metering.cli.connection import database_client, whoami
from metering.clickhouse import connect
from metering.clock import SystemClock
from metering.config import Settings, load_settings
from metering.version import CODE_VERSION
from schemas.errors import RequestError, RunError
from schemas.line_item import LineItem
from schemas.period import parse_label

LEDGER_TIMEOUT_S = 60.0
NOTHING_TO_CORRECT = (
    "Nothing changed: there is nothing to correct now. Who will be billed again gets corrections with the next bill, "
    "or now where --customer names them."
)


def close(
    *,
    period: Annotated[
        str, typer.Option("--period", help="The period to bill: 2013-01, 2013-Q1, 2013, 2013-W05, first..after.")
    ] = "",
    due: Annotated[bool, typer.Option("--due", help="Bill every period that is over and was not billed.")] = False,
    customer: Annotated[
        list[str] | None, typer.Option("--customer", help="Bill only this customer; may be repeated.")
    ] = None,
    adjust: Annotated[
        bool, typer.Option("--adjust", help="Bill nothing new: correct what was billed, where no later bill would.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the lines; freeze nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Close before the period and its grace time are over; it is recorded.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Bill what was folded; do not ask Kafka whether that is everything.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Bill a period: take a cut of the log, rate every subscription, correct earlier bills, and freeze the lines.

    What was billed is not billed again: closing a period once more bills who is left, or changes nothing and says so.
    A close that died is finished first, with the same cut, catalog and lines.

    Examples:
        metering close --period 2013-01 --dry-run

        metering close --period 2013-01

        metering close --due
    """
    if bool(period) == due:
        raise RequestError("one of --period and --due is needed", where="close", fix="Name a period, or use --due")
    if due and (adjust or force):
        raise RequestError("--due takes neither --adjust nor --force", where="close", fix="Name a period")
    if period:
        parse_label(period)
    settings, customers = load_settings(), tuple(customer or ())
    kind = RunKind.ADJUSTMENTS if adjust else RunKind.BILL
    with database_client(settings) as client:
        _wait(client, settings, period, no_wait=no_wait)
        warnings: list[RunError] = []
        with _progress(period or "what is due") as show:
            closer = Closer(
                client=client,
                read_usage=usage_reader(client),
                clock=SystemClock(),
                grace_s=settings.grace_s,
                closed_by=whoami(),
                code_version=CODE_VERSION,
                on_progress=show,
                on_obstacle=warnings.append,
                connect_again=lambda: connect(settings),
            )
            if dry_run:
                labels = [period] if period else _due(closer, customers)
                lines = [
                    line
                    for label in labels
                    for line in closer.preview(label, customers=customers, kind=kind, force=force)
                ]
            elif period:
                done = [closer.close(period, customers=customers, kind=kind, force=force)]
            else:
                done = closer.close_due(customers=customers)
        if dry_run:
            _say_preview(lines, warnings, json=json)
        else:
            _say(client, done, is_list=due, adjust=adjust, json=json)


def usage_reader(client: Client) -> RollupReader:
    """Reads usage for a close."""
    return RollupReader(client)


def _due(closer: Closer, customers: Sequence[str]) -> list[str]:
    """The period that is to be closed first; the lines of those after it depend on its lines."""
    labels = prepare.due(
        closer.client, RunKind.BILL, now=closer.clock.now(), grace_s=closer.grace_s, customers=tuple(customers)
    )
    return labels[:1]


def _wait(client: Client, settings: Settings, period: str, *, no_wait: bool) -> None:
    """Wait until everything that is in the log counts; not for a period in which a cut was taken already."""
    if not no_wait and (not period or runs.find(client, period) is None):
        wait_for_ledger(client, settings, clock=SystemClock(), timeout_s=LEDGER_TIMEOUT_S)


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """A bar of customers done, on a terminal; `(done, total)` moves it."""
    screen = Console(stderr=True)
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(f"Closing {what}", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show


def _say(client: Client, done: Sequence[Closed], *, is_list: bool, adjust: bool, json: bool) -> None:
    if json:
        documents = [
            {**run_fields(one.run), "changed": one.changed, "totals": run_totals(client, one.run)} for one in done
        ]
        typer.echo(msgspec.json.encode({"runs": documents} if is_list else documents[0]))
        return
    out = console()
    if adjust and not any(one.changed for one in done):
        out.print(NOTHING_TO_CORRECT)
        return
    for one in done:
        show_totals(out, run_totals(client, one.run))
        out.print(_sentence(one.run, runs.closed_at(client, one.run), changed=one.changed))
    if not done:
        out.print("Nothing is due.")


def _sentence(run: Run, closed_at: datetime, *, changed: bool) -> str:
    if not changed:
        return f"Nothing changed: run {run.id} was closed at {closed_at:%Y-%m-%d %H:%M:%S} UTC already."
    forced = ", forced before its grace time was over" if run.forced else ""
    return f"Run {run.id} is closed with {run.lines_count} lines{forced}."


def _say_preview(lines: Sequence[LineItem], warnings: Sequence[RunError], *, json: bool) -> None:
    if json:
        texts = [str(one) for one in warnings]
        typer.echo(
            msgspec.json.encode({"dry_run": True, "lines": lines, "totals": totals_of(lines), "warnings": texts})
        )
        return
    out = console()
    show_lines(out, lines)
    show_totals(out, totals_of(lines))
    for one in warnings:
        out.print(Text(f"A close would refuse: {one}", style="bold red"))
    out.print("Nothing was frozen.")
