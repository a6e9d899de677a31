"""`metering audit`: does what is stored agree with itself and with the log?"""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec
import typer

from aggregators.audit import Audit
from aggregators.audit import audit as run_audit
from metering import catalog_store
from metering.cli.connection import database_client
from metering.config import load_settings
from metering.kafka import log_ends, log_epoch
from schemas.topics import USAGE_EVENTS


def audit(
    *,
    days: Annotated[
        int, typer.Option(min=0, help="How many subjects' days are counted again from their events.")
    ] = 100,
    seed: Annotated[int | None, typer.Option(min=0, help="Chooses which days; a random one unless given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check that every offset is accounted for, and that counts, digests and rollups agree. Changes nothing.

    Offsets without a hole; accepted, stored and rejected equal in number and digest; no identity accepted twice; a
    random sample of rollups equal to their events. Ends with exit code 1 when anything differs. Workers may go on
    meanwhile.

    Examples:
      metering audit

      metering audit --days 1000 --seed 7 --json
    """
    settings = load_settings()
    seed = secrets.randbelow(1 << 32) if seed is None else seed
    with database_client(settings) as client:
        found = run_audit(
            client,
            catalog_store.latest(client),
            log_ranges=log_ends(settings, USAGE_EVENTS),
            epoch=log_epoch(settings, USAGE_EVENTS),
            days=days,
            seed=seed,
        )
    show_audit(found, seed=seed, as_json=as_json)
    if not found.is_clean:
        raise typer.Exit(1)


def show_audit(found: Audit, *, seed: int, as_json: bool) -> None:
    """Print what an audit found."""
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    typer.echo(
        f"{found.offsets:,} offsets of {found.partitions} partitions, {found.events:,} events; "
        f"{found.days_sampled} subjects' days counted again (seed {seed})"
    )
    for one in found.differences:
        typer.echo(f"{one.check}: {one.where}: {one.what}")
    typer.echo(
        "everything agrees" if found.is_clean else f"{len(found.differences)} differences: see `metering repair`"
    )
