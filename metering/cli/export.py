"""`metering export`: write frozen line items to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from billing_export import runs
from billing_export.export import ExportFormat, export_runs
from metering.cli.billing_tables import console
from metering.cli.connection import database_client
from metering.config import load_settings


def export(
    *,
    period: Annotated[list[str], typer.Option("--period", help="A closed month, such as 2013-01; may be repeated.")],
    export_format: Annotated[ExportFormat, typer.Option("--format", help="How to write the lines.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to; made when it is not there.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Write the line items of closed periods, one file a period: line_items_2013-01.csv.

    Exporting again gives the same bytes. A file is replaced whole or not at all.

    Examples:
        metering export --period 2013-01 --format csv --out build

        metering export --period 2013-01 --period 2013-02 --format jsonl --out build
    """
    written = []
    with database_client(load_settings()) as client:
        closed = [runs.closed(client, label) for label in period]
        for run in closed:
            file = out / f"line_items_{run.period}.{export_format.value}"
            count = export_runs(client, [run], export_format, file)
            written.append({"period": run.period, "run": run.id, "file": str(file), "lines_count": count})
    if json:
        typer.echo(msgspec.json.encode({"files": written}))
        return
    screen = console()
    for one in written:
        screen.print(f"{one['file']}: {one['lines_count']} lines of run {one['run']}", markup=False)
