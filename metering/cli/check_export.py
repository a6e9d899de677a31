"""`metering check-export`: hold an export folder against its manifest, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from billing_export.export_check import check_folder
from metering.cli.billing_tables import console


def check_export(
    *,
    folder: Annotated[Path, typer.Argument(help="The folder of one run that `metering export` wrote.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Check an export folder with nothing but its files: every hash, the digest of all lines, counts and totals.

    It needs no ClickHouse and no Kafka, so whoever receives the folder can run it. The exit code is 1 when anything
    differs, with a line for every difference.

    Examples:
        metering check-export build/2013-01.1
    """
    found = check_folder(folder)
    if json:
        typer.echo(
            msgspec.json.encode({"folder": str(folder), "manifest": found.manifest, "differences": found.differences})
        )
    else:
        screen = console()
        for difference in found.differences:
            screen.print(difference, markup=False)
        if found.manifest is not None and not found.differences:
            totals = ", ".join(f"{one.amount} {one.currency}" for one in found.manifest.totals) or "nothing"
            lines = f"{found.manifest.lines_count} lines of run {found.manifest.run}"
            screen.print(f"{folder}: {lines}, {totals}: as the manifest says.", markup=False)
    if found.differences:
        raise typer.Exit(1)
