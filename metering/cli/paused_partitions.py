"""`metering dead-letters resume`, and what its siblings say of partitions that are paused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from metering import audit_log, partition_pauses
from metering.audit_log import Action
from metering.cli.connection import database_client, whoami
from metering.clock import SystemClock
from metering.config import load_settings
from metering.partition_pauses import Pause
from schemas.errors import RequestError


def resume(
    partition: Annotated[
        int | None, typer.Argument(min=0, help="Only this partition.", show_default="all that are paused")
    ] = None,
    *,
    epoch: Annotated[str, typer.Option(help="Only of this log: cluster id/topic id.")] = "",
    why: Annotated[str, typer.Option(help="What was mended; it is kept.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which are paused; resume none.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Have workers read partitions on that they paused over too many dead letters, from where each stands.

    Mend the cause first: what is rejected again is counted from there on, and pauses the partition again.

    Examples:
        metering dead-letters resume --dry-run

        metering dead-letters resume 3 --why "the catalog knows the type now"
    """
    clock, by = SystemClock(), whoami()
    with database_client(load_settings()) as client:
        found = partition_pauses.paused(client, epoch)
        if partition is not None:
            found = [one for one in found if one.partition == partition]
            if not found:
                raise RequestError(
                    "the partition is not paused",
                    where=f"partition {partition}",
                    fix="`metering dead-letters resume --dry-run` lists those that are",
                )
        if not dry_run:
            partition_pauses.write_resumption(client, found, why=why, at=clock.now(), by=by)
            for one in found:
                detail = {"epoch": one.epoch, "offset": one.offset, "why": why}
                where = f"partition {one.partition}"
                audit_log.record(client, Action.PARTITION_RESUMED, where, detail, clock=clock, by=by)
    if json:
        fields = [
            {
                "partition": one.partition,
                "epoch": one.epoch,
                "offset": one.offset,
                "records": one.records,
                "rejected": one.rejected,
                "paused_at": one.at,
                "paused_by": one.by,
            }
            for one in found
        ]
        typer.echo(msgspec.json.encode({"dry_run": dry_run, "resumed": fields}))
        return
    if not found:
        typer.echo("No partition is paused.")
    for one in found:
        said = one.said if dry_run else f"partition {one.partition} is read on from offset {one.offset}"
        typer.echo(said)


def say_paused(paused: Sequence[Pause]) -> None:
    """Tell beside the answer, on standard error, what is not read for the time being."""
    for one in paused:
        typer.secho(f"paused: {one.said}", err=True, fg="yellow")
