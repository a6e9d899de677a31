"""`metering keys`: make, list, end and replace API keys."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from metering import catalog_store, keys_store
from metering.cli.connection import database_client, whoami
from metering.cli.wide_console import wide_console
from metering.clock import SystemClock
from metering.config import load_settings
from metering.keys import ApiKey, Scope, fingerprint
from schemas.errors import RequestError

keys = typer.Typer(no_args_is_help=True, help="Make, list, end and replace the keys that the gateway asks for.")

_Days = Annotated[float | None, typer.Option("--expires-in-days", min=0, help="When the key ends. Default: never.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, such as checkout-production.")],
    *,
    scope: Annotated[list[Scope], typer.Option(help="What it may do; may be repeated.")],
    customer: Annotated[
        str, typer.Option(help="The only customer it may send and ask for. Default: every customer.")
    ] = "",
    expires_in_days: _Days = None,
    json: _Json = False,
) -> None:
    """Make a key and show it, once: what is stored cannot be turned back into it.

    Examples:
        metering keys create checkout --scope ingest

        metering keys create acme-portal --scope query --customer acme --expires-in-days 90
    """
    settings, clock = load_settings(), SystemClock()
    with database_client(settings) as client:
        if customer:
            catalog = catalog_store.latest(client)
            if catalog is None or customer not in catalog.customers:
                raise RequestError(
                    f"the catalog has no customer {customer!r}", where="--customer", fix="Apply it first, or correct it"
                )
        made, text = keys_store.create(
            client,
            pepper=settings.key_pepper,
            name=name,
            scopes=scope,
            customer=customer,
            expires_at=_in_days(clock.now(), expires_in_days),
            clock=clock,
            by=whoami(),
        )
    _show_new(made, text, json=json)


@keys.command("list")
def list_(
    *,
    every: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    json: _Json = False,
) -> None:
    """List the keys with what they may do, who made them and when they were last used.

    Examples:
        metering keys list

        metering keys list --all --json
    """
    settings = load_settings()
    now = SystemClock().now()
    with database_client(settings) as client:
        uses = keys_store.last_uses(client)
        found = [one for one in keys_store.load(client) if every or one.state(now) == "valid"]
    rows = [{**_fields(one), "state": one.state(now), "used_at": uses.get(one.key)} for one in found]
    if json:
        typer.echo(msgspec.json.encode(rows))
        return
    out = wide_console()
    if not rows:
        out.print("There is no key." if every else "There is no valid key; --all lists those that have ended.")
        return
    table = Table("key", "name", "scopes", "customer", "state", "ends", "last used", "made by", box=None)
    for one, row in zip(found, rows, strict=True):
        cells = (one.key, escape(one.name), " ".join(row["scopes"]), escape(one.customer), row["state"])
        table.add_row(*cells, _day(row["ends_at"]), _minute(row["used_at"]), escape(one.by))
    out.print(table)
    strange = [one.key for one in found if one.pepper != fingerprint(settings.key_pepper)]
    if settings.key_pepper and strange:
        out.print(f"Made with another pepper than METERING_KEY_PEPPER, so not taken with it: {', '.join(strange)}.")


@keys.command()
def revoke(key: Annotated[str, typer.Argument(help="The key's name: the 16 digits after mk_.")]) -> None:
    """End a key at once. Every gateway that reaches ClickHouse refuses it within five seconds.

    Examples:
        metering keys revoke 4f1d2a9be07c6358
    """
    with database_client(load_settings()) as client:
        found = keys_store.find(client, _name(key))
        keys_store.revoke(client, found, clock=SystemClock(), by=whoami())
    typer.echo(f"Key {found.key} ({found.name}) is revoked.")


@keys.command()
def rotate(
    key: Annotated[str, typer.Argument(help="The key to replace.")],
    *,
    overlap_days: Annotated[float, typer.Option(min=0, help="How long the old key is taken beside the new one.")] = 7.0,
    expires_in_days: _Days = None,
    json: _Json = False,
) -> None:
    """Make a key that may do the same as another one, and let that one end after a while; until then both are taken.

    Examples:
        metering keys rotate 4f1d2a9be07c6358

        metering keys rotate 4f1d2a9be07c6358 --overlap-days 0.5
    """
    settings, clock = load_settings(), SystemClock()
    now = clock.now()
    with database_client(settings) as client:
        made, text = keys_store.rotate(
            client,
            keys_store.find(client, _name(key)),
            pepper=settings.key_pepper,
            old_ends_at=now + timedelta(days=overlap_days),
            expires_at=_in_days(now, expires_in_days),
            clock=clock,
            by=whoami(),
        )
    _show_new(made, text, json=json)


def _name(key: str) -> str:
    """The name of a key that is given whole or with its prefix: people paste what they have."""
    return key.removeprefix("mk_").partition("_")[0]


def _in_days(now: datetime, days: float | None) -> datetime | None:
    return None if days is None else now + timedelta(days=days)


def _fields(one: ApiKey) -> dict[str, Any]:
    ends = [end for end in (one.expires_at, one.ends_at) if end is not None]
    return {
        "key": one.key,
        "name": one.name,
        "scopes": sorted(scope.value for scope in one.scopes),
        "customer": one.customer,
        "ends_at": min(ends, default=None),
        "replaces": one.replaces,
        "at": one.at,
        "by": one.by,
    }


def _show_new(made: ApiKey, text: str, *, json: bool) -> None:
    if json:
        typer.echo(msgspec.json.encode({**_fields(made), "secret": text}))
        return
    typer.echo(text)
    typer.echo(f"Key {made.key} is made. It is shown this once: keep it where secrets are kept.", err=True)


def _day(time: datetime | None) -> str:
    if time is None:
        return "never"
    return "at once" if time <= keys_store.AT_ONCE else f"{time:%Y-%m-%d %H:%M}"


def _minute(time: datetime | None) -> str:
    return "never" if time is None else f"{time:%Y-%m-%d %H:%M}"
