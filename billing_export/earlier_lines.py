"""Frozen lines of earlier runs, as far as a later run depends on them. All of it is cheap to ask for many customers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.event_store import time_text
from billing_export.run import Run
from schemas.corrections import VOIDED
from schemas.line_item import LineItem, decode_line_item

NAMES_AT_A_TIME: Final = 1_000

_BEFORE: Final = "FROM line_items FINAL WHERE sequence < {sequence:UInt32}"
_SETTINGS: Final = "SETTINGS use_skip_indexes_if_final = 1"


class Touched(msgspec.Struct, frozen=True, kw_only=True):
    """The times, first and last, of what became known, and of what was corrected of that."""

    first: datetime
    last: datetime
    corrected_first: datetime | None = None
    corrected_last: datetime | None = None

    def together_with(self, other: Touched) -> Touched:
        """Both as one."""
        return Touched(
            first=min(self.first, other.first),
            last=max(self.last, other.last),
            corrected_first=min(
                (one for one in (self.corrected_first, other.corrected_first) if one is not None), default=None
            ),
            corrected_last=max(
                (one for one in (self.corrected_last, other.corrected_last) if one is not None), default=None
            ),
        )


class LastBill(msgspec.Struct, frozen=True, kw_only=True):
    """The last run that has lines of a customer, and when the last usage that was billed ended, UTC."""

    sequence: int
    usage_end: datetime | None


def last_bills(client: Client, sequence: int) -> dict[str, LastBill]:
    """The last bill before a place in the log of runs, by customer."""
    rows = _rows(
        client,
        f"SELECT customer, max(sequence), maxOrNullIf(service_end, kind = 'usage') {_BEFORE} GROUP BY customer "
        f"{_SETTINGS}",
        sequence=sequence,
    )
    return {row[0]: LastBill(sequence=row[1], usage_end=row[2]) for row in rows}


def outstanding(client: Client, sequence: int) -> dict[tuple[str, str], Decimal]:
    """What earlier bills carried forward and none has brought forward yet, above zero, by customer and currency."""
    rows = _rows(
        client,
        f"SELECT customer, currency, toString(sum(amount)) {_BEFORE} "
        "AND kind IN ('carried_forward', 'brought_forward') GROUP BY customer, currency HAVING sum(amount) != 0 "
        f"{_SETTINGS}",
        sequence=sequence,
    )
    return {(row[0], row[1]): Decimal(row[2]) for row in rows}


def drawn(client: Client, sequence: int) -> dict[tuple[str, str], Decimal]:
    """What earlier bills drew from each grant of prepaid credit, by customer and grant: amounts above zero."""
    rows = _rows(
        client,
        f"SELECT customer, reference, toString(-sum(amount)) {_BEFORE} AND kind = 'credit' "
        f"GROUP BY customer, reference {_SETTINGS}",
        sequence=sequence,
    )
    return {(row[0], row[1]): Decimal(row[2]) for row in rows}


def lines_of(
    client: Client, sequence: int, customers: Sequence[str], *, flat_since: datetime | None = None
) -> Iterator[LineItem]:
    """Earlier lines of some customers that can be corrected, run by run.

    With `flat_since` flat charges and discounts of periods that end after it, and no others.
    """
    kinds = "('usage', 'flat', 'true_up', 'discount')" if flat_since is None else "('flat', 'discount')"
    since = "" if flat_since is None else "AND period_end > {since:DateTime('UTC')} "
    query = (
        f"SELECT document {_BEFORE} AND kind IN {kinds} AND customer >= {{first:String}} "
        f"AND customer <= {{last:String}} AND customer IN {{customers:Array(String)}} {since}"
        f"ORDER BY sequence, line_number, id {_SETTINGS}"
    )
    for place in range(0, len(customers), NAMES_AT_A_TIME):
        names = sorted(customers[place : place + NAMES_AT_A_TIME])
        parameters = {"sequence": sequence, "first": names[0], "last": names[-1], "customers": names}
        if flat_since is not None:
            parameters["since"] = f"{flat_since:%Y-%m-%d %H:%M:%S}"
        for row in client.query(query, parameters).result_rows:
            yield decode_line_item(row[0])


def customers_billed(client: Client, period: str) -> list[str]:
    """The customers that have lines in a run of the period."""
    rows = client.query(
        "SELECT DISTINCT customer FROM line_items WHERE run IN (SELECT run FROM runs WHERE period = {period:String}) "
        "ORDER BY customer",
        {"period": period},
    ).result_rows
    return [row[0] for row in rows]


def last_labels(client: Client) -> dict[str, str]:
    """The period of the last run that has lines of a customer, by customer."""
    rows = client.query(
        "SELECT customer, argMax(period_of_run, sequence) FROM line_items "
        "INNER JOIN (SELECT DISTINCT run, period AS period_of_run FROM runs) AS held USING (run) GROUP BY customer"
    ).result_rows
    return {row[0]: row[1] for row in rows}


def _rows(client: Client, query: str, **parameters: Any) -> Sequence[Sequence[Any]]:
    return client.query(query, parameters).result_rows


def touched(client: Client, since: Run, until: Run, before: datetime) -> list[tuple[str, Touched]]:
    """What became known of each subject, of times before `before`, between the cuts of two runs.

    Events that arrived, replacements among them, and events that were taken out. (subject, times), in any order.
    """
    if since.cut == until.cut:
        return []
    parameters = {
        "before": time_text(before),
        "until": [(one.epoch, one.partition, one.offset) for one in until.cut.positions],
        "since": [(one.epoch, one.partition, one.offset) for one in since.cut.positions],
    }
    arrived = (
        "SELECT subject, min(time), max(time) FROM events WHERE time < {before:DateTime64(6, 'UTC')} "  # noqa: S608 - constants
        f"AND type != '{VOIDED}' AND {_BETWEEN} GROUP BY subject"
    )
    taken_out = (
        "SELECT subject, min(event_time), max(event_time) FROM corrections FINAL "  # noqa: S608 - constants
        f"WHERE event_known AND event_time < {{before:DateTime64(6, 'UTC')}} AND event_type != '{VOIDED}' "
        f"AND {_BETWEEN} GROUP BY subject"
    )
    found = [(row[0], Touched(first=row[1], last=row[2])) for row in client.query(arrived, parameters).result_rows]
    for subject, first, last in client.query(taken_out, parameters).result_rows:
        one = Touched(first=first, last=last, corrected_first=first, corrected_last=last)
        found.append((subject, one))
    return found


_BETWEEN: Final = (
    "arrayExists(one -> one.1 = epoch AND one.2 = partition AND offset <= one.3, "
    "{until:Array(Tuple(String, UInt32, UInt64))}) "
    "AND NOT arrayExists(one -> one.1 = epoch AND one.2 = partition AND offset <= one.3, "
    "{since:Array(Tuple(String, UInt32, UInt64))})"
)
"""Beyond one cut, and within the other."""
