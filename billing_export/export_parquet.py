"""Line items as Parquet: decimals exact, times in UTC, and the canonical document of every line beside its columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Self

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from billing_export.export_csv import DECIMAL_COLUMNS, INTEGER_COLUMNS, JSON_COLUMNS, OPTIONAL_COLUMNS
from billing_export.export_lines import Record
from schemas.line_item import LineItem

SCALES: Final = {"quantity": 12, "unit_amount": 24, "amount_unrounded": 24, "amount": 4}
"""Decimals of each column. Where a value has more digits than its type holds, the wider type is taken."""
TIER_SCALES: Final = {"from": 12, "up_to": 12, "quantity": 12, "unit_amount": 24, "flat_amount": 24, "amount": 24}
ADJUSTMENT_SCALES: Final = {"quantity_before": 12, "quantity_after": 12, "amount_before": 24, "amount_after": 24}

NARROW_DIGITS: Final = 38
"""Decimal128, which every reader takes exactly."""
WIDE_DIGITS: Final = 76
"""Decimal256, for a file that has a value which needs it; DuckDB reads such a column as floating point."""

TIME_COLUMNS: Final = frozenset({"period_start", "period_end", "service_start", "service_end"})
DOCUMENT: Final = "document"

_MAP: Final = pa.map_(pa.string(), pa.string())


class TooManyDigitsError(ValueError):
    """A value does not fit the column's narrow type; the file must be begun again with wide ones."""


class ParquetFile:
    """Writes documents to a file, a row group for each chunk; the same lines give the same bytes. Use as a context."""

    def __init__(self, path: Path, *, wide: bool = False) -> None:
        self._schema = schema(wide=wide)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", compression_level=3)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, texts: Sequence[str], records: Sequence[Record]) -> None:
        """Add lines. Raises TooManyDigitsError when a decimal needs the wide type."""
        self._writer.write_table(table(texts, records, self._schema), row_group_size=len(texts) or 1)


def schema(*, wide: bool) -> pa.Schema:
    """The columns: those of a line item in their order, and `document`."""
    digits = WIDE_DIGITS if wide else NARROW_DIGITS
    fields = [pa.field(name, _type(name, digits), nullable=_nullable(name)) for name in LineItem.__struct_fields__]
    return pa.schema([*fields, pa.field(DOCUMENT, pa.string(), nullable=False)])


def table(texts: Sequence[str], records: Sequence[Record], columns: pa.Schema) -> pa.Table:
    """The lines as a table with these columns. Raises TooManyDigitsError."""
    arrays = []
    for field in columns:
        if field.name == DOCUMENT:
            arrays.append(pa.array(texts, field.type))
        else:
            arrays.append(_array(field, [record[field.name] for record in records]))
    return pa.Table.from_arrays(arrays, schema=columns)


def read_parquet(file: Path) -> Iterator[tuple[bytes, bool]]:
    """Every line's document, and whether the columns beside it say the same. Raises ValueError for another file."""
    with pq.ParquetFile(file) as source:
        found = source.schema_arrow
        if found not in (schema(wide=False), schema(wide=True)):
            raise ValueError("its columns are not those of line items")
        for group in range(source.num_row_groups):
            read = source.read_row_group(group)
            texts = read.column(DOCUMENT).to_pylist()
            expected = table(texts, [orjson.loads(text) for text in texts], found)
            same = read.equals(expected)
            for text in texts:
                yield text.encode(), same


def _type(name: str, digits: int) -> pa.DataType:
    if name in DECIMAL_COLUMNS:
        return _decimal(digits, SCALES[name])
    if name in INTEGER_COLUMNS:
        return pa.int64()
    if name in TIME_COLUMNS:
        return pa.timestamp("us", tz="UTC")
    if name == "tiers":
        return pa.list_(pa.struct([(one, _decimal(digits, scale)) for one, scale in TIER_SCALES.items()]))
    if name == "adjustment":
        parts = [(one, _decimal(digits, scale)) for one, scale in ADJUSTMENT_SCALES.items()]
        return pa.struct([*parts, ("reason", pa.string())])
    return _MAP if name in JSON_COLUMNS else pa.string()


def _nullable(name: str) -> bool:
    return name in OPTIONAL_COLUMNS


def _decimal(digits: int, scale: int) -> pa.DataType:
    return pa.decimal128(digits, scale) if digits <= NARROW_DIGITS else pa.decimal256(digits, scale)


def _array(field: pa.Field, values: list[Any]) -> pa.Array:
    if pa.types.is_timestamp(field.type):
        # Arrow reads ISO 8601 without a zone; every time of a line is UTC and says so with a Z.
        naive = pa.array([value.removesuffix("Z") for value in values], pa.string()).cast(pa.timestamp("us"))
        return naive.cast(field.type)
    if pa.types.is_map(field.type):
        return pa.array([list(value.items()) for value in values], field.type)
    if field.name in DECIMAL_COLUMNS:
        values = [value if value is None else Decimal(value) for value in values]
    elif field.name == "tiers":
        values = [[_decimals(one, TIER_SCALES) for one in value] for value in values]
    elif field.name == "adjustment":
        values = [value if value is None else _decimals(value, ADJUSTMENT_SCALES) for value in values]
    try:
        return pa.array(values, field.type)
    except pa.ArrowInvalid as error:
        raise TooManyDigitsError(f"{field.name}: {error}") from error


def _decimals(value: dict[str, Any], scales: dict[str, int]) -> dict[str, Any]:
    return {name: Decimal(one) if name in scales and one is not None else one for name, one in value.items()}
