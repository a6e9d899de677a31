"""Keeps line items in ClickHouse: the document that is exported, and its fields as columns for analysts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
import orjson
from clickhouse_connect.driver.client import Client

from billing_export.run import Run
from schemas.line_item import LineItem, encode_line_item

ROWS_AT_A_TIME: Final = 10_000

_OF_THE_ITEM: Final = (
    "id", "run", "revision", "corrects", "reference", "reduces", "period", "timezone", "period_start", "period_end",
    "service_start", "service_end", "customer", "customer_name", "external_ids", "subscription", "plan",
    "plan_version", "charge", "model", "description", "unit", "dimensions", "quantity", "unit_amount",
    "amount_unrounded", "amount", "currency", "tax_code", "terms_days", "events_count", "digest", "catalog_version",
)  # fmt: skip
_OF_THE_ADJUSTMENT: Final = ("quantity_before", "quantity_after", "amount_before", "amount_after")
COLUMNS: Final = ("line_number", "sequence", *_OF_THE_ITEM, "kind", "meter", *_OF_THE_ADJUSTMENT, "reason", "document")
_COLUMN_LIST: Final = list(COLUMNS)
_DECIMALS: Final = {
    "quantity": 12, "unit_amount": 12, "amount_unrounded": 24, "amount": 4, "quantity_before": 12,
    "quantity_after": 12, "amount_before": 4, "amount_after": 4,
}  # fmt: skip
_MAPS: Final = ("dimensions", "external_ids")

_INSERT: Final = {
    "input_format_skip_unknown_fields": 1,
    "input_format_null_as_default": 1,
    "date_time_input_format": "best_effort",
}
"""A row is the line's own document with a few columns more; what no column holds stays in `document` alone."""


class StoredLine(msgspec.Struct, frozen=True, kw_only=True):
    """A row of line_items: its document, and every column as text, as `stored_columns` gives them."""

    line_number: int
    document: str
    columns: dict[str, str | None]


class Row(NamedTuple):
    """A line that is ready to be stored but for its number: its document, and its other columns as JSON members."""

    document: bytes
    more: bytes


def rows_of(run: Run, items: Iterable[LineItem]) -> list[Row]:
    """The lines as rows.

    JSON text, because decimals of more than 28 digits do not survive the driver's own conversion for sure.
    """
    rows = []
    for item in items:
        document = encode_line_item(item)
        more: dict[str, Any] = {"sequence": run.sequence, "document": document.decode()}
        if item.adjustment is not None:
            more |= msgspec.structs.asdict(item.adjustment)
        rows.append(Row(document, orjson.dumps(more)[1:]))
    return rows


def write_rows(client: Client, rows: Sequence[Row], first_number: int) -> None:
    """Write lines, numbered from `first_number`. Writing them again changes nothing."""
    if not rows:
        return
    texts = [
        b'%b,"line_number":%d,%b' % (row.document[:-1], number, row.more)
        for number, row in enumerate(rows, first_number)
    ]
    client.raw_insert("line_items", _COLUMN_LIST, insert_block=b"\n".join(texts), fmt="JSONEachRow", settings=_INSERT)


def stored_columns(run: Run, item: LineItem, number: int) -> dict[str, str | None]:
    """The texts that the columns of a line must have, to compare with what is stored."""
    adjustment = {} if item.adjustment is None else msgspec.structs.asdict(item.adjustment)
    texts: dict[str, str | None] = {
        "line_number": str(number),
        "sequence": str(run.sequence),
        "kind": item.kind.value,
        "meter": item.meter or "",
        "reason": adjustment.get("reason", ""),
    }
    for name in (*_OF_THE_ITEM, *_OF_THE_ADJUSTMENT):
        value = adjustment.get(name) if name in _OF_THE_ADJUSTMENT else getattr(item, name)
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
    for row in _rows(client, run, f"line_number, document, {texts}"):
        columns = dict(zip(names, row[2:], strict=True))
        for name in _MAPS:
            columns[name] = _map_text(columns[name])
        yield StoredLine(line_number=row[0], document=row[1], columns=columns)


def documents(client: Client, runs: Iterable[Run]) -> Iterator[str]:
    """The documents of some runs' lines, in order."""
    for run in runs:
        for row in _rows(client, run, "line_number, document"):
            yield row[1]


def _rows(client: Client, run: Run, columns: str) -> Iterator[Sequence[Any]]:
    """The rows of a run by line number, which is the first of `columns`, some at a time."""
    query = (
        f"SELECT {columns} FROM line_items FINAL "  # noqa: S608 - made of constants
        "WHERE run = {run:String} AND line_number >= {first:UInt64} AND line_number < {last:UInt64} "
        "ORDER BY line_number, id SETTINGS use_skip_indexes_if_final = 1"
    )
    first: int | None = 0
    while first is not None:
        parameters = {"run": run.id, "first": first, "last": first + ROWS_AT_A_TIME}
        rows = client.query(query, parameters).result_rows
        yield from rows
        first = first + ROWS_AT_A_TIME if rows else _next_number(client, run, first)


def _next_number(client: Client, run: Run, first: int) -> int | None:
    """The next line number that is there; whatever stands in the table, reading comes to an end."""
    query = "SELECT minOrNull(line_number) FROM line_items WHERE run = {run:String} AND line_number >= {first:UInt64}"
    found = client.query(query, {"run": run.id, "first": first}).result_rows[0][0]
    return None if found is None else int(found)


def count_lines(client: Client, run: Run) -> int:
    """How many lines of the run are stored."""
    rows = client.query(
        "SELECT count() FROM line_items FINAL WHERE run = {run:String} SETTINGS use_skip_indexes_if_final = 1",
        {"run": run.id},
    ).result_rows
    return int(rows[0][0])


_TEXT_OF: Final = {
    **{name: name for name in _MAPS},
    **{name: f"toDecimalString({name}, {digits})" for name, digits in _DECIMALS.items()},
}


def _map_text(value: dict[str, str]) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _padded(text: str, digits: int) -> str:
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction:0<{digits}}"
