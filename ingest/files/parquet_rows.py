"""Parquet rows as events, read row group by row group.

Integers and decimals keep their value to the last digit. A binary float is written as the shortest decimal that reads
back as the same float: 0.1 stays 0.1, and a sum that became 0.30000000000000004 has too many decimals, so that the
gateway refuses it instead of somebody rounding it.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ingest.files.events import UNREADABLE_ROW, EventMaker, FileEvent, RowProblem, number_json, string_json
from ingest.files.mapping import Mapping
from ingest.files.opening import ProgressCallback
from ingest.files.times import RowError
from schemas.errors import RequestError
from schemas.quantity import format_quantity

BATCH_ROWS: Final = 10_000


def parquet_events(
    path: Path, mapping: Mapping, maker: EventMaker, *, on_bytes: ProgressCallback | None = None
) -> Iterator[FileEvent | RowProblem]:
    """The events of a Parquet file. Raises RequestError when it is none, or does not fit the mapping."""
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise RequestError(f"is no Parquet file that can be read ({error})", where=str(path)) from error
    with file:
        columns = list(file.schema_arrow.names)
        mapping.check_columns(columns, where=str(path))
        data_columns = mapping.data_columns_of(columns)
        wanted = list(dict.fromkeys([*maker.columns, *data_columns]))
        rows = _Rows(mapping, maker, data_columns, str(path))
        size_bytes, rows_count = path.stat().st_size, max(1, file.metadata.num_rows)
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted):
            yield from rows.events_of(batch)
            if on_bytes:
                on_bytes(size_bytes * batch.num_rows // rows_count)


class _Rows:
    """Turns record batches into events, column by column first, then row by row."""

    def __init__(self, mapping: Mapping, maker: EventMaker, data_columns: tuple[str, ...], file: str) -> None:
        self._absent = frozenset(mapping.absent)
        self._numbers = frozenset(mapping.number_columns)
        self._data_columns = data_columns
        self._maker = maker
        self._file = file
        self._row = 0

    def events_of(self, batch: Any) -> Iterator[FileEvent | RowProblem]:
        texts = {name: self._texts_of(batch.column(name), name) for name in batch.schema.names}
        kinds = [self._kind_of(name, batch.schema.field(name).type) for name in self._data_columns]
        keys = [string_json(name) + b":" for name in self._data_columns]
        cells_of_rows = zip(*[texts[name] for name in self._maker.columns], strict=True)
        data_of_rows = zip(*[texts[name] for name in self._data_columns], strict=True)
        for cells, values in zip(cells_of_rows, data_of_rows if self._data_columns else repeat(()), strict=False):
            self._row += 1
            try:
                data = [
                    key + _value_json(name, text, kind)
                    for name, key, kind, text in zip(self._data_columns, keys, kinds, values, strict=True)
                    if text is not None
                ]
                event = self._maker.event_of(cells, data)
            except RowError as error:
                yield RowProblem(self._file, self._row, UNREADABLE_ROW, "", str(error))
            else:
                yield FileEvent(event, self._file, self._row)

    def _texts_of(self, column: Any, name: str) -> list[str | None]:
        absent = self._absent
        return [None if text in absent else text for text in _texts(column, name, self._file)]

    def _kind_of(self, name: str, type_: Any) -> str:
        return "number" if name in self._numbers else _kind(type_)


def _value_json(column: str, text: str, kind: str) -> bytes:
    if kind == "number":
        return number_json(column, text)
    return text.encode() if kind == "boolean" else string_json(text)


def _kind(type_: Any) -> str:
    if pa.types.is_boolean(type_):
        return "boolean"
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "number"
    return "text"


def _texts(column: Any, name: str, where: str) -> list[str | None]:
    """A column's cells as text; times with a zone as UTC with a `Z`."""
    type_ = column.type
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        utc = pc.cast(column, pa.timestamp(type_.unit, "UTC"))
        naive: list[str | None] = pc.cast(pc.local_timestamp(utc), pa.string()).to_pylist()
        return [None if text is None else f"{text}Z" for text in naive]
    if pa.types.is_decimal(type_):
        decimals: list[Decimal | None] = column.to_pylist()
        return [None if one is None else format_quantity(one) for one in decimals]
    try:
        texts: list[str | None] = pc.cast(column, pa.string()).to_pylist()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise RequestError(
            f"column {name} has the type {type_}, which cannot be part of an event",
            where=where,
            fix="Leave it out with --data-columns",
        ) from error
    return texts
