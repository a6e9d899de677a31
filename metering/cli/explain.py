"""`metering explain`: how the number on a line item came about."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
import typer

from billing_export.explain import Explainer
from metering.cli.billing_tables import console
from metering.cli.close import usage_reader
from metering.cli.connection import database_client
from metering.cli.explain_tables import show_events, show_explanation, show_verdict
from metering.config import load_settings
from schemas.usage_query import Window


class Windows(enum.Enum):
    """The windows that usage is added up by."""

    QUARTER_HOUR = "15m"
    HOUR = "hour"
    DAY = "day"


def explain(
    line_item: Annotated[
        str,
        typer.Argument(help="Id of the line item, or a beginning that no other has.", show_default=False),
    ],
    *,
    window: Annotated[Windows, typer.Option(help="Add usage up by this; days are the customer's own.")] = Windows.DAY,
    events: Annotated[bool, typer.Option("--events", help="List the events behind the line, a page of them.")] = False,
    amounts: Annotated[
        bool, typer.Option("--amounts", help="List the events that say what a dynamic charge costs instead.")
    ] = False,
    page: Annotated[int, typer.Option(min=1, help="Which page of events, counted from 1.")] = 1,
    page_size: Annotated[int, typer.Option(min=1, max=10_000, help="Events on a page.")] = 50,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
) -> None:
    """Explain how a frozen line came about: its meter, usage, every step of its price, what reduces and corrects it.

    All of it is computed again, as of the run's cut of the log and with its catalog. The last sentence says whether
    that gives the frozen line; where it does not, the exit code is 1. The events of all pages add up to the quantity.

    Examples:
        metering explain 3f2a9c1e

        metering explain 3f2a9c1e --window hour

        metering explain 3f2a9c1e --events --page 2 --page-size 100
    """
    with database_client(load_settings()) as client:
        explainer = Explainer(client, line_item, usage_reader(client))
        found = explainer.explain(Window(window.value))
        listed = None
        if events or amounts:
            listed = explainer.events(page=page, page_size=page_size, of_amounts=amounts)
    if json:
        document = {**msgspec.structs.asdict(found), "is_equal": found.recomputed.is_equal, "events": listed}
        typer.echo(msgspec.json.encode(document))
    else:
        out = console()
        show_explanation(out, found)
        if listed is not None:
            show_events(out, listed, found.amounts if amounts else found.meter)
        show_verdict(out, found)
    if not found.recomputed.is_equal:
        raise typer.Exit(1)
