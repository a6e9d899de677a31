"""Closing a period: claim the run, make its lines, freeze it.

Safe to kill at any point and to run twice at once: the claim fixes the cut and the catalog, lines are a pure function
of both and replace themselves, and the frozen state is written last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.assemble import UsageReader, assemble
from billing_export.cut import ledger_cut
from billing_export.line_store import count_lines, write_lines
from billing_export.lines import Service, services
from billing_export.run import Run, RunState, run_id
from metering import catalog_store
from metering.clock import Clock
from schemas.errors import InvariantViolationError, PeriodNotOverError, RunError
from schemas.line_item import LineItem, encode_line_item

STEPS: Final = ("claimed", "lines_read", "lines_written", "freezing", "frozen")
"""What `on_step` hears, in this order; `lines_read` and `lines_written` once for each part of the subscriptions."""


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is frozen. `changed` is False when it had been before this close."""

    run: Run
    changed: bool


def close_period(
    client: Client,
    label: str,
    *,
    read_usage: UsageReader,
    clock: Clock,
    grace_s: int,
    closed_by: str,
    code_version: str,
    force: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> Closed:
    """Bill the month `label` and freeze it; a run that another closer began is finished with its cut and catalog.

    Raises PeriodNotOverError unless the period and `grace_s` are over everywhere or `force` is given; RunError when
    there is no catalog or nobody has a subscription; InvariantViolationError when lines come out in two ways.
    """
    run = runs.find(client, label)
    if run is not None and run.state is RunState.CLOSED:
        return Closed(run=run, changed=False)
    if run is None:
        run = runs.claim(
            client,
            prepare(
                client, label, clock=clock, grace_s=grace_s, closed_by=closed_by, code_version=code_version, force=force
            ),
        )
    on_step("claimed")
    if run.state is RunState.CLOSED:
        return Closed(run=run, changed=False)
    catalog = catalog_store.load(client, run.catalog_version)
    digest = hashlib.sha256()
    count = 0
    for lines in assemble(run, catalog, services(catalog, label), read_usage):
        on_step("lines_read")
        write_lines(client, lines, count)
        count += len(lines)
        for line in lines:
            digest.update(encode_line_item(line) + b"\n")
        on_step("lines_written")
    stored = count_lines(client, run)
    if stored != count:
        raise InvariantViolationError(
            f"run {run.id} has {count} lines but {stored} are stored",
            where="line_items",
            fix="Lines of another version of the code stand there: compare their documents before closing again",
        )
    on_step("freezing")
    frozen = msgspec.structs.replace(
        run, state=RunState.CLOSED, at=clock.now(), lines_count=count, lines_digest=digest.hexdigest()
    )
    held = runs.freeze(client, frozen)
    on_step("frozen")
    return Closed(run=held, changed=True)


def preview_lines(
    client: Client, label: str, *, read_usage: UsageReader, clock: Clock, grace_s: int, force: bool = False
) -> list[LineItem]:
    """The lines a close would freeze at this moment, without writing anything. Raises as `close_period` does."""
    run = runs.find(client, label)
    if run is None:
        run = prepare(client, label, clock=clock, grace_s=grace_s, closed_by="", code_version="", force=force)
    catalog = catalog_store.load(client, run.catalog_version)
    return [line for part in assemble(run, catalog, services(catalog, label), read_usage) for line in part]


def prepare(
    client: Client, label: str, *, clock: Clock, grace_s: int, closed_by: str, code_version: str, force: bool
) -> Run:
    """The run that would be claimed now. Writes nothing; raises as `close_period` does."""
    catalog = catalog_store.latest(client)
    if catalog is None:
        raise RunError("no catalog was applied", where=f"period {label}", fix="Run `metering apply FILE` first")
    subscribed = services(catalog, label)
    if not subscribed:
        raise RunError(
            f"no subscription has any time in {label}",
            where=f"catalog version {catalog.version}",
            fix="Look at start and end of the subscriptions",
        )
    now = clock.now()
    over_at = _over_at(subscribed, grace_s)
    if now < over_at and not force:
        raise PeriodNotOverError(
            f"the period and its grace time of {grace_s} s are over at {over_at:%Y-%m-%d %H:%M:%S} UTC, it is "
            f"{now:%Y-%m-%d %H:%M:%S} UTC",
            where=f"period {label}",
            fix="Wait, or close with --force, which is recorded",
        )
    return Run(
        id=run_id(label),
        period=label,
        state=RunState.CLOSING,
        at=now,
        cut=ledger_cut(client),
        catalog_version=catalog.version,
        forced=now < over_at,
        claimed_by=closed_by,
        code_version=code_version,
    )


def _over_at(subscribed: Sequence[Service], grace_s: int) -> datetime:
    """When the grace time is over for the customer whose period ends last."""
    return max(one.period.end for one in subscribed) + timedelta(seconds=grace_s)
