"""Line items as CSV (RFC 4180, with line feeds), harmless in a spreadsheet, and back without loss."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from schemas.line_item import LineItem, decode_line_item, encode_line_item

CSV_COLUMNS: Final = LineItem.__struct_fields__

FORMULA_STARTS: Final = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What makes a spreadsheet take a cell for a formula; the last four are the full-width forms of the first four."""

DECIMAL_COLUMNS: Final = frozenset({"quantity", "unit_amount", "amount_unrounded", "amount"})
INTEGER_COLUMNS: Final = frozenset({"revision", "plan_version", "terms_days", "events_count", "catalog_version"})
JSON_COLUMNS: Final = frozenset({"adjustment", "external_ids", "dimensions", "tiers"})
OPTIONAL_COLUMNS: Final = frozenset({"corrects", "adjustment", "reduces", "meter", "unit_amount", "terms_days"})
"""Columns whose empty cell is null; an empty cell of another column is an empty text."""

_GUARDED: Final = FORMULA_STARTS | {"'"}
"""Texts that get an apostrophe in front. One that begins with an apostrophe gets one too, so that it can be undone."""

_MUST_QUOTE: Final = re.compile(r'[",\r\n]')
_CELLS_KEPT_MAX: Final = 10_000


def csv_header() -> str:
    """The first line of the file."""
    return ",".join(CSV_COLUMNS) + "\n"


def csv_rows(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A row for each document that was read as plain JSON values."""
    cells = [(name, _cell_of(name)) for name in CSV_COLUMNS]
    for record in records:
        yield ",".join([make(record[name]) for name, make in cells]) + "\n"


def read_csv(file: Path) -> Iterator[bytes]:
    """The canonical document of every row. Raises ValueError for a file that no export wrote."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines, strict=True)
        header = next(rows, [])
        if header != list(CSV_COLUMNS):
            raise ValueError(f"its header is not that of line items: {', '.join(header)[:200]}")
        for row in rows:
            if len(row) != len(CSV_COLUMNS):
                raise ValueError(f"row {rows.line_num} has {len(row)} cells, expected {len(CSV_COLUMNS)}")
            yield canonical({name: _value(name, cell) for name, cell in zip(CSV_COLUMNS, row, strict=True)})


def canonical(record: Mapping[str, Any]) -> bytes:
    """The canonical document of a line's plain values. Raises msgspec.ValidationError, a ValueError."""
    return encode_line_item(decode_line_item(orjson.dumps(record)))


def text_cell(text: str) -> str:
    """A text that a spreadsheet shows and never runs."""
    guarded = f"'{text}" if text[:1] in _GUARDED and text else text
    return quoted(guarded) if _MUST_QUOTE.search(guarded) else guarded


def quoted(cell: str) -> str:
    """The cell in quotation marks. Done here, because what `csv` puts in quotes differs between Pythons."""
    doubled = cell.replace('"', '""')
    return f'"{doubled}"'


class Cells(dict[str | None, str]):
    """The cells of a column's values, made when they are asked for. Values repeat, so most are only looked up."""

    def __init__(self, make: Callable[[str], str]) -> None:
        super().__init__({None: ""})
        self._make = make

    def __missing__(self, value: str) -> str:
        made = self._make(value)
        if len(self) < _CELLS_KEPT_MAX:
            self[value] = made
        return made


def _cell_of(name: str) -> Callable[[Any], str]:
    """How a column's values become cells."""
    if name in JSON_COLUMNS:
        return _json_cell
    if name in DECIMAL_COLUMNS:
        return Cells(str).__getitem__
    if name in INTEGER_COLUMNS:
        return lambda value: "" if value is None else str(value)
    return Cells(text_cell).__getitem__


def _json_cell(value: Any) -> str:
    if value is None:
        return ""
    if not value:
        return "{}" if isinstance(value, dict) else "[]"
    return quoted(orjson.dumps(value).decode())


def _value(name: str, cell: str) -> Any:
    if not cell and name in OPTIONAL_COLUMNS:
        return None
    if name in JSON_COLUMNS:
        return orjson.loads(cell)
    if name in INTEGER_COLUMNS:
        return int(cell)
    if name in DECIMAL_COLUMNS:
        return cell
    return cell[1:] if cell[:1] == "'" else cell
