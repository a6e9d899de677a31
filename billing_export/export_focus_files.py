"""FOCUS rows as CSV and as Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from billing_export.export_csv import Cells, text_cell
from billing_export.export_focus import COLUMNS
from billing_export.export_focus_columns import DECIMAL, FOCUS_COLUMNS, TIME
from billing_export.export_parquet import NARROW_DIGITS, TooManyDigitsError

FocusRow = dict[str, str | None]

SCALE: Final = 24
"""Decimals of every number in the Parquet file."""


def focus_header() -> str:
    """The first line of the CSV file."""
    return ",".join(COLUMNS) + "\n"


def focus_csv_rows(rows: Iterable[FocusRow]) -> Iterator[str]:
    """A line for each row; null is an empty cell, and a text that a spreadsheet would run gets an apostrophe."""
    plain = [FOCUS_COLUMNS.get(name) in (DECIMAL, TIME) for name in COLUMNS]
    cells = [Cells(str if is_plain else text_cell).__getitem__ for is_plain in plain]
    for row in rows:
        yield ",".join([cell(value) for cell, value in zip(cells, row.values(), strict=True)]) + "\n"


class FocusParquetFile:
    """Writes FOCUS rows to a file, a row group for each chunk. Use as a context."""

    def __init__(self, path: Path, *, wide: bool = False) -> None:
        self._schema = focus_schema(wide=wide)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", compression_level=3)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, rows: Sequence[FocusRow]) -> None:
        """Add rows. Raises TooManyDigitsError when a number needs the wide type."""
        arrays = [_array(field, [row[field.name] for row in rows]) for field in self._schema]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=len(rows) or 1)


def focus_schema(*, wide: bool) -> pa.Schema:
    """The columns of the Parquet file."""
    decimal = pa.decimal256(76, SCALE) if wide else pa.decimal128(NARROW_DIGITS, SCALE)
    types = {DECIMAL: decimal, TIME: pa.timestamp("us", tz="UTC")}
    return pa.schema([pa.field(name, types.get(FOCUS_COLUMNS.get(name, ""), pa.string())) for name in COLUMNS])


def _array(field: pa.Field, values: Sequence[str | None]) -> pa.Array:
    if pa.types.is_timestamp(field.type):
        naive = pa.array([None if one is None else one.removesuffix("Z") for one in values], pa.string())
        return naive.cast(pa.timestamp("us")).cast(field.type)
    if pa.types.is_decimal(field.type):
        try:
            return pa.array([None if one is None else Decimal(one) for one in values], field.type)
        except pa.ArrowInvalid as error:
            raise TooManyDigitsError(f"{field.name}: {error}") from error
    return pa.array(values, field.type)
