"""Keeps line items in ClickHouse: the document that is exported, and its fields as columns for analysts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import orjson
from clickhouse_connect.driver.client import Client

from billing_export.run import Run
from schemas.line_item import LineItem, encode_line_item

ROWS_AT_A_TIME: Final = 10_000

_OF_THE_ITEM: Final = (
    "id", "run", "revision", "corrects", "period", "timezone", "period_start", "period_end", "service_start",
    "service_end", "customer", "customer_name", "subscription", "plan", "charge", "model", "description", "unit",
    "dimensions", "quantity", "unit_amount", "amount_unrounded", "amount", "currency", "events_count", "digest",
    "catalog_version",
)  # fmt: skip
COLUMNS: Final = ("line_number", *_OF_THE_ITEM, "meter", "document")
_DECIMALS: Final = {"quantity": 12, "unit_amount": 12, "amount_unrounded": 24, "amount": 4}


class StoredLine(msgspec.Struct, frozen=True, kw_only=True):
    """A row of line_items: its document, and every column as text, as `stored_columns` gives them."""

    line_number: int
    document: str
    columns: dict[str, str | None]


def write_lines(client: Client, items: Sequence[LineItem], first_number: int) -> None:
    """Write lines, numbered from `first_number`. Writing the same lines again changes nothing.

    Sent as JSON text, because decimals of more than 28 digits do not survive the driver's own conversion for sure.
    """
    rows = []
    for number, item in enumerate(items, first_number):
        row: dict[str, Any] = {name: getattr(item, name) for name in _OF_THE_ITEM}
        times = {name: f"{value:%Y-%m-%d %H:%M:%S}" for name, value in row.items() if isinstance(value, datetime)}
        row |= times
        row |= {"line_number": number, "meter": item.meter or "", "document": encode_line_item(item).decode()}
        rows.append(orjson.dumps(row))
    if rows:
        client.raw_insert("line_items", list(COLUMNS), insert_block=b"\n".join(rows), fmt="JSONEachRow")


def stored_columns(item: LineItem, number: int) -> dict[str, str | None]:
    """The texts that the columns of a line must have, to compare with what is stored."""
    texts: dict[str, str | None] = {"line_number": str(number), "meter": item.meter or ""}
    for name in _OF_THE_ITEM:
        value = getattr(item, name)
        if isinstance(value, datetime):
            texts[name] = f"{value:%Y-%m-%d %H:%M:%S}"
        elif isinstance(value, dict):
            texts[name] = _map_text(value)
        elif name in _DECIMALS and value is not None:
            texts[name] = _padded(value, _DECIMALS[name])
        else:
            texts[name] = None if value is None else str(value)
    return texts


def read_lines(client: Client, run: Run) -> Iterator[StoredLine]:
    """The run's lines in their order, some at a time."""
    names = [name for name in COLUMNS if name != "document"]
    texts = ", ".join(_TEXT_OF.get(name, f"toString({name})") for name in names)
    query = (
        f"SELECT line_number, document, {texts} FROM line_items FINAL "  # noqa: S608 - made of constants
        "WHERE period = {period:String} AND run = {run:String} AND line_number >= {first:UInt64} "
        "ORDER BY line_number, id LIMIT {limit:UInt64} WITH TIES"
    )
    first = 0
    while True:
        parameters = {"period": run.period, "run": run.id, "first": first, "limit": ROWS_AT_A_TIME}
        rows = client.query(query, parameters).result_rows
        for row in rows:
            columns = dict(zip(names, row[2:], strict=True))
            columns["dimensions"] = _map_text(columns["dimensions"])
            yield StoredLine(line_number=row[0], document=row[1], columns=columns)
        if len(rows) < ROWS_AT_A_TIME:
            return
        first = rows[-1][0] + 1


def count_lines(client: Client, run: Run) -> int:
    """How many lines of the run are stored."""
    rows = client.query(
        "SELECT count() FROM line_items FINAL WHERE period = {period:String} AND run = {run:String}",
        {"period": run.period, "run": run.id},
    ).result_rows
    return int(rows[0][0])


def documents(client: Client, runs: Iterable[Run]) -> Iterator[str]:
    """The documents of some runs' lines, in order."""
    for run in runs:
        for line in read_lines(client, run):
            yield line.document


_TEXT_OF: Final = {
    "dimensions": "dimensions",
    **{name: f"toDecimalString({name}, {digits})" for name, digits in _DECIMALS.items()},
}


def _map_text(value: dict[str, str]) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _padded(text: str, digits: int) -> str:
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction:0<{digits}}"
