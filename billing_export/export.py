"""Exports frozen lines to a file: the same run gives the same bytes, and a file is there whole or not at all."""

from __future__ import annotations

import enum
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.line_store import documents
from billing_export.run import Run, RunState
from schemas.errors import RunError
from schemas.line_item import LineItem, decode_line_item

CSV_COLUMNS: Final = LineItem.__struct_fields__
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a spreadsheet take a cell for a formula; the last four are the full-width forms of the first four."""

NUMBER_COLUMNS: Final = frozenset(
    {"revision", "quantity", "unit_amount", "amount_unrounded", "amount", "events_count", "catalog_version"}
)
"""Columns that hold numbers of our own making: a leading minus is a sign there."""

_MUST_QUOTE: Final = re.compile(r'[",\r\n]')


class ExportFormat(enum.Enum):
    """How lines are written: a table with a header, or a JSON document a line."""

    CSV = "csv"
    JSONL = "jsonl"


def export_runs(client: Client, runs: Sequence[Run], export_format: ExportFormat, file: Path) -> int:
    """Write the lines of frozen runs to `file`, run by run, and return how many there are.

    Written beside it and then renamed, so that a crash leaves the old file or the new one.
    Raises RunError for a run that is not frozen, and when the file cannot be written.
    """
    for run in runs:
        if run.state is not RunState.CLOSED:
            raise RunError(
                f"run {run.id} is not frozen", where="runs", fix=f"Run `metering close --period {run.period}`"
            )
    texts = documents(client, runs)
    lines = csv_lines(texts) if export_format is ExportFormat.CSV else (f"{text}\n" for text in texts)
    written = write_atomically(file, lines)
    return written - 1 if export_format is ExportFormat.CSV else written


def csv_lines(texts: Iterable[str]) -> Iterator[str]:
    """The CSV (RFC 4180, with line feeds) of some line items' documents, header first."""
    yield _csv_line(CSV_COLUMNS)
    for text in texts:
        item = decode_line_item(text)
        yield _csv_line([_cell(name, getattr(item, name)) for name in CSV_COLUMNS])


def write_atomically(file: Path, lines: Iterable[str]) -> int:
    """Write UTF-8 lines to `file` by way of a temporary file beside it; returns how many. Raises RunError."""
    count = 0
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", newline="", dir=file.parent, prefix=f".{file.name}.", suffix=".part", delete=False
        ) as part:
            try:
                for line in lines:
                    part.write(line)
                    count += 1
                part.flush()
                os.fchmod(part.fileno(), 0o644)
                os.fsync(part.fileno())
                Path(part.name).replace(file)
            except BaseException:
                Path(part.name).unlink(missing_ok=True)
                raise
        # The rename itself is durable only once the folder is.
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise RunError(f"cannot be written: {error.strerror}", where=str(file), fix="Choose another --out") from error
    return count


def _csv_line(cells: Sequence[str]) -> str:
    """A row of RFC 4180 that ends with a line feed. Written here, because what `csv` quotes differs between Pythons."""
    return ",".join(_quoted(cell) if _MUST_QUOTE.search(cell) else cell for cell in cells) + "\n"


def _quoted(cell: str) -> str:
    doubled = cell.replace('"', '""')
    return f'"{doubled}"'


def _cell(name: str, value: object) -> str:
    """A field as text. A text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, (dict, tuple)):
        return msgspec.json.encode(value).decode()
    text = str(value)
    return f"'{text}" if name not in NUMBER_COLUMNS and text.startswith(FORMULA_STARTS) else text
