"""Exports frozen lines to files: the same run gives the same bytes, and a file is there whole or not at all."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Final, Protocol

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.export_csv import csv_header, csv_rows
from billing_export.export_file import whole_file
from billing_export.export_focus import FocusOptions, check_options, focus_row
from billing_export.export_focus_files import FocusParquetFile, focus_csv_rows, focus_header
from billing_export.export_lines import Documents, Record, require_frozen
from billing_export.export_parquet import ParquetFile, TooManyDigitsError
from billing_export.money import format_amount
from billing_export.parallel import without_collector
from billing_export.run import Run
from schemas.errors import RunError
from schemas.quantity import ZERO, add

Chunk = tuple[Sequence[str], Sequence[Record]]
"""Some lines: their canonical documents, and the same as plain JSON values."""


class ExportFormat(enum.Enum):
    """How lines are written to a file."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    FOCUS = "focus"
    FOCUS_PARQUET = "focus-parquet"


FILE_NAMES: Final = {
    ExportFormat.CSV: "line_items.csv",
    ExportFormat.JSONL: "line_items.jsonl",
    ExportFormat.PARQUET: "line_items.parquet",
    ExportFormat.FOCUS: "focus.csv",
    ExportFormat.FOCUS_PARQUET: "focus.parquet",
}


class Total(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lines of one currency add up to, and of one customer where `customer` is given."""

    currency: str
    lines_count: int
    amount: str
    customer: str | None = None


class Totals:
    """Adds lines up by currency, and by customer on demand."""

    def __init__(self, *, by_customer: bool = False) -> None:
        self.lines_count = 0
        self._by_customer = by_customer
        self._sums: dict[tuple[str, str | None], tuple[int, Decimal]] = {}

    def reset(self) -> None:
        """Begin again from nothing."""
        self.lines_count = 0
        self._sums.clear()

    def count(self, records: Iterable[Mapping[str, str]]) -> None:
        """Add lines; reads `currency`, `amount` and `customer`."""
        for record in records:
            self.lines_count += 1
            amount = Decimal(record["amount"])
            self._add(record["currency"], None, amount)
            if self._by_customer:
                self._add(record["currency"], record["customer"], amount)

    def count_total(self, total: Total) -> None:
        """Add what was added up before, such as a customer's total."""
        self.lines_count += total.lines_count
        count, amount = self._sums.get((total.currency, None), (0, ZERO))
        self._sums[total.currency, None] = (count + total.lines_count, add(amount, Decimal(total.amount)))

    def of_all(self) -> tuple[Total, ...]:
        """A total for each currency, in text order."""
        return self._listed(lambda customer: customer is None)

    def of_customers(self) -> tuple[Total, ...]:
        """A total for each customer and currency, in text order; empty unless it was asked for."""
        return self._listed(lambda customer: customer is not None)

    def _add(self, currency: str, customer: str | None, amount: Decimal) -> None:
        count, total = self._sums.get((currency, customer), (0, ZERO))
        self._sums[currency, customer] = (count + 1, add(total, amount))

    def _listed(self, wanted: Callable[[str | None], bool]) -> tuple[Total, ...]:
        keys = sorted((customer or "", currency) for currency, customer in self._sums if wanted(customer))
        listed = []
        for customer, currency in keys:
            count, amount = self._sums[currency, customer or None]
            total = Total(currency=currency, lines_count=count, amount=format_amount(amount), customer=customer or None)
            listed.append(total)
        return tuple(listed)


def export_runs(client: Client, runs: Sequence[Run], export_format: ExportFormat, file: Path) -> int:
    """Write the lines of frozen runs to one file, run by run, and return how many there are.

    Raises RunError for a run that is not frozen, and when the file cannot be written.
    """
    for run in runs:
        require_frozen(run)
    totals = Totals()
    write_files(
        Several([Documents(client, run, read_ahead=True) for run in runs]), {export_format: file}, totals=totals
    )
    return totals.lines_count


class Several:
    """The chunks of some runs, one after the other."""

    def __init__(self, parts: Sequence[Iterable[Chunk]]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[Chunk]:
        for part in self._parts:
            yield from part


def write_files(
    chunks: Iterable[Chunk],
    files: Mapping[ExportFormat, Path],
    *,
    totals: Totals,
    focus: FocusOptions | None = None,
    on_lines: Callable[[int], None] = lambda _: None,
) -> None:
    """Write lines to several files in one pass, each whole or not at all, and add them up.

    `chunks` is read again from its beginning when a number turns out to need Parquet's wide decimals.
    Raises RunError when a file cannot be written, RequestError for FOCUS options that cannot be used.
    """
    if {ExportFormat.FOCUS, ExportFormat.FOCUS_PARQUET} & set(files):
        check_options(focus or FocusOptions(provider=""))
    try:
        _write(chunks, files, totals=totals, focus=focus, on_lines=on_lines, wide=False)
    except TooManyDigitsError:
        totals.reset()
        try:
            _write(chunks, files, totals=totals, focus=focus, on_lines=lambda _: None, wide=True)
        except TooManyDigitsError as error:
            raise RunError(
                f"a number has more digits than Parquet can hold ({error})", where="--to", fix="Export CSV or JSONL"
            ) from error


class _Writer(Protocol):
    def __call__(self, texts: Sequence[str], records: Sequence[Record]) -> object: ...


def _write(
    chunks: Iterable[Chunk],
    files: Mapping[ExportFormat, Path],
    *,
    totals: Totals,
    focus: FocusOptions | None,
    on_lines: Callable[[int], None],
    wide: bool,
) -> None:
    with ExitStack() as opened:
        parts = {one: opened.enter_context(whole_file(file)) for one, file in files.items()}
        with ExitStack() as inner:  # closed, and so flushed, before the files take their places
            writers = [_writer(inner, one, part, focus, wide=wide) for one, part in parts.items()]
            inner.enter_context(without_collector())
            for texts, records in chunks:
                for write in writers:
                    write(texts, records)
                totals.count(records)
                on_lines(len(texts))


def _writer(
    opened: ExitStack, export_format: ExportFormat, part: Path, focus: FocusOptions | None, *, wide: bool
) -> _Writer:
    """What writes chunks of lines to an open file of this format."""
    if export_format is ExportFormat.PARQUET:
        return opened.enter_context(ParquetFile(part, wide=wide)).write
    options = focus or FocusOptions(provider="")
    if export_format is ExportFormat.FOCUS_PARQUET:
        rows = opened.enter_context(FocusParquetFile(part, wide=wide))
        return lambda _, records: rows.write([focus_row(one, options) for one in records])
    if export_format is ExportFormat.JSONL:
        raw = opened.enter_context(part.open("wb"))
        return lambda texts, _: raw.write("".join(f"{text}\n" for text in texts).encode())
    out = opened.enter_context(part.open("w", encoding="utf-8", newline=""))
    if export_format is ExportFormat.CSV:
        out.write(csv_header())
        return lambda _, records: out.writelines(csv_rows(records))
    out.write(focus_header())
    return lambda _, records: out.writelines(focus_csv_rows(focus_row(one, options) for one in records))
