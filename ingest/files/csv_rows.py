"""CSV rows as events."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from operator import itemgetter
from typing import IO, Any, Final, cast

from ingest.files.events import UNREADABLE_ROW, EventMaker, FileEvent, RowProblem, number_json, string_json
from ingest.files.mapping import Mapping
from ingest.files.times import RowError
from schemas.errors import RequestError

CELLS_KEPT_MAX: Final = 50_000
"""How many cells of a column are remembered as JSON: most columns of most files repeat few texts."""


def csv_events(
    stream: io.BufferedIOBase, mapping: Mapping, maker: EventMaker, *, file: str, delimiter: str = ","
) -> Iterator[FileEvent | RowProblem]:
    """The events of a CSV file whose first line names the columns; blank lines are passed over.

    Raises RequestError when the header does not fit the mapping.
    """
    # Surrogates let one row with broken bytes be reported while the others still load.
    text = io.TextIOWrapper(cast("IO[bytes]", stream), encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _events(csv.reader(text, delimiter=delimiter, strict=True), mapping, maker, file)
    finally:
        # The stream belongs to the caller, and the wrapper would close it.
        text.detach()


def _events(rows: Any, mapping: Mapping, maker: EventMaker, file: str) -> Iterator[FileEvent | RowProblem]:
    columns = _header(rows, file)
    mapping.check_columns(columns, where=file)
    reader = _RowReader(columns, mapping, maker)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield RowProblem(file, rows.line_num, UNREADABLE_ROW, "", f"not valid CSV ({error})")
            continue
        if not row:
            continue
        try:
            event = reader.event_of(row)
        except RowError as error:
            yield RowProblem(file, rows.line_num, UNREADABLE_ROW, "", str(error))
        else:
            yield FileEvent(event, file, rows.line_num)


def _header(rows: Any, file: str) -> list[str]:
    try:
        columns: list[str] = next(rows)
    except StopIteration as error:
        raise RequestError("is empty, expected a header line", where=file) from error
    except csv.Error as error:
        raise RequestError(f"has no valid CSV header ({error})", where=file) from error
    return columns


class _RowReader:
    """Picks the cells of a row by position."""

    def __init__(self, columns: list[str], mapping: Mapping, maker: EventMaker) -> None:
        self._columns_count = len(columns)
        self._absent = frozenset(mapping.absent)
        # With one column more than needed, itemgetter always gives a tuple.
        self._pick = itemgetter(*[columns.index(column) for column in maker.columns], 0)
        numbers = frozenset(mapping.number_columns)
        self._data = [
            (columns.index(column), _Members(column, is_number=column in numbers, absent=self._absent))
            for column in mapping.data_columns_of(columns)
        ]
        self._maker = maker

    def event_of(self, row: list[str]) -> bytes:
        if len(row) != self._columns_count:
            raise RowError(f"has {len(row)} cells, the header has {self._columns_count}")
        absent = self._absent
        cells: tuple[str | None, ...] = self._pick(row)[:-1]
        if not absent.isdisjoint(cells):
            cells = tuple([None if text in absent else text for text in cells])
        return self._maker.event_of(cells, filter(None, [members[row[at]] for at, members in self._data]))


class _Members(dict[str, bytes]):
    """The JSON member that each cell of a column makes; none for an absent one."""

    def __init__(self, column: str, *, is_number: bool, absent: frozenset[str]) -> None:
        super().__init__(dict.fromkeys(absent, b""))
        self._column = column
        self._key = string_json(column) + b":"
        self._is_number = is_number
        self._absent = absent

    def __missing__(self, text: str) -> bytes:
        """Raise RowError for a cell that makes none."""
        member = self._key + (number_json(self._column, text) if self._is_number else string_json(text))
        if len(self) >= CELLS_KEPT_MAX:
            self.clear()
            self.update(dict.fromkeys(self._absent, b""))
        self[text] = member
        return member
