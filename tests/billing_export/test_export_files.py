"""Exported files: the same bytes every time, whole or not at all, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import stat
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import duckdb
import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from billing_export.export import ExportFormat, Totals, export_runs, write_files
from billing_export.export_csv import csv_header, csv_rows, read_csv
from billing_export.export_file import remove_abandoned, whole_file, write_atomically
from billing_export.export_focus import FocusOptions
from billing_export.export_lines import Documents
from billing_export.export_parquet import read_parquet
from billing_export.run import RunState
from schemas.errors import InvariantViolationError, RunError
from schemas.line_item import LineItem, encode_line_item
from tests.support.made_lines import EVERY_KIND, TIERED, chunks, line, made_run, many_lines, store_run
from tests.support.made_usage import UsageTables

GOLDEN = Path(__file__).parent / "golden"
FOCUS = FocusOptions(provider="Example Cloud")


def export(items: tuple[LineItem, ...], export_format: ExportFormat, file: Path) -> Path:
    write_files(chunks(items), {export_format: file}, totals=Totals(), focus=FOCUS)
    return file


def one_cell(item: LineItem, column: str) -> str:
    """The cell as a spreadsheet would have it."""
    ((_, (record,)),) = chunks((item,))
    (row,) = csv.DictReader(io.StringIO(csv_header() + "".join(csv_rows([record])), newline=""))
    return row[column]


@pytest.mark.parametrize("export_format", [ExportFormat.CSV, ExportFormat.JSONL, ExportFormat.FOCUS])
def test_an_export_has_the_bytes_it_always_had(tmp_path: Path, export_format: ExportFormat) -> None:
    file = export(EVERY_KIND, export_format, tmp_path / "out")

    assert file.read_bytes() == (GOLDEN / f"every_kind.{export_format.value}").read_bytes()


@pytest.mark.parametrize("export_format", list(ExportFormat))
def test_exporting_twice_gives_the_same_bytes(tmp_path: Path, export_format: ExportFormat) -> None:
    once, twice = (export(EVERY_KIND, export_format, tmp_path / name) for name in ("once", "twice"))

    assert once.read_bytes() == twice.read_bytes()


def test_a_csv_gives_every_line_back_to_the_last_character(tmp_path: Path) -> None:
    file = export(EVERY_KIND, ExportFormat.CSV, tmp_path / "out")

    assert list(read_csv(file)) == [encode_line_item(one) for one in EVERY_KIND]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "'"])
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe_and_loses_it_when_read(
    tmp_path: Path, start: str
) -> None:
    formula = f"{start}cmd|'/c calc'!A1"
    item = line(description=formula, amount="-1.00")

    assert one_cell(item, "description") == f"'{formula}"
    assert one_cell(item, "amount") == "-1.00"
    assert list(read_csv(export((item,), ExportFormat.CSV, tmp_path / "out"))) == [encode_line_item(item)]


def test_duckdb_reads_the_parquet_with_exact_decimals_and_utc_times(tmp_path: Path) -> None:
    file = export(EVERY_KIND, ExportFormat.PARQUET, tmp_path / "out.parquet")

    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        totals = engine.execute(
            "SELECT currency, sum(amount)::VARCHAR, count(*) FROM read_parquet(?) GROUP BY 1 ORDER BY 1", [str(file)]
        ).fetchall()
        tier = engine.execute(
            "SELECT quantity::VARCHAR, tiers[2].amount::VARCHAR, tiers[2].up_to, dimensions['region'],"
            " strftime(period_start, '%Y-%m-%dT%H:%M:%SZ') FROM read_parquet(?) WHERE id = ?",
            [str(file), TIERED.id],
        ).fetchall()

    assert totals == [("JPY", "37.0000", 1), ("USD", "15.1600", 7)]
    assert tier == [("1000.500000000000", "3.007500000000000000000000", None, "eu", "2013-01-01T05:00:00Z")]


def test_pandas_reads_the_parquet(tmp_path: Path) -> None:
    file = export(EVERY_KIND, ExportFormat.PARQUET, tmp_path / "out.parquet")

    frame = pd.read_parquet(file)

    assert frame["amount"].sum() == Decimal("52.1600")
    assert str(frame["period_start"].dt.tz) == "UTC"
    assert list(frame["kind"]) == [one.kind.value for one in EVERY_KIND]


def test_a_parquet_gives_every_line_back(tmp_path: Path) -> None:
    file = export(EVERY_KIND, ExportFormat.PARQUET, tmp_path / "out.parquet")

    assert list(read_parquet(file)) == [(encode_line_item(one), True) for one in EVERY_KIND]


def test_a_number_beyond_38_digits_makes_the_parquet_wide_and_stays_exact(tmp_path: Path) -> None:
    huge = line(quantity="123456789012345678901234567890.123456789012", amount_unrounded="1" * 30, amount="1" * 30)
    narrow = line()

    file = export((narrow, narrow, narrow, huge), ExportFormat.PARQUET, tmp_path / "out.parquet")

    read = pq.read_table(file)
    assert read.schema.field("quantity").type == pa.decimal256(76, 12)
    assert read.column("quantity").to_pylist()[-1] == Decimal("123456789012345678901234567890.123456789012")
    assert [agrees for _, agrees in read_parquet(file)] == [True] * 4


def test_a_number_that_no_parquet_decimal_holds_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"more digits than Parquet can hold \(quantity"):
        export((line(quantity="0.1234567890123"),), ExportFormat.PARQUET, tmp_path / "out.parquet")

    assert list(tmp_path.iterdir()) == []


def test_several_formats_are_written_in_one_pass(tmp_path: Path) -> None:
    totals = Totals(by_customer=True)

    write_files(
        chunks(), {ExportFormat.CSV: tmp_path / "a", ExportFormat.JSONL: tmp_path / "b"}, totals=totals, focus=None
    )

    assert [(one.currency, one.lines_count, one.amount) for one in totals.of_all()] == [
        ("JPY", 1, "37"),
        ("USD", 7, "15.16"),
    ]
    assert [(one.customer, one.amount) for one in totals.of_customers()] == [("acme", "15.16"), ("bolt", "37")]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b"]


def test_the_tiers_of_a_line_are_json_in_its_cell() -> None:
    assert json.loads(one_cell(TIERED, "tiers"))[1]["quantity"] == "0.5"


def test_a_file_that_fails_half_way_leaves_the_old_one_alone(tmp_path: Path) -> None:
    def failing() -> Iterator[str]:
        yield "new\n"
        raise RuntimeError

    file = tmp_path / "lines"
    file.write_text("old\n")

    with pytest.raises(RuntimeError):
        write_atomically(file, failing())
    assert file.read_text() == "old\n"
    assert [one.name for one in tmp_path.iterdir()] == ["lines"]


def test_what_a_killed_writer_left_is_removed_and_what_is_being_written_stays(tmp_path: Path) -> None:
    file = tmp_path / "lines.csv"
    left = tmp_path / ".lines.csv.k1lled.part"
    left.write_text("half of a li")
    of_others = [tmp_path / ".lines.csv.bak.k1lled.partial", tmp_path / ".other.csv.k1lled.part", tmp_path / "x.part"]
    for one in of_others:
        one.write_text("not ours")

    with whole_file(file) as part:
        part.write_text("whole\n")
        remove_abandoned([file])

    assert file.read_text() == "whole\n"
    assert sorted(tmp_path.iterdir()) == sorted([file, *of_others])


def test_a_written_file_can_be_read_by_others(tmp_path: Path) -> None:
    with whole_file(tmp_path / "new" / "lines") as part:
        part.write_text("a\n")

    assert stat.S_IMODE((tmp_path / "new" / "lines").stat().st_mode) == 0o644


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "lines", ["a\n"])


@pytest.fixture
def tables(module_world: UsageTables) -> UsageTables:
    for table in ("runs", "line_items"):
        module_world.client.command(f"TRUNCATE TABLE {table}")
    return module_world


def test_the_digest_of_a_jsonl_export_is_the_run_s(tables: UsageTables, tmp_path: Path) -> None:
    items = list(many_lines(25))
    run = store_run(tables.client, items)

    assert export_runs(tables.client, [run], ExportFormat.JSONL, tmp_path / "lines") == 25

    assert hashlib.sha256((tmp_path / "lines").read_bytes()).hexdigest() == run.lines_digest
    assert [one.id for one in Documents(tables.client, run, lines_at_a_time=7).items()] == [one.id for one in items]


def test_several_runs_go_into_one_file_in_the_order_given(tables: UsageTables, tmp_path: Path) -> None:
    older = [line(run="2012-12.1", period="2012-12")]
    december = store_run(tables.client, older, made_run(older, id="2012-12.1", period="2012-12"))
    newer = list(EVERY_KIND)
    january = store_run(tables.client, newer, made_run(newer, sequence=2))

    count = export_runs(tables.client, [december, january], ExportFormat.JSONL, tmp_path / "lines")

    periods = [json.loads(text)["period"] for text in (tmp_path / "lines").read_text().splitlines()]
    assert (count, periods) == (9, ["2012-12"] + ["2013-01"] * 8)


def test_a_run_that_is_not_frozen_is_not_exported(tables: UsageTables, tmp_path: Path) -> None:
    run = made_run(state=RunState.CLOSING)

    with pytest.raises(RunError, match=r"run 2013-01\.1 is not frozen"):
        export_runs(tables.client, [run], ExportFormat.CSV, tmp_path / "lines")
    assert list(tmp_path.iterdir()) == []


def test_lines_that_are_not_those_that_were_frozen_are_not_exported(tables: UsageTables, tmp_path: Path) -> None:
    run = store_run(tables.client, EVERY_KIND)
    tampered = msgspec.structs.replace(run, lines_digest="0" * 64)

    with pytest.raises(InvariantViolationError, match="8 lines with the digest"):
        export_runs(tables.client, [tampered], ExportFormat.CSV, tmp_path / "lines")
    assert list(tmp_path.iterdir()) == []
