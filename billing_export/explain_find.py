"""Finds a frozen line by its id or the beginning of it, and the lines that it has to do with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.lines import root_id
from schemas.errors import RequestError, RunError
from schemas.line_item import LineItem, LineKind, decode_line_item

SHOWN_MAX: Final = 5
"""How many lines an error names."""

ID_DISTANCE_MAX: Final = 4
"""How many characters of an id may be mistyped for it to be suggested."""

_FIX: Final = "`metering close --json` and `metering export` print ids; the first characters are enough"


def find_line(client: Client, text: str) -> LineItem:
    """The frozen line with this id, or the only one whose id begins like that.

    Raises RequestError where there is none (naming what may have been meant) or more than one, RunError where its run
    is not frozen.
    """
    wanted = text.strip().lower()
    found = _documents(client, "startsWith(toString(id), {text:String})", text=wanted) if wanted else []
    if not found:
        raise _unknown(client, text.strip())
    by_id = {one.id: one for one in found}
    if len(by_id) > 1:
        raise RequestError(
            f"{'at least ' if len(by_id) > SHOWN_MAX else ''}{len(by_id)} line items begin with {wanted!r}",
            where="explain",
            fix=f"Give more of the id:{_listed(list(by_id.values()))}",
        )
    line = found[0]
    run = runs.by_id(client, line.run)
    if not run.is_frozen:
        raise RunError(
            f"run {run.id} of line {line.id} is being closed; its lines are not frozen yet",
            where="explain",
            fix=f"Run `metering close --period {run.period}`",
        )
    return line


def chain_of(client: Client, line: LineItem) -> tuple[LineItem, ...]:
    """The line, what it corrects, and what corrects it, oldest first."""
    held = _of_customer(
        client,
        line.customer,
        "kind = {kind:String} AND period = {period:String} AND subscription = {subscription:String} "
        "AND charge = {charge:String} AND plan = {plan:String}",
        kind=line.kind.value,
        period=line.period,
        subscription=line.subscription,
        charge=line.charge,
        plan=line.plan,
    )
    root = root_id(line)
    return tuple(sorted((one for one in held if root_id(one) == root), key=lambda one: one.revision))


def reductions_of(client: Client, line: LineItem) -> tuple[LineItem, ...]:
    """The discounts and credits that reduce a line."""
    return _of_customer(client, line.customer, "toString(reduces) = {id:String}", id=line.id)


def line_by_id(client: Client, line: LineItem, wanted: str) -> LineItem | None:
    """Another line of the same customer; None where there is none with this id."""
    return next(iter(_of_customer(client, line.customer, "toString(id) = {id:String}", id=wanted)), None)


def lines_of_bill(client: Client, line: LineItem) -> tuple[LineItem, ...]:
    """The lines of the same bill: of the same run, customer and currency."""
    return _of_customer(
        client,
        line.customer,
        "run = {run:String} AND currency = {currency:String}",
        run=line.run,
        currency=line.currency,
    )


def drawn_from(client: Client, line: LineItem, sequence: int) -> tuple[LineItem, ...]:
    """Everything that was drawn from a credit line's grant before it, in this run and in those before."""
    held = _of_customer(
        client,
        line.customer,
        "kind = 'credit' AND reference = {grant:String} AND sequence <= {sequence:UInt32}",
        grant=line.reference,
        sequence=sequence,
    )
    return held[: next((place for place, one in enumerate(held) if one.id == line.id), len(held))]


def forwarded_before(client: Client, line: LineItem, sequence: int) -> tuple[LineItem, ...]:
    """What earlier bills carried forward and brought forward."""
    return _of_customer(
        client,
        line.customer,
        "kind IN ({carried:String}, {brought:String}) AND currency = {currency:String} "
        "AND sequence < {sequence:UInt32}",
        carried=LineKind.CARRIED_FORWARD.value,
        brought=LineKind.BROUGHT_FORWARD.value,
        currency=line.currency,
        sequence=sequence,
    )


def _of_customer(client: Client, customer: str, which: str, **parameters: Any) -> tuple[LineItem, ...]:
    query = (
        "SELECT document FROM line_items FINAL "  # noqa: S608 - made of constants
        f"WHERE customer = {{customer:String}} AND {which} "
        "ORDER BY sequence, line_number, id SETTINGS use_skip_indexes_if_final = 1"
    )
    rows = client.query(query, {"customer": customer, **parameters}).result_rows
    return tuple(decode_line_item(row[0]) for row in rows)


def _documents(client: Client, which: str, order: str = "id", **parameters: Any) -> list[LineItem]:
    query = f"SELECT document FROM line_items FINAL WHERE {which} ORDER BY {order} LIMIT {SHOWN_MAX + 1}"  # noqa: S608 - constants
    return [decode_line_item(row[0]) for row in client.query(query, parameters).result_rows]


def _unknown(client: Client, text: str) -> RequestError:
    """No line has this id: perhaps a few of its characters are wrong, or it names a customer or a charge."""
    if not client.query("SELECT count() FROM line_items").result_rows[0][0]:
        return RequestError("nothing was closed yet", where="explain", fix="Run `metering close --period P` first")
    close = _documents(
        client,
        "length({text:String}) >= 34 AND editDistance(toString(id), {text:String}) <= {most:UInt32}",
        "editDistance(toString(id), {text:String}), id",
        text=text.lower(),
        most=ID_DISTANCE_MAX,
    )
    what = f"there is no line item {text!r}"
    if close:
        return RequestError(what, where="explain", fix=f"Did you mean{_listed(close)}")
    named = _documents(
        client, "{text:String} IN (customer, subscription, charge, run)", "sequence DESC, line_number, id", text=text
    )
    if named:
        return RequestError(what, where="explain", fix=f"The newest lines of {text!r} are{_listed(named)}")
    return RequestError(what, where="explain", fix=_FIX)


def _listed(lines: Sequence[LineItem]) -> str:
    shown = "".join(
        f"\n  {one.id}  {one.run}  {one.customer}  {one.kind.value} {one.charge or one.reference}  "
        f"{one.amount} {one.currency}"
        for one in lines[:SHOWN_MAX]
    )
    return shown + ("\n  …" if len(lines) > SHOWN_MAX else "")
