"""What lines follow from that have no usage of their own: discounts, credits, and what bills hand on to each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.catalogs import Catalogs
from billing_export.explain_find import drawn_from, forwarded_before, line_by_id, lines_of_bill
from billing_export.explain_records import Basis, relation_of, sum_of
from billing_export.money import format_amount
from billing_export.run import Run
from schemas.catalog import AppliedCatalog
from schemas.charges import Discount
from schemas.line_item import LineItem, LineKind
from schemas.quantity import add, format_quantity


class Based(msgspec.Struct, frozen=True, kw_only=True):
    """Sentences, and the lines that they are about."""

    notes: tuple[str, ...] = ()
    bases: tuple[Basis, ...] = ()

    @staticmethod
    def of_lines(what: str, lines: Sequence[LineItem]) -> Basis:
        """Lines with their sum."""
        return Basis(
            what=what, lines=tuple(relation_of(one) for one in lines), total=format_amount(sum_of(tuple(lines)))
        )


def based_on(client: Client, run: Run, catalogs: Catalogs, line: LineItem) -> Based:
    """What a line follows from; nothing for one of a charge."""
    match line.kind:
        case LineKind.DISCOUNT:
            return _discount(client, catalogs.load(line.catalog_version), line)
        case LineKind.CREDIT:
            return _credit(client, run, catalogs.load(run.catalog_version), line)
        case LineKind.CARRIED_FORWARD:
            return _carried(client, line)
        case LineKind.BROUGHT_FORWARD:
            return _brought(client, run, line)
        case LineKind.USAGE | LineKind.FLAT | LineKind.TRUE_UP:
            return Based()


def _discount(client: Client, catalog: AppliedCatalog, line: LineItem) -> Based:
    reduced = line_by_id(client, line, line.reduces or "")
    bill = lines_of_bill(client, line)
    place = next((at for at, one in enumerate(bill) if one.id == line.id), len(bill))
    earlier = [one for one in bill[:place] if one.kind is LineKind.DISCOUNT and one.reduces == line.reduces]
    others = [
        one for one in bill if one.kind is LineKind.DISCOUNT and one.reference == line.reference and one.id != line.id
    ]
    notes: list[str] = []
    found = _definition(catalog, line)
    if found is not None:
        discount, whose = found
        size = (
            f"{format_quantity(discount.percent)} percent"
            if discount.percent is not None
            else (f"{format_quantity(discount.amount or Decimal(0))} {line.currency}")
        )
        notes.append(f"Discount {discount.id} takes {size} off, {whose}.")
    bases: list[Basis] = []
    if reduced is not None:
        left = add(Decimal(reduced.amount), sum_of(tuple(earlier)))
        notes.append(
            f"It reduces line {reduced.id}, of which {format_amount(left)} was left, by "
            f"{format_amount(-Decimal(line.amount))}."
        )
        bases.append(Based.of_lines("the line it reduces", [reduced]))
    if earlier:
        bases.append(Based.of_lines("discounts taken off that line before", earlier))
    if others:
        bases.append(Based.of_lines("the same discount on other lines of the bill", others))
    return Based(notes=tuple(notes), bases=tuple(bases))


def _definition(catalog: AppliedCatalog, line: LineItem) -> tuple[Discount, str] | None:
    """The discount as the catalog has it, and for what it was given."""
    customer = catalog.customers.get(line.customer)
    subscription = catalog.subscriptions.get(line.subscription)
    given: list[tuple[Iterable[Discount], str]] = []
    if subscription is not None and line.plan:
        prices = catalog.price_list(catalog.plan_version(line.plan, line.plan_version), line.currency)
        charges = {one.id: one for one in (*prices.charges, *subscription.overrides)}
        if line.charge in charges:
            given.append((charges[line.charge].discounts, f"given for charge {line.charge}"))
        given.append((prices.discounts, f"given for plan {line.plan}"))
        given.append((subscription.discounts, f"given for subscription {line.subscription}"))
    if customer is not None:
        given.append((customer.discounts, "given for the whole bill"))
    return next(((one, whose) for discounts, whose in given for one in discounts if one.id == line.reference), None)


def _credit(client: Client, run: Run, catalog: AppliedCatalog, line: LineItem) -> Based:
    earlier = drawn_from(client, line, run.sequence)
    paid = line_by_id(client, line, line.reduces or "")
    customer = catalog.customers.get(line.customer)
    grant = next((one for one in customer.credits if one.id == line.reference), None) if customer else None
    notes: list[str] = []
    if grant is not None:
        before = add(grant.amount, sum_of(earlier))
        expires = f", until {grant.expires}" if grant.expires else ""
        notes.append(
            f"Grant {grant.id} of {format_quantity(grant.amount)} {grant.currency} from {grant.start}{expires}, "
            f"priority {grant.priority}: {format_quantity(before)} was left, {format_amount(-Decimal(line.amount))} "
            f"was drawn, {format_quantity(add(before, Decimal(line.amount)))} is left."
        )
    bases = [Based.of_lines("the line it pays for", [paid])] if paid is not None else []
    if earlier:
        bases.append(Based.of_lines("drawn from the grant before", earlier))
    return Based(notes=tuple(notes), bases=tuple(bases))


def _carried(client: Client, line: LineItem) -> Based:
    others = [one for one in lines_of_bill(client, line) if one.id != line.id]
    return Based(
        notes=("The other lines of the bill come to less than nothing; this takes the bill to zero.",),
        bases=(Based.of_lines("the other lines of the bill", others),),
    )


def _brought(client: Client, run: Run, line: LineItem) -> Based:
    return Based(
        notes=("What earlier bills carried forward and no bill since has used is used by this one.",),
        bases=(Based.of_lines("carried and brought forward before", forwarded_before(client, line, run.sequence)),),
    )
