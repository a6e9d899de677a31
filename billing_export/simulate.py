"""What the same real usage would have cost under other plans: every customer's bill twice, side by side.

Both bills are made in the same way from the same reading of the usage: the charges of the period itself, in advance or
in arrears, what tops plans up, and discounts. Payments are no prices, so credits and what bills hand on are left out,
and so are corrections of other periods. Nothing is written.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.bill import TermWork, advance_lines, bill_of, term_work
from billing_export.catalogs import Catalogs
from billing_export.cut import ledger_cut
from billing_export.lines import Made
from billing_export.money import format_amount, round_amount
from billing_export.readings import CUSTOMERS_AT_A_TIME, Answers, Reading, UsageReader, Used, by_customers, read_answers
from billing_export.run import Run, RunKind, next_run
from billing_export.scope import Term, billed_before, terms, terms_of
from billing_export.simulate_plans import check_prices, simulated_catalog
from billing_export.simulate_records import CustomerSides, Side, SimulatedTotal, Simulation
from billing_export.suggest import fix_for
from metering import catalog_store
from schemas.catalog import AppliedCatalog
from schemas.errors import RequestError, RunError
from schemas.line_item import LineKind
from schemas.period import parse_label, period_of
from schemas.plan import Plan
from schemas.quantity import ZERO, add
from schemas.subscription_life import phases

_OF_A_CHARGE: Final = frozenset({LineKind.USAGE, LineKind.FLAT})


class _Basis(msgspec.Struct, frozen=True, kw_only=True):
    """Some terms of the period, with the cut and the catalog that they are billed by."""

    run: Run
    catalog: AppliedCatalog
    terms: tuple[Term, ...]


class _Sides(msgspec.Struct):
    """Amounts of one customer and currency while they are added up, and by charge."""

    present: Decimal
    simulated: Decimal
    charges: dict[str, tuple[Decimal, Decimal]]


def simulate(
    client: Client,
    read_usage: UsageReader,
    *,
    label: str,
    plans: Callable[[AppliedCatalog], Sequence[Plan]],
    replaced: Mapping[str, str] | None = None,
    customers: Collection[str] = (),
    now: datetime,
    on_progress: Callable[[int, int], None] = lambda _, __: None,
) -> Simulation:
    """Bill the period `label` with the plans of today and with others, for some customers or for all.

    What is frozen is taken with its run's cut and catalog, the rest as of now. `plans` gives the other plans, checked
    against a catalog's meters; `replaced` says for a present plan which of them stands for it, where the id is not the
    same. Memory grows with one small record a customer.
    Raises RequestError for names that are none and plans that cannot stand for each other; RunError when there is no
    catalog, nothing to bill, or a run of the period is unfinished.
    """
    parse_label(label)
    newest = catalog_store.latest(client)
    if newest is None:
        raise RunError("no catalog was applied", where="simulate", fix="Run `metering apply FILE` first")
    for one in customers:
        if one not in newest.customers:
            raise RequestError(
                f"there is no customer {one!r}",
                where=f"catalog version {newest.version}",
                fix=fix_for(one, newest.customers, "Use an id of the catalog's customers"),
            )
    bases = _bases(client, newest, label, customers, now)
    done, total = 0, sum(len(one.terms) for one in bases)
    found: list[CustomerSides] = []
    mapping: dict[str, str] = {}
    is_over = True
    for basis in bases:
        simulated, names = simulated_catalog(basis.catalog, plans(basis.catalog), replaced or {})
        mapping.update(names)
        check_prices(simulated, basis.terms, names)
        is_over = is_over and all(one.period.end <= now for one in basis.terms)
        for part in _parts(basis.terms):
            found += _side_by_side(basis, simulated, part, read_usage, has_charges=bool(customers))
            done += sum(len(held) for held in part.values())
            on_progress(done, total)
    found.sort(key=lambda one: (one.currency, -Decimal(one.difference), one.customer))
    return Simulation(
        period=label,
        runs=tuple(one.run.id for one in bases if one.run.is_frozen),
        is_frozen=all(one.run.is_frozen for one in bases),
        is_over=is_over,
        plans=mapping,
        customers=tuple(found),
        totals=tuple(_totals(found)),
    )


def _bases(
    client: Client, newest: AppliedCatalog, label: str, customers: Collection[str], now: datetime
) -> list[_Basis]:
    """What was billed, run by run, and what was not."""
    catalogs = Catalogs(client)
    log = runs.of_period(client, label)
    found: list[_Basis] = []
    for run in log:
        if not run.is_frozen:
            raise RunError(
                f"run {run.id} was begun and is not frozen",
                where=f"period {label}",
                fix=f"Finish it with `metering close --period {label}`",
            )
        held = terms_of(run, log, catalogs.load, tuple(customers)) if run.kind is RunKind.BILL else []
        if held:
            found.append(_Basis(run=run, catalog=catalogs.load(run.catalog_version), terms=tuple(held)))
    billed = billed_before(sys.maxsize, log, catalogs.load)
    left = [one for one in terms(newest, label, customers) if one.subscription.id not in billed]
    if left:
        present = next_run((), label, at=now, cut=ledger_cut(client), catalog_version=newest.version)
        found.append(_Basis(run=present, catalog=newest, terms=tuple(left)))
    if not found:
        whose = f" of {', '.join(customers)}" if customers else ""
        raise RunError(
            f"no subscription{whose} has any time in {label}",
            where=f"catalog version {newest.version}",
            fix="Look at start and end of the subscriptions, and at the periods of their plans",
        )
    if all(term.period.start > now for basis in found for term in basis.terms):
        raise RunError("it has not begun", where=f"period {label}", fix="Name a period that has usage")
    return found


def _parts(held: Sequence[Term]) -> list[dict[str, list[Term]]]:
    """The terms by customer, some customers at a time."""
    of_customer: dict[str, list[Term]] = {}
    for term in held:
        of_customer.setdefault(term.customer.id, []).append(term)
    names = list(of_customer)
    return [
        {name: of_customer[name] for name in names[place : place + CUSTOMERS_AT_A_TIME]}
        for place in range(0, len(names), CUSTOMERS_AT_A_TIME)
    ]


def _side_by_side(
    basis: _Basis,
    simulated: AppliedCatalog,
    part: Mapping[str, Sequence[Term]],
    read_usage: UsageReader,
    *,
    has_charges: bool,
) -> list[CustomerSides]:
    """The bills of some customers. What both plans ask of the usage is read once."""
    works = [
        {name: [term_work(catalog, term) for term in held] for name, held in part.items()}
        for catalog in (basis.catalog, simulated)
    ]
    asked = by_customers(
        (name, reading)
        for side in works
        for name, held in side.items()
        for work in held
        for one in work.priceables
        for reading in one.readings
    )
    answers: dict[tuple[str, Reading], list[Used]] = {}
    for reading, names in asked.items():
        for name, used in read_answers(read_usage, basis.catalog, reading, names, basis.run.cut):
            answers.setdefault((name, reading), []).append(used)
    found: list[CustomerSides] = []
    for name in part:
        present = _bill(basis.run, basis.catalog, works[0][name], answers)
        other = _bill(basis.run, simulated, works[1][name], answers)
        customer = basis.catalog.customers[name]
        for currency, sides in _sides(present, other).items():
            found.append(
                CustomerSides(
                    customer=name,
                    customer_name=customer.name,
                    currency=currency,
                    present=format_amount(sides.present),
                    simulated=format_amount(sides.simulated),
                    difference=format_amount(add(sides.simulated, -sides.present)),
                    charges=_charges(sides) if has_charges else (),
                )
            )
    return found


def _bill(run: Run, catalog: AppliedCatalog, works: Sequence[TermWork], answers: Answers) -> list[Made]:
    """The lines of a period: of its own charges, also of those that were billed in advance."""
    in_advance = [
        one
        for work in works
        for one in advance_lines(run, catalog, phases(catalog, work.term.subscription, work.term.period))
    ]
    period = period_of(run.period, works[0].term.customer.timezone)
    return list(bill_of(run, catalog, works, in_advance, answers, period=period))


def _sides(present: Sequence[Made], simulated: Sequence[Made]) -> dict[str, _Sides]:
    """The sums of both bills, by currency."""
    found: dict[str, _Sides] = {}
    for is_simulated, lines in ((False, present), (True, simulated)):
        for line in lines:
            item = line.item
            zero = round_amount(ZERO, item.currency)
            sides = found.setdefault(item.currency, _Sides(present=zero, simulated=zero, charges={}))
            of_what = f"{item.kind.value.replace('_', ' ')} {item.reference}"
            what = item.charge if item.kind in _OF_A_CHARGE else of_what
            now, then = sides.charges.get(what, (zero, zero))
            if is_simulated:
                sides.simulated = add(sides.simulated, line.amount)
                sides.charges[what] = (now, add(then, line.amount))
            else:
                sides.present = add(sides.present, line.amount)
                sides.charges[what] = (add(now, line.amount), then)
    return found


def _charges(sides: _Sides) -> tuple[Side, ...]:
    return tuple(
        Side(
            what=what,
            present=format_amount(now),
            simulated=format_amount(then),
            difference=format_amount(add(then, -now)),
        )
        for what, (now, then) in sides.charges.items()
    )


def _totals(found: Sequence[CustomerSides]) -> list[SimulatedTotal]:
    sums: dict[str, tuple[int, Decimal, Decimal]] = {}
    for one in found:
        count, present, simulated = sums.get(one.currency, (0, ZERO, ZERO))
        sums[one.currency] = (count + 1, add(present, Decimal(one.present)), add(simulated, Decimal(one.simulated)))
    return [
        SimulatedTotal(
            currency=currency,
            customers_count=count,
            present=format_amount(present),
            simulated=format_amount(simulated),
            difference=format_amount(add(simulated, -present)),
        )
        for currency, (count, present, simulated) in sorted(sums.items())
    ]
