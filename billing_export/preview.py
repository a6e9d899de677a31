"""The bill of a running period, so far and as it will be at the period's end. Nothing is written.

Both are made by what makes every bill, as of this moment's cut and with the newest catalog: what a close of this
moment would bill if nothing were used any more, and the same with usage as `billing_export.projection` expects it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.assemble import Assembly, CustomerWork
from billing_export.catalogs import Catalogs
from billing_export.cut import ledger_cut
from billing_export.money import format_amount
from billing_export.obstacles import obstacles
from billing_export.projection import ended, projected, until
from billing_export.readings import Answers, Ask, Reading, UsageReader, Used, read_answers
from billing_export.run import Run, next_run
from billing_export.scope import terms, terms_of
from billing_export.stocks import is_stock
from billing_export.suggest import fix_for
from metering import catalog_store
from schemas.catalog import AppliedCatalog
from schemas.errors import RequestError, RunError
from schemas.line_item import LineItem, LineKind
from schemas.period import billing_period_at, parse_label
from schemas.quantity import ZERO, add
from schemas.subscription_life import cadence_of, phases

_Read = dict[tuple[str, Reading], Sequence[Used]]


class PreviewLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line so far and projected; quantity and amount are null where there is no such line."""

    kind: LineKind
    subscription: str
    period: str
    charge: str
    reference: str
    description: str
    dimensions: dict[str, str]
    unit: str
    is_correction: bool
    quantity_so_far: str | None
    quantity_projected: str | None
    amount_so_far: str | None
    amount_projected: str | None
    currency: str


class PreviewTotal(msgspec.Struct, frozen=True, kw_only=True):
    """What the bill comes to in one currency."""

    currency: str
    so_far: str
    projected: str


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """The bill of a customer for one period. `elapsed` is the part of the period that is over, as a fraction.

    `warnings` say what a close of this moment would refuse.
    """

    customer: str
    customer_name: str
    period: str
    timezone: str
    start: datetime
    end: datetime
    now: datetime
    elapsed: str
    catalog_version: int
    lines: tuple[PreviewLine, ...]
    totals: tuple[PreviewTotal, ...]
    warnings: tuple[str, ...]


class Previewed(msgspec.Struct, frozen=True, kw_only=True):
    """A running bill with what it was made from: the run that a close of this moment would begin, and usage so far."""

    bill: Preview
    assembly: Assembly
    work: tuple[CustomerWork, ...]
    until_now: Answers


def preview(client: Client, customer: str, read_usage: UsageReader, *, now: datetime, label: str = "") -> list[Preview]:
    """The running bills of a customer: one for each period that subscriptions are in, or that of `label` alone.

    Raises as `previewed` does.
    """
    return [one.bill for one in previewed(client, customer, read_usage, now=now, label=label)]


def previewed(
    client: Client, customer: str, read_usage: UsageReader, *, now: datetime, label: str = ""
) -> list[Previewed]:
    """The bills that `preview` gives, each with what it was made from.

    Raises RequestError for a customer or a label that is none and for a period that has not begun; RunError when there
    is no catalog, nothing to bill, or a run that was begun and is not frozen.
    """
    catalog = catalog_store.latest(client)
    if catalog is None:
        raise RunError("no catalog was applied", where="preview", fix="Run `metering apply FILE` first")
    if customer not in catalog.customers:
        raise RequestError(
            f"there is no customer {customer!r}",
            where=f"catalog version {catalog.version}",
            fix=fix_for(customer, catalog.customers, "Use an id of the catalog's customers"),
        )
    if label:
        parse_label(label)
    log = runs.listed(client)
    for begun in log:
        if not begun.is_frozen:
            raise RunError(
                f"run {begun.id} was begun and is not frozen, and bills depend on those before",
                where="preview",
                fix=f"Finish it with `metering close --period {begun.period}`",
            )
    labels = [label] if label else _running(catalog, customer, now)
    return [_preview(client, catalog, customer, one, log=log, read_usage=read_usage, now=now) for one in labels]


def _running(catalog: AppliedCatalog, customer: str, now: datetime) -> list[str]:
    """The periods in which subscriptions of a customer are now, those that end first first."""
    timezone = catalog.customers[customer].timezone
    found = {}
    for subscription in catalog.subscriptions_of(customer):
        period = billing_period_at(cadence_of(catalog, subscription), now, timezone)
        if any(one.start <= now for one in phases(catalog, subscription, period)):
            found[period.label] = period.end
    if not found:
        raise RunError(
            f"no subscription of {customer} is in a period now",
            where=f"catalog version {catalog.version}",
            fix="Look at start and end of its subscriptions, or name a period with --period",
        )
    return sorted(found, key=lambda label: (found[label], label))


def _preview(
    client: Client,
    catalog: AppliedCatalog,
    customer: str,
    label: str,
    *,
    log: Sequence[Run],
    read_usage: UsageReader,
    now: datetime,
) -> Previewed:
    catalogs = Catalogs(client)
    of_period = [one for one in log if one.period == label]
    run = next_run(log, label, at=now, cut=ledger_cut(client), catalog_version=catalog.version, customers=(customer,))
    _check_terms(catalog, run, of_period, catalogs, now)
    assembly = Assembly(client, run, catalogs)
    part = assembly.part(0)
    until_now, to_the_end = _read(assembly, part, read_usage, now)
    lines = _side_by_side(assembly.lines(part, until_now), assembly.lines(part, to_the_end))
    period = next(one.period for one in terms(catalog, label, (customer,)))
    whole, over = period.end - period.start, min(now, period.end) - period.start
    bill = Preview(
        customer=customer,
        customer_name=catalog.customers[customer].name,
        period=label,
        timezone=period.timezone,
        start=period.start,
        end=period.end,
        now=now,
        elapsed=str(Fraction(int(over.total_seconds()), int(whole.total_seconds()))),
        catalog_version=catalog.version,
        lines=tuple(lines),
        totals=tuple(_totals(lines)),
        warnings=tuple(str(one) for one in obstacles(client, run, catalog, set())),
    )
    return Previewed(bill=bill, assembly=assembly, work=tuple(part), until_now=until_now)


def _check_terms(
    catalog: AppliedCatalog, run: Run, of_period: Sequence[Run], catalogs: Catalogs, now: datetime
) -> None:
    """Raise unless there is something of the period that was not billed, and it has begun."""
    [customer] = run.customers
    where = f"period {run.period}"
    held = terms(catalog, run.period, run.customers)
    if not held:
        raise RunError(
            f"no subscription of {customer} has any time in {run.period}",
            where=f"catalog version {catalog.version}",
            fix="Look at start and end of the subscriptions, and at the periods of their plans",
        )
    if all(one.period.start > now for one in held):
        raise RequestError("it has not begun", where=where, fix="Leave --period out for the running one")
    if not terms_of(run, of_period, catalogs.load):
        raise RunError(
            f"it was billed to {customer} already (run{'s' if len(of_period) > 1 else ''} "
            f"{', '.join(one.id for one in of_period)})",
            where=where,
            fix="Look at its lines with `metering export`, at one of them with `metering explain`",
        )


def _read(
    assembly: Assembly, part: Sequence[CustomerWork], read_usage: UsageReader, now: datetime
) -> tuple[_Read, _Read]:
    """What was used until now, and what will have been used."""
    until_now: _Read = {}
    to_the_end: _Read = {}
    cut = assembly.run.cut
    for customer, reading in {question: None for work in part for question in work.questions()}:
        catalog = assembly.catalogs.load(reading.catalog_version)
        meter = catalog.meters[reading.meter]
        past = until(reading, now)
        used = [] if past is None else [one for _, one in read_answers(read_usage, catalog, past, [customer], cut)]
        key = (customer, reading)
        if past == reading:
            until_now[key] = to_the_end[key] = used
        elif is_stock(meter):
            whole = [one for _, one in read_answers(read_usage, catalog, reading, [customer], cut)]
            until_now[key] = ended(used, now) if reading.ask is Ask.EVENTS else used
            to_the_end[key] = whole
        else:
            until_now[key] = used
            to_the_end[key] = projected(reading, meter.aggregation, used, now)
    return until_now, to_the_end


def _side_by_side(so_far: Sequence[LineItem], to_come: Sequence[LineItem]) -> list[PreviewLine]:
    """Lines of one id as one, in the order of the projected bill; those that it does not have come last."""
    now, later = {one.id: one for one in so_far}, {one.id: one for one in to_come}
    found = []
    for name in {**later, **now}:
        one, other = now.get(name), later.get(name)
        about = other or now[name]
        found.append(
            PreviewLine(
                kind=about.kind,
                subscription=about.subscription,
                period=about.period,
                charge=about.charge,
                reference=about.reference,
                description=about.description,
                dimensions=about.dimensions,
                unit=about.unit,
                is_correction=about.adjustment is not None,
                quantity_so_far=one.quantity if one else None,
                quantity_projected=other.quantity if other else None,
                amount_so_far=one.amount if one else None,
                amount_projected=other.amount if other else None,
                currency=about.currency,
            )
        )
    return found


def _totals(lines: Sequence[PreviewLine]) -> list[PreviewTotal]:
    sums: dict[str, tuple[Decimal, Decimal]] = {}
    for one in lines:
        so_far, to_come = sums.get(one.currency, (ZERO, ZERO))
        sums[one.currency] = (
            add(so_far, Decimal(one.amount_so_far or 0)),
            add(to_come, Decimal(one.amount_projected or 0)),
        )
    return [
        PreviewTotal(currency=currency, so_far=format_amount(so_far), projected=format_amount(to_come))
        for currency, (so_far, to_come) in sums.items()
    ]
