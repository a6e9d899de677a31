"""`metering simulate`: what real usage would have cost under other plans."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console

from billing_export.export_csv import text_cell
from billing_export.simulate import simulate as simulated
from billing_export.simulate_records import Simulation
from metering.catalog_file import read_plans
from metering.cli.billing_tables import console
from metering.cli.close import usage_reader
from metering.cli.connection import database_client
from metering.cli.explain_tables import say, show_table
from metering.clock import SystemClock
from metering.config import load_settings
from schemas.errors import RequestError

CSV: Final = "csv"
_COLUMNS: Final = ("customer", "customer_name", "currency", "present", "simulated", "difference")


def simulate(
    *,
    plan: Annotated[Path, typer.Option("--plan", help="A file with plans, as in a catalog, and nothing else.")],
    period: Annotated[str, typer.Option("--period", help="The period, such as 2013-01; closed or not.")],
    customer: Annotated[
        list[str] | None, typer.Option("--customer", help="Only this customer, by charge; may be repeated.")
    ] = None,
    replace: Annotated[
        list[str] | None,
        typer.Option("--map", help="OLD=NEW: NEW stands for the plan OLD of today; may be repeated."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many customers a table shows.")] = 50,
    out: Annotated[
        str, typer.Option("--out", help="csv prints CSV; any other name is a file that CSV is written to.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Bill a period under other plans, with the usage as it was, beside what it costs today. Nothing is written.

    A plan of the file stands for the plan of today with its id; --map says so for others. What was closed is taken as
    of its run's cut and catalog, the rest as it is now. Prices are compared: charges of the period, minimum and
    commitment, discounts; credits and corrections of other periods are left out.

    Examples:
        metering simulate --plan new.yaml --period 2013-01

        metering simulate --plan new.yaml --period 2013-01 --map standard=standard_2014 --customer acme

        metering simulate --plan new.yaml --period 2013-01 --out differences.csv
    """
    if json and out:
        raise RequestError("--json and --out exclude each other", where="simulate", fix="Leave one of them out")
    status = Console(stderr=True, quiet=not sys.stderr.isatty()).status(f"Simulating {period}")
    with database_client(load_settings()) as client, status:
        found = simulated(
            client,
            usage_reader(client),
            label=period,
            plans=lambda catalog: read_plans(plan, tuple(catalog.meters.values())),
            replaced=dict(_pair(one) for one in replace or ()),
            customers=tuple(dict.fromkeys(customer or ())),
            now=SystemClock().now(),
            on_progress=lambda done, total: status.update(f"Simulating {period}: {done} of {total} subscriptions"),
        )
    if json:
        typer.echo(msgspec.json.encode(found))
    elif out == CSV:
        typer.echo("".join(_csv(found)), nl=False)
    elif out:
        _write(Path(out), found)
    else:
        _show(console(), found, top)


def _pair(text: str) -> tuple[str, str]:
    old, is_pair, new = text.partition("=")
    if not (old and is_pair and new):
        raise RequestError(f"{text!r} is no pair of plans", where="--map", fix="Write OLD=NEW")
    return old, new


def _csv(found: Simulation) -> Iterator[str]:
    """A header and a row for each customer and currency."""
    yield ",".join(_COLUMNS) + "\n"
    for one in found.customers:
        numbers = (one.present, one.simulated, one.difference)
        yield ",".join((text_cell(one.customer), text_cell(one.customer_name), one.currency, *numbers)) + "\n"


def _write(file: Path, found: Simulation) -> None:
    try:
        with file.open("w", encoding="utf-8", newline="") as stream:
            stream.writelines(_csv(found))
    except OSError as error:
        raise RequestError(f"cannot be written: {error.strerror}", where=str(file), fix="Name another file") from error
    console().print(f"{file}: {len(found.customers)} customers", markup=False)


def _show(out: Console, found: Simulation, top: int) -> None:
    rows = []
    for one in found.customers[:top]:
        rows.append((one.customer, one.customer_name, "", one.present, one.simulated, one.difference, one.currency))
        rows += [("", "", each.what, each.present, each.simulated, each.difference, "") for each in one.charges]
    rest = len(found.customers) - top
    if rest > 0:
        rows.append((f"and {rest} more", "", "", "", "", "", ""))
    rows += [
        ("total", _count(one.customers_count), "", one.present, one.simulated, one.difference, one.currency)
        for one in found.totals
    ]
    names = ("customer", "name", "charge", "present", "simulated", "difference", "")
    show_table(out, names, rows, right=(3, 4, 5))
    basis = f"as of run{'s' if len(found.runs) > 1 else ''} {', '.join(found.runs)}" if found.runs else "as of now"
    if found.runs and not found.is_frozen:
        basis += ", what was not closed as of now"
    so_far = "" if found.is_over else "; the period is not over, so this is its usage so far"
    plans = ", ".join(f"{new} for {old}" if new != old else new for old, new in sorted(found.plans.items()))
    say(out, f"{found.period} under {plans}, {basis}{so_far}.")


def _count(customers: int) -> str:
    return "1 customer" if customers == 1 else f"{customers} customers"
