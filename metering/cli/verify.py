"""`metering verify`: prove a frozen run from its events."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from billing_export.verify import Verified, verify_period
from metering.cli.billing_tables import console, run_fields
from metering.cli.connection import database_client
from metering.config import load_settings

STATUS_EVERY_EVENTS = 10_000


def verify(
    *,
    period: Annotated[str, typer.Option("--period", help="A closed period, such as 2013-01.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Count a closed period anew from its events, at the run's cut, and compare every field of every line.

    Rollups are not read. Ends with exit code 1 and names each line, event and identity that is not as it must be.

    Examples:
        metering verify --period 2013-01
    """
    status = Console(stderr=True, quiet=not sys.stderr.isatty()).status(f"Verifying {period}")

    def show(events_count: int) -> None:
        if events_count % STATUS_EVERY_EVENTS == 0:
            status.update(f"Verifying {period}: {events_count} events")

    with database_client(load_settings()) as client, status:
        done = verify_period(client, period, on_event=show)
    _say(done, json=json)
    done.raise_for_differences()


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
