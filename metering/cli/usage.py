"""`metering usage`: ask how much of a meter was used."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metering import catalog_store
from metering.cli.connection import database_client
from metering.clock import SystemClock
from metering.config import load_settings
from metering.usage.answer import answer
from metering.usage.bounds import ROWS_MAX
from metering.usage.parameters import UsageParameters, query_of
from metering.usage.present import local_text, to_csv, to_json
from schemas.catalog import AppliedCatalog
from schemas.errors import RequestError
from schemas.quantity import format_quantity
from schemas.usage_query import By, UsageQuery, UsageRow, Window
from schemas.zone import zone_of


class Format(enum.Enum):
    """How the answer is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def usage(
    meter: Annotated[str, typer.Argument(help="Name of the meter.", show_default=False)],
    *,
    customer: Annotated[list[str] | None, typer.Option(help="Only this customer; may be repeated.")] = None,
    subject: Annotated[list[str] | None, typer.Option(help="Only this subject; may be repeated.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="First instant that counts: a day (midnight in the zone), a month, or an RFC 3339 time. "
            "Default: the start of the month that --to is in.",
        ),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="First instant that no longer counts. Default: now.")] = None,
    window: Annotated[Window, typer.Option(help="Length of a row's window.")] = Window.TOTAL,
    timezone: Annotated[
        str | None,
        typer.Option(help="IANA zone of days and months. Default: that of the customers asked about, else UTC."),
    ] = None,
    group_by: Annotated[list[str] | None, typer.Option(help="Split by this dimension; may be repeated.")] = None,
    by: Annotated[
        By | None, typer.Option(help="What a row stands for. Default: customer, or subject with --subject alone.")
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="How to print the answer.")] = Format.TABLE,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    rows_max: Annotated[int, typer.Option(min=1, help="Refuse an answer of more rows than this.")] = ROWS_MAX,
) -> None:
    """Ask how much of a meter was used. Answers are exact, also where a boundary falls inside 15 minutes.

    Examples:
        metering usage flights --from 2013-01 --to 2014-01 --window month --timezone America/New_York

        metering usage miles --customer AA --from 2013-07-04 --to 2013-07-05 --window hour --group-by origin

        metering usage aircraft --by everything --from 2013-01 --to 2013-02 --format csv
    """
    parameters = UsageParameters(
        meter=meter,
        customers=customer or (),
        subjects=subject or (),
        start=start,
        end=end,
        window=window,
        timezone=timezone,
        by=by,
        group_by=group_by or (),
    )
    with database_client(load_settings()) as client:
        catalog = catalog_store.latest(client)
        if catalog is None:
            raise RequestError("no catalog was applied yet", fix="Run `metering apply catalog.yaml`")
        query = query_of(parameters, catalog, SystemClock().now())
        rows = answer(client, catalog, query, rows_max=rows_max)
    if json or output is Format.JSON:
        typer.echo(to_json(catalog, query, rows))
    elif output is Format.CSV:
        typer.echo(to_csv(catalog, query, rows).encode(), nl=False)
    else:
        _show(Console(highlight=False, soft_wrap=True), catalog, query, rows)


def _show(console: Console, catalog: AppliedCatalog, query: UsageQuery, rows: Sequence[UsageRow]) -> None:
    meter = catalog.meters[query.meter]
    asked = f"from {local_text(query, query.start)} to {local_text(query, query.end)}, {query.timezone}"
    if not rows:
        console.print(f"No usage of {query.meter} {asked}.", markup=False)
        if query.by is By.CUSTOMER:
            console.print("Usage of subjects that no customer owns shows with --by subject.")
        return
    console.print(f"{query.meter} ({meter.aggregation.value}) {asked}", markup=False)
    windows = [] if query.window is Window.TOTAL else [query.window.value]
    who = [] if query.by is By.EVERYTHING else [query.by.value]
    table = Table(*windows, *who, *query.group_by, "quantity", "unit", "events", box=None, pad_edge=False)
    table.columns[-3].justify = table.columns[-1].justify = "right"
    for row in rows:
        cells = [_window_text(query, row.window_start)] if windows else []
        cells += [row.who] if who else []
        cells += [*row.dimensions.values(), format_quantity(row.quantity), meter.unit, str(row.events_count)]
        table.add_row(*[_plain(cell) for cell in cells])
    console.print(table)


def _window_text(query: UsageQuery, start: datetime) -> str:
    local = start.astimezone(zone_of(query.timezone))
    if query.window is Window.MONTH:
        return f"{local:%Y-%m}"
    return f"{local:%Y-%m-%d}" if query.window is Window.DAY else local.isoformat(timespec="minutes")


def _plain(cell: str) -> Text:
    """Data as it is: no markup of the table's library, and nothing that would steer a terminal."""
    return Text("".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in cell))
