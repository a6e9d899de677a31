"""`metering repair`: mend from the events what an audit found."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from aggregators.app import GROUP_ID
from aggregators.audit import audit as run_audit
from aggregators.repair import Repaired
from aggregators.repair import repair as run_repair
from metering import catalog_store
from metering.clickhouse import connect
from metering.config import Settings, load_settings
from metering.kafka import ANSWER_TIMEOUT_S, client_config
from schemas.errors import KafkaUnavailableError, RequestError

DAYS = 10_000
NEVER_THERE = frozenset({KafkaError.GROUP_ID_NOT_FOUND, KafkaError.COORDINATOR_NOT_AVAILABLE})
"""What brokers answer about a group that nobody ever joined."""


def repair(
    *,
    days: Annotated[
        int, typer.Option(min=0, help="How many subjects' days are counted again to find what differs.")
    ] = DAYS,
    everything: Annotated[
        bool, typer.Option("--all", help="Fold every meter again, whatever the audit finds.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Audit, and mend from the events what differs: rollups are folded again, an event accepted twice counts once.

    Rollups are mended beside live workers. An identity that was accepted twice needs the workers stopped. What the
    events cannot mend, such as a hole in the ledger, is named, and the exit code is 1.

    Examples:
      metering repair

      metering repair --all
    """
    settings = load_settings()
    client = connect(settings)
    catalog = catalog_store.latest(client)
    if catalog is None:
        raise RequestError("no catalog was applied yet", fix="Run `metering apply catalog.yaml`")
    found = run_audit(client, catalog, days=days)
    done = run_repair(
        lambda database: connect(settings, database=database),
        catalog,
        found,
        workers=workers_at_work(settings),
        everything=everything,
    )
    _show(done, as_json=as_json)
    if done.left:
        raise typer.Exit(1)


def workers_at_work(settings: Settings) -> int:
    """How many workers are members of the consumer group; a killed one is until its session times out."""
    admin = AdminClient(client_config(settings))
    try:
        group = admin.describe_consumer_groups([GROUP_ID], request_timeout=ANSWER_TIMEOUT_S)[GROUP_ID].result()
    except KafkaException as error:
        if error.args[0].code() not in NEVER_THERE:
            raise KafkaUnavailableError(
                f"cannot tell who is in the group {GROUP_ID}: {error.args[0].str()}",
                where=settings.kafka_bootstrap,
                fix="Try again once the brokers answer",
            ) from error
        return 0  # no worker has ever been here
    return len(group.members)


def _show(done: Repaired, *, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(done).decode())
        return
    if done.identities:
        typer.echo(f"{done.identities:,} identities that were accepted more than once count once now")
    if done.rebuilt is not None:
        changed = sum(one.missing + one.surplus for one in done.rebuilt.differences)
        typer.echo(
            f"{len(done.meters)} meters folded again from {done.rebuilt.events_read:,} events: {changed:,} rows mended"
        )
    if not done.identities and done.rebuilt is None:
        typer.echo("nothing to mend")
    for one in done.left:
        typer.echo(f"not mended: differences of the check {one!r}; see docs/operations.md")
