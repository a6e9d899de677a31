"""Decides what the next run would be: whom it bills, at which cut, with which catalog; and which periods are due."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.assemble import Assembly, assemble
from billing_export.catalogs import Catalogs
from billing_export.cut import ledger_cut
from billing_export.earlier_lines import customers_billed, last_labels
from billing_export.readings import UsageReader
from billing_export.run import Run, RunKind, next_run
from billing_export.scope import Term, billed_before, check_customers, due_labels, has_later_bill, terms
from metering import catalog_store
from schemas.catalog import AppliedCatalog
from schemas.errors import PeriodNotOverError, RunError
from schemas.period import parse_label
from schemas.usage_query import Cut


def prepare(
    client: Client,
    log: Sequence[Run],
    label: str,
    *,
    kind: RunKind,
    customers: tuple[str, ...],
    now: datetime,
    grace_s: int,
    closed_by: str,
    code_version: str,
    force: bool,
    read_usage: UsageReader,
) -> Run | None:
    """The run that would be claimed after those of `log`, all frozen; None when all that is asked for was billed.

    Raises as `billing_export.close.Closer.close` does.
    """
    parse_label(label)
    catalog = _newest(client, where=f"period {label}")
    check_customers(catalog, customers)
    run = next_run(
        log,
        label,
        at=now,
        cut=_cut(client, log),
        catalog_version=catalog.version,
        kind=kind,
        customers=customers,
        claimed_by=closed_by,
        code_version=code_version,
    )
    if kind is RunKind.ADJUSTMENTS:
        return _adjusting(client, run, catalog, read_usage, now)
    left = _left(run, catalog, [one for one in log if one.period == label], Catalogs(client))
    if left is None:
        return None
    over_at = max(one.period.end for one in left) + timedelta(seconds=grace_s)
    if now < over_at and not force:
        raise PeriodNotOverError(
            f"the period and its grace time of {grace_s} s are over at {over_at:%Y-%m-%d %H:%M:%S} UTC, it is "
            f"{now:%Y-%m-%d %H:%M:%S} UTC",
            where=f"period {label}",
            fix="Wait, or close with --force, which is recorded",
        )
    return msgspec.structs.replace(run, forced=now < over_at)


def due(client: Client, kind: RunKind, *, now: datetime, grace_s: int, customers: Collection[str] = ()) -> list[str]:
    """The labels that a run of this kind may be made for, in the order in which they are to be closed.

    A period is due when it is over, grace time included, for everybody in it who was not billed yet.
    Raises RunError when there is no catalog, RequestError for a customer that is none.
    """
    catalog = _newest(client, where="--due")
    check_customers(catalog, customers)
    catalogs = Catalogs(client)
    of_label: dict[str, list[Run]] = {}
    for run in runs.listed(client):
        of_label.setdefault(run.period, []).append(run)
    if kind is RunKind.ADJUSTMENTS:
        labels = last_labels(client)
        return sorted(
            {
                label
                for customer, label in labels.items()
                if (not customers or customer in customers) and not has_later_bill(catalog, customer, now)
            },
            key=lambda label: (parse_label(label).after, label),
        )
    return due_labels(
        catalog,
        lambda label: billed_before(sys.maxsize, of_label.get(label, ()), catalogs.load),
        now=now,
        grace_s=grace_s,
        customers=customers,
    )


def not_billed_again(client: Client, customers: Collection[str], now: datetime) -> list[str]:
    """Those of some customers that have no period that has still to end: no bill will carry their corrections."""
    catalog = _newest(client, where="--due")
    return [one for one in customers if not has_later_bill(catalog, one, now)]


def _newest(client: Client, *, where: str) -> AppliedCatalog:
    catalog = catalog_store.latest(client)
    if catalog is None:
        raise RunError("no catalog was applied", where=where, fix="Run `metering apply FILE` first")
    return catalog


def _left(run: Run, catalog: AppliedCatalog, of_period: Sequence[Run], catalogs: Catalogs) -> list[Term] | None:
    """What the run would bill; None when all of it was billed. Raises RunError when there is nothing at all."""
    candidates = terms(catalog, run.period, run.customers)
    if not candidates and (run.customers or not of_period):
        whose = f" of {', '.join(run.customers)}" if run.customers else ""
        raise RunError(
            f"no subscription{whose} has any time in {run.period}",
            where=f"catalog version {catalog.version}",
            fix="Look at start and end of the subscriptions, and at the periods of their plans",
        )
    before = billed_before(run.sequence, of_period, catalogs.load)
    return [one for one in candidates if one.subscription.id not in before] or None


def _adjusting(client: Client, run: Run, catalog: AppliedCatalog, read_usage: UsageReader, now: datetime) -> Run | None:
    """The run with the customers who have anything to correct: those asked for, or those whom no later bill reaches.

    Their corrections are worked out here once, so that the claim names them.
    """
    asked = run.customers or tuple(
        one for one in customers_billed(client, run.period) if not has_later_bill(catalog, one, now)
    )
    if not asked:
        return None
    tried = msgspec.structs.replace(run, customers=asked)
    assembly = Assembly(client, tried, Catalogs(client))
    found = {line.customer for line in assemble(assembly, read_usage)}
    return msgspec.structs.replace(run, customers=tuple(sorted(found))) if found else None


def _cut(client: Client, log: Sequence[Run]) -> Cut:
    """The cut of this moment. Raises RunError where it lies before that of the run before."""
    cut = ledger_cut(client)
    reached = {(one.epoch, one.partition): one.offset for one in cut.positions}
    for one in log[-1].cut.positions if log else ():
        if reached.get((one.epoch, one.partition), -1) < one.offset:
            raise RunError(
                f"the ledger has come to offset {reached.get((one.epoch, one.partition))} of partition "
                f"{one.partition}, run {log[-1].id} to {one.offset}",
                where="positions",
                fix="A worker reads a part of the log again: wait until it is through, then close",
            )
    return cut
