"""Frozen lines a page at a time, and their sums, as ClickHouse adds them up: for looking, not for proving."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.money import format_amount, round_amount
from schemas.line_item import LineItem, decode_line_item
from schemas.quantity import parse_quantity


class WhichLines(enum.Enum):
    """Which lines of a run to look at."""

    ALL = "all"
    ADJUSTMENTS = "adjustments"


class LinePage(msgspec.Struct, frozen=True, kw_only=True):
    """Some lines of a run in its order; `lines_count` is how many there are on all pages."""

    lines: tuple[LineItem, ...]
    lines_count: int


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of rounded amounts in one currency. `amount` is an exact decimal text."""

    run: str
    customer: str
    currency: str
    lines_count: int
    amount: str


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a run's deliveries to one target."""

    target: str
    accepted: int
    failed: int
    unanswered: int
    last_at: datetime


def line_page(
    client: Client,
    run: str,
    *,
    customer: str = "",
    which: WhichLines = WhichLines.ALL,
    first: int = 0,
    count: int = 100,
) -> LinePage:
    """The lines of a run from the one in place `first` on, of one customer unless that is empty."""
    where = (
        "run = {run:String} AND ({customer:String} = '' OR customer = {customer:String}) "
        "AND ({adjustments:UInt8} = 0 OR reason != '')"
    )
    parameters = {"run": run, "customer": customer, "adjustments": int(which is WhichLines.ADJUSTMENTS)}
    rows = client.query(
        f"SELECT document FROM line_items FINAL WHERE {where} ORDER BY line_number, id "  # noqa: S608 - constants
        "LIMIT {count:UInt32} OFFSET {first:UInt64} SETTINGS use_skip_indexes_if_final = 1",
        {**parameters, "first": first, "count": count},
    ).result_rows
    [(lines_count,)] = client.query(
        f"SELECT count() FROM line_items FINAL WHERE {where} SETTINGS use_skip_indexes_if_final = 1",  # noqa: S608
        parameters,
    ).result_rows
    return LinePage(lines=tuple(decode_line_item(row[0]) for row in rows), lines_count=lines_count)


def totals_by_run(client: Client, run_ids: Sequence[str], *, customer: str = "") -> list[Total]:
    """What each of some runs comes to by currency; of one customer unless that is empty."""
    return _totals(client, "run, '' AS who, currency", run_ids, customer)


def totals_by_customer(client: Client, run: str, *, customer: str = "", count: int = 100) -> list[Total]:
    """What a run comes to by customer and currency, the first `count` by customer."""
    return _totals(client, "run, customer AS who, currency", [run], customer, count=count)


def runs_of_customer(client: Client, customer: str) -> list[Total]:
    """What a customer was billed, by run and currency."""
    return _totals(client, "run, customer AS who, currency", None, customer)


def deliveries_of(client: Client, run: str) -> list[Delivered]:
    """What was sent where, by target; each key by its furthest state."""
    rows = client.query(
        """SELECT target, countIf(furthest = 'accepted'), countIf(furthest = 'failed'), countIf(furthest = 'sent'),
            max(last_at)
        FROM (
            SELECT target, key, argMax(state, (attempt, state != 'sent', at)) AS furthest, max(at) AS last_at
            FROM deliveries WHERE run = {run:String} GROUP BY target, key
        )
        GROUP BY target ORDER BY target""",
        {"run": run},
    ).result_rows
    return [
        Delivered(target=target, accepted=accepted, failed=failed, unanswered=unanswered, last_at=last_at)
        for target, accepted, failed, unanswered, last_at in rows
    ]


def _totals(client: Client, keys: str, run_ids: Sequence[str] | None, customer: str, *, count: int = 0) -> list[Total]:
    """One total for each combination of `keys`, which are run, who and currency; `count` 0 is all of them."""
    rows: Sequence[Sequence[Any]] = client.query(
        f"SELECT {keys}, count(), toString(sum(amount)) FROM line_items FINAL "  # noqa: S608 - constants of ours
        "WHERE ({everywhere:UInt8} OR run IN {runs:Array(String)}) "
        "AND ({customer:String} = '' OR customer = {customer:String}) "
        "GROUP BY run, who, currency ORDER BY run, who, currency "
        "LIMIT {count:UInt64} SETTINGS use_skip_indexes_if_final = 1",
        {
            "everywhere": int(run_ids is None),
            "runs": list(run_ids or ()),
            "customer": customer,
            "count": count or 10_000,
        },
    ).result_rows
    return [
        Total(
            run=run,
            customer=who,
            currency=currency,
            lines_count=lines_count,
            amount=format_amount(round_amount(parse_quantity(amount), currency)),
        )
        for run, who, currency, lines_count, amount in rows
    ]
