"""What the periods that run now come to so far, over all customers: the bills that `preview` shows, added up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.assemble import Assembly, CustomerWork
from billing_export.catalogs import Catalogs
from billing_export.cut import ledger_cut
from billing_export.money import format_amount
from billing_export.projection import ended, until
from billing_export.readings import Answers, Ask, Reading, UsageReader, Used, by_customers, read_answers
from billing_export.run import Run, next_run
from billing_export.scope import terms_of
from billing_export.stocks import is_stock
from metering import catalog_store
from schemas.catalog import AppliedCatalog
from schemas.errors import RunError
from schemas.period import billing_period_at
from schemas.quantity import ZERO, add
from schemas.subscription_life import cadence_of, phases


class RunningTotal(msgspec.Struct, frozen=True, kw_only=True):
    """What a running period comes to so far in one currency; `customers` is how many have lines in it."""

    period: str
    currency: str
    customers: int
    amount: str


def running_totals(client: Client, read_usage: UsageReader, *, now: datetime) -> list[RunningTotal]:
    """A total for each period that subscriptions are in now and that was not billed yet, by period and currency.

    Usage is counted until `now`; a flat charge counts as a whole from the start of its period. Lines are as a close
    would make them: tiers, minimums, discounts, credits and corrections of earlier bills included.
    Raises RunError without a catalog, and while a run that was begun is not frozen, because bills depend on it.
    """
    catalog = catalog_store.latest(client)
    if catalog is None:
        raise RunError("no catalog was applied", where="running", fix="Run `metering apply FILE` first")
    log = runs.listed(client)
    for begun in log:
        if not begun.is_frozen:
            raise RunError(
                f"run {begun.id} was begun and is not frozen, and bills depend on those before",
                where="running",
                fix=f"Finish it with `metering close --period {begun.period}`",
            )
    found: list[RunningTotal] = []
    for label, customers in sorted(_running(catalog, now).items()):
        found += _totals_of(client, catalog, label, customers, log=log, read_usage=read_usage, now=now)
    return found


def _running(catalog: AppliedCatalog, now: datetime) -> dict[str, tuple[str, ...]]:
    """The periods that subscriptions are in now, each with the customers it runs for."""
    found: dict[str, dict[str, None]] = {}
    for subscription in catalog.subscriptions_sorted:
        timezone = catalog.customers[subscription.customer].timezone
        period = billing_period_at(cadence_of(catalog, subscription), now, timezone)
        if any(one.start <= now for one in phases(catalog, subscription, period)):
            found.setdefault(period.label, {})[subscription.customer] = None
    return {label: tuple(customers) for label, customers in found.items()}


def _totals_of(
    client: Client,
    catalog: AppliedCatalog,
    label: str,
    customers: tuple[str, ...],
    *,
    log: Sequence[Run],
    read_usage: UsageReader,
    now: datetime,
) -> list[RunningTotal]:
    catalogs = Catalogs(client)
    run = next_run(log, label, at=now, cut=ledger_cut(client), catalog_version=catalog.version, customers=customers)
    if not terms_of(run, [one for one in log if one.period == label], catalogs.load):
        return []
    assembly = Assembly(client, run, catalogs)
    amounts: dict[str, Decimal] = {}
    billed: dict[str, set[str]] = {}
    for part in assembly.parts():
        for line in assembly.lines(part, _until_now(assembly, part, read_usage, now)):
            amounts[line.currency] = add(amounts.get(line.currency, ZERO), Decimal(line.amount))
            billed.setdefault(line.currency, set()).add(line.customer)
    return [
        RunningTotal(
            period=label, currency=currency, customers=len(billed[currency]), amount=format_amount(amounts[currency])
        )
        for currency in sorted(amounts)
    ]


def _until_now(assembly: Assembly, part: Sequence[CustomerWork], read_usage: UsageReader, now: datetime) -> Answers:
    """What was used until now, each question asked once for all its customers."""
    found: dict[tuple[str, Reading], list[Used]] = {}
    for reading, customers in by_customers(question for work in part for question in work.questions()).items():
        past = until(reading, now)
        if past is None:
            continue
        catalog = assembly.catalogs.load(reading.catalog_version)
        for customer, used in read_answers(read_usage, catalog, past, customers, assembly.run.cut):
            found.setdefault((customer, reading), []).append(used)
        if past != reading and reading.ask is Ask.EVENTS and is_stock(catalog.meters[reading.meter]):
            for customer in customers:
                found[customer, reading] = ended(found.get((customer, reading), []), now)
    return found
