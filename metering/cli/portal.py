"""`metering portal`: pages that show one customer its usage and bills, and the links to them."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from ingest.server import bind, serve
from metering import catalog_store
from metering.cli.connection import database_client
from metering.clock import SystemClock
from metering.config import load_settings
from metering.log import configure_logging
from metering.portal.app import create_portal
from metering.portal.links import check_secret, length_of, make_link
from schemas.errors import RequestError

portal = typer.Typer(help="Show one customer its usage, running bill and past bills, by a signed link.")


@portal.callback(invoke_without_command=True)
def _portal(context: typer.Context) -> None:
    """Show one customer its usage, running bill and past bills, by a signed link. Without a command: serve."""
    if context.invoked_subcommand is None:
        run()


@portal.command("serve")
def run() -> None:
    """Serve the portal, and nothing else, until Ctrl-C or SIGTERM; `metering portal` alone does the same.

    It listens on 127.0.0.1 unless told otherwise, and speaks HTTPS where the gateway has a certificate. `metering
    dashboard` serves the portal, too, where METERING_PORTAL_SECRET is set.

    Examples:
        metering portal serve

        METERING_PORTAL_HOST=0.0.0.0 METERING_PORTAL_SECRET_FILE=secret metering portal serve
    """
    settings = load_settings()
    configure_logging(settings)
    app = create_portal(settings, clock=SystemClock())
    listener = bind(settings, part="portal")
    # What serves is the gateway's own, on the portal's address.
    here = msgspec.structs.replace(settings, gateway_host=settings.portal_host, gateway_port=settings.portal_port)
    serve(app, here, listener)


@portal.command()
def link(
    customer: Annotated[str, typer.Argument(help="Id of the customer whose numbers it shows.", show_default=False)],
    *,
    expires_in: Annotated[str, typer.Option(help="How long it is taken: minutes, hours or days.")] = "7d",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Print a link that shows one customer's numbers to whoever has it, until it expires.

    Nothing is stored: a link ends with its time, or with the secret that signed it.

    Examples:
        metering portal link acme

        metering portal link acme --expires-in 12h --json
    """
    settings, clock = load_settings(), SystemClock()
    length = length_of(expires_in)
    check_secret(settings)
    with database_client(settings) as client:
        catalog = catalog_store.latest(client)
    if catalog is None or customer not in catalog.customers:
        raise RequestError(
            f"the catalog has no customer {customer!r}", where="portal link", fix="Apply it first, or correct the id"
        )
    made = make_link(settings, customer, expires_in=length, now=clock.now())
    if json:
        typer.echo(msgspec.json.encode(made))
        return
    typer.echo(made.url)
    typer.echo(f"for {made.customer}, until {made.expires_at:%Y-%m-%d %H:%M:%S} UTC", err=True)
