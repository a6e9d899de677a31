"""`metering rebuild`: fold stored events again."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from aggregators.pipeline import CATALOG_POLL_S
from aggregators.rebuild import Rebuild, Rebuilt
from metering import catalog_store
from metering.clickhouse import connect
from metering.clock import SystemClock
from metering.config import load_settings
from schemas.catalog import AppliedCatalog
from schemas.errors import RequestError

SETTLE_S = 2 * CATALOG_POLL_S


def rebuild(
    meters: Annotated[list[str] | None, typer.Argument(help="Meters to rebuild.", metavar="[METER]...")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Rebuild every meter of the catalog.")] = False,
    check: Annotated[bool, typer.Option(help="Only compare; exit with 1 when something differs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fold the stored events again: fill a meter that was applied later from history, or prove and mend rollups.

    The result is compared with the live tables, and only what differs is written. Workers may go on meanwhile.

    Examples:
      metering rebuild miles

      metering rebuild --all --check
    """
    settings = load_settings()
    client = connect(settings)
    catalog = catalog_store.latest(client)
    if catalog is None:
        raise RequestError("no catalog was applied yet", fix="Run `metering apply catalog.yaml`")
    names = _chosen(catalog, meters or [], everything=everything)
    applied_at = catalog_store.history(client)[-1].applied_at
    # Until every worker has surely taken the newest catalog up, the offset where live folding begins may still move.
    young_s = (applied_at + timedelta(seconds=SETTLE_S) - SystemClock().now()).total_seconds()
    time.sleep(max(0.0, young_s))
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("folding"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=console, transient=True
    )
    with bar:
        task = bar.add_task("folding", total=None)
        result = Rebuild(lambda database: connect(settings, database=database), catalog, names).run(
            write=not check, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    _show(result, check=check, as_json=as_json)
    if check and not result.is_same:
        raise typer.Exit(1)


def _chosen(catalog: AppliedCatalog, names: list[str], *, everything: bool) -> list[str]:
    if everything == bool(names):
        raise RequestError("name meters, or say --all", fix="`metering rebuild miles` or `metering rebuild --all`")
    for name in names:
        if name not in catalog.meters:
            raise RequestError(f"no meter is called {name!r}", fix=f"The catalog has {', '.join(catalog.meters)}")
    return names or list(catalog.meters)


def _show(result: Rebuilt, *, check: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(result).decode())
        return
    typer.echo(f"{len(result.meters)} meters from {result.events_read:,} events")
    others = result.events_read - result.events_plain
    typer.echo(f"ClickHouse folded {result.events_plain:,} of them by itself, Python {others:,}")
    if result.unreadable:
        typer.echo(
            f"{result.unreadable:,} times an event from before a meter holds no value the meter can read; not counted"
        )
    verb = "differ" if check else "written"
    if result.is_same:
        typer.echo("every row is what its events say; nothing to write")
    for one in result.differences:
        if one.missing or one.surplus:
            typer.echo(
                f"{one.table}: {one.missing:,} rows missing or different, {one.surplus:,} that should not be; {verb}"
            )
