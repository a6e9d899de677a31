"""`metering erase`: take a customer's personal data out of what is stored, and keep what was counted."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec
import typer
from clickhouse_connect.driver.client import Client
from rich.console import Console

from aggregators.erase import Erasing, Found
from billing_export.verify import verify_period
from ingest.catalog_watch import POLL_INTERVAL_S
from metering import erasure_store
from metering.cli.billing_tables import console
from metering.cli.connection import database_client, whoami
from metering.cli.repair import workers_at_work
from metering.clickhouse import connect
from metering.clock import SystemClock
from metering.config import Settings, load_settings
from schemas.errors import VerificationError

WORKERS_WAIT_S: Final = 120.0


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure did, or would do: what `--json` prints. `verified` are the periods that were proved after it."""

    customer: str
    dry_run: bool
    changed: bool
    found: Found
    verified: list[str]
    log_forgets_at: datetime


def erase(
    customer: Annotated[str, typer.Argument(help="The customer's id in the catalog.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; change nothing.")] = False,
    verify: Annotated[bool, typer.Option(help="Verify every closed period of the customer before and after.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
) -> None:
    """Take a customer's personal data out of events, dead letters and catalogs; totals and closed lines stay.

    Events become receipts under pseudonyms, now and whenever more of them come. Workers make way by themselves and must
    be started again, as `metering up` does; the gateway goes on. An erasure that was broken off goes on when it is run
    again. What it does not reach, and what is left to you, stands in docs/erasure.md.

    Examples:
        metering erase acme --dry-run

        metering erase acme
    """
    settings, clock = load_settings(), SystemClock()
    with database_client(settings) as client:
        erasing = Erasing(
            connect=lambda: connect(settings),
            clock=clock,
            by=whoami(),
            workers=lambda: workers_at_work(settings),
            sleep=time.sleep,
            workers_wait_s=WORKERS_WAIT_S,
            settle_s=POLL_INTERVAL_S + settings.query_time_s_max,
        )
        found, periods = erasing.look(customer), closed_periods(client, customer)
        is_begun = erasure_store.unfinished(client) is not None
        changed = is_begun or not found.is_nothing
        if changed and not dry_run:
            if verify and not is_begun:  # of what is half rewritten nothing can be proved
                _prove(client, periods, "nothing was erased")
            erasing.erase(customer)
            if verify:
                _prove(client, periods, "the erasure is done")
        done = Erased(
            customer=customer,
            dry_run=dry_run,
            changed=changed,
            found=found,
            verified=periods if verify and changed and not dry_run else [],
            log_forgets_at=clock.now() + timedelta(days=settings.kafka_retention_days),
        )
    if json:
        typer.echo(msgspec.json.encode(done))
    else:
        _show(console(), done, settings)


def closed_periods(client: Client, customer: str) -> list[str]:
    """The closed periods in which the customer has lines."""
    rows = client.query(
        "SELECT DISTINCT period FROM runs WHERE state != 'closing' AND run IN "
        "(SELECT run FROM line_items WHERE customer = {customer:String}) ORDER BY period",
        {"customer": customer},
    ).result_rows
    return [row[0] for row in rows]


def _prove(client: Client, periods: list[str], said: str) -> None:
    """Verify periods: afterwards nobody could tell an old mistake from a new one."""
    with Console(stderr=True, quiet=not Console(stderr=True).is_terminal).status("Verifying") as status:
        for period in periods:
            status.update(f"Verifying {period}")
            differences = verify_period(client, period).differences
            if differences:
                raise VerificationError([f"period {period} does not verify; {said}", *differences])


def _show(out: Console, done: Erased, settings: Settings) -> None:
    found = done.found
    if not done.changed:
        out.print(f"Nothing of customer {done.customer} is left to erase.")
        return
    out.print(f"{'Would erase' if done.dry_run else 'Erased'} customer {done.customer}:")
    for table, rows in found.rows.items():
        out.print(f"  {table}: {rows:,} rows")
    out.print(f"  dead letters: {found.dead_letters:,}, of which {found.open_letters:,} are open and would be lost")
    out.print(f"  catalog versions: {found.catalog_versions:,}")
    if done.verified:
        out.print(f"Verified before and after: {', '.join(done.verified)}.")
    out.print(
        f"Not reached: the records in Kafka, which keeps them {settings.kafka_retention_days} days; the dead-letter "
        "topic; your catalog file; files and invoices that were delivered; backups. Frozen lines keep the customer's "
        "name and id. See docs/erasure.md."
    )
