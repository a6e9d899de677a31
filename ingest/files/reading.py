"""Reads a file of any supported format as events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ingest.files.csv_rows import csv_events
from ingest.files.events import EventMaker, FileEvent, RowProblem
from ingest.files.jsonl_rows import jsonl_events
from ingest.files.mapping import Mapping
from ingest.files.opening import BROKEN_FILE, ProgressCallback, open_plain, plain_suffix
from ingest.files.parquet_rows import parquet_events
from schemas.errors import RequestError

FORMATS: Final[dict[str, str]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
"""Format by suffix."""


class FileReader:
    """Reads files with one mapping, and counts what its time rules did. `format_` overrides what a suffix says."""

    def __init__(self, mapping: Mapping | None, *, format_: str = "", delimiter: str = "") -> None:
        """Raise RequestError for a mapping or a delimiter that cannot be used."""
        if len(delimiter) > 1:
            raise RequestError("the delimiter must be one character", where="--delimiter")
        self._mapping = mapping
        self._format = format_
        self._delimiter = delimiter
        self._maker = EventMaker(mapping) if mapping else None

    @property
    def times_ambiguous(self) -> int:
        """Rows whose local time happened twice and was taken as the first."""
        return self._maker.times.ambiguous if self._maker else 0

    @property
    def times_skipped(self) -> int:
        """Rows whose local time never happened and was moved forward."""
        return self._maker.times.skipped if self._maker else 0

    def read(self, path: Path, on_bytes: ProgressCallback | None = None) -> Iterator[FileEvent | RowProblem]:
        """The file's events and the rows that make none, in order, in constant memory.

        Raises RequestError for a file that cannot be read, also in the middle of it when it is damaged or cut off.
        """
        try:
            yield from self._read(path, on_bytes)
        except BROKEN_FILE as error:
            raise RequestError(
                f"is damaged or no {path.suffix} file ({str(error) or 'it was cut off'})",
                where=str(path),
                fix="Get the file again; what was loaded until here counts once when it is loaded again",
            ) from error

    def _read(self, path: Path, on_bytes: ProgressCallback | None) -> Iterator[FileEvent | RowProblem]:
        format_ = self._format or FORMATS.get(plain_suffix(path), "")
        if format_ not in FORMATS.values():
            raise RequestError(
                "the suffix does not tell the format", where=str(path), fix="Give --format csv, jsonl or parquet"
            )
        if format_ == "jsonl":
            with open_plain(path, on_bytes) as stream:
                yield from jsonl_events(stream, self._mapping, self._maker, file=str(path))
            return
        if self._mapping is None or self._maker is None:
            raise RequestError(
                f"a {format_} file needs a mapping",
                where=str(path),
                fix="Give --type, --source, --subject-column, --time and --id-columns",
            )
        if format_ == "parquet":
            yield from parquet_events(path, self._mapping, self._maker, on_bytes=on_bytes)
            return
        delimiter = self._delimiter or ("\t" if plain_suffix(path) == ".tsv" else ",")
        with open_plain(path, on_bytes) as stream:
            yield from csv_events(stream, self._mapping, self._maker, file=str(path), delimiter=delimiter)
