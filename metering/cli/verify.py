"""`metering verify`: prove frozen runs from their events."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import msgspec
import typer
from clickhouse_connect.driver.client import Client
from rich.console import Console

from billing_export import runs
from billing_export.run import Run
from billing_export.verify import Verified, together, verify_runs
from metering.cli.billing_tables import console, run_fields
from metering.cli.connection import database_client
from metering.clickhouse import connect
from metering.config import load_settings
from schemas.errors import RequestError, RunError

STATUS_EVERY_EVENTS = 10_000


def verify(
    *,
    period: Annotated[
        list[str] | None, typer.Option("--period", help="A closed period, such as 2013-01. May be repeated.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every run that is frozen.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Count closed periods anew from their events, at each run's cut, and compare every field of every line.

    Rollups are not read. Ends with exit code 1 and names each line, event and identity that is not as it must be.
    Several runs are proved by several processes.

    Examples:
        metering verify --period 2013-01

        metering verify --all --json
    """
    if bool(period) == every:
        raise RequestError("one of --period and --all is needed", where="verify", fix="Name a period, or use --all")
    settings = load_settings()
    with database_client(settings) as client:
        wanted = _every_frozen(client) if every else [run for one in period or () for run in runs.frozen(client, one)]
        with _status(wanted) as (show_event, show_run):
            done: list[Verified] = []
            for one in verify_runs(client, wanted, connect_again=lambda: connect(settings), on_event=show_event):
                done.append(one)
                show_run(len(done))
    found = together(done)
    _say(found, json=json)
    found.raise_for_differences()


def _every_frozen(client: Client) -> list[Run]:
    found = [one for one in runs.listed(client) if one.is_frozen]
    if not found:
        raise RunError("no period was closed yet", where="runs", fix="Run `metering close --due`")
    return found


@contextmanager
def _status(wanted: Sequence[Run]) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """What to call with the number of events of a run, and of runs, that were read; said on a terminal."""
    status = Console(stderr=True, quiet=not sys.stderr.isatty()).status("Verifying")

    def show_event(events_count: int) -> None:
        if events_count % STATUS_EVERY_EVENTS == 0:
            status.update(f"Verifying: {events_count:,} events")

    def show_run(runs_count: int) -> None:
        status.update(f"Verifying: {runs_count} of {len(wanted)} runs")

    with status:
        yield show_event, show_run


def _say(done: Verified, *, json: bool) -> None:
    if json:
        document = {
            "runs": [run_fields(run) for run in done.runs],
            "lines_verified": done.lines_count,
            "events_read": done.events_count,
            "differences": done.differences,
        }
        typer.echo(msgspec.json.encode(document))
    elif not done.differences:
        names = f"Run{'s' if len(done.runs) > 1 else ''} {', '.join(run.id for run in done.runs)}"
        console().print(
            f"{names}: {done.lines_count} lines are what their events say ({done.events_count} events read)."
        )
