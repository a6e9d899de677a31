"""Exported files: the same bytes every time, whole or not at all, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from billing_export import runs
from billing_export.export import ExportFormat, csv_lines, export_runs, write_atomically
from billing_export.run import RunState
from schemas.errors import RunError
from schemas.line_item import decode_line_item, encode_line_item
from tests.support.made_billing import LINES, close
from tests.support.made_usage import UsageTables

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("export_format", list(ExportFormat))
def test_an_export_has_the_bytes_it_always_had(world: UsageTables, tmp_path: Path, export_format: ExportFormat) -> None:
    run = close(world.client).run
    file = tmp_path / f"out.{export_format.value}"

    assert export_runs(world.client, [run], export_format, file) == len(LINES)

    assert file.read_bytes() == (GOLDEN / f"line_items.{export_format.value}").read_bytes()


@pytest.mark.parametrize("export_format", list(ExportFormat))
def test_exporting_twice_gives_the_same_bytes(world: UsageTables, tmp_path: Path, export_format: ExportFormat) -> None:
    run = close(world.client).run
    once, twice = tmp_path / "once", tmp_path / "twice"

    export_runs(world.client, [run], export_format, once)
    export_runs(world.client, [run], export_format, twice)

    assert once.read_bytes() == twice.read_bytes()


def test_the_digest_of_a_jsonl_export_is_the_run_s(world: UsageTables, tmp_path: Path) -> None:
    run = close(world.client).run

    export_runs(world.client, [run], ExportFormat.JSONL, tmp_path / "lines")

    assert hashlib.sha256((tmp_path / "lines").read_bytes()).hexdigest() == run.lines_digest


def test_several_runs_go_into_one_file_in_the_order_given(world: UsageTables, tmp_path: Path) -> None:
    january, december = close(world.client).run, close(world.client, "2012-12").run

    count = export_runs(world.client, [december, january], ExportFormat.JSONL, tmp_path / "lines")

    periods = [json.loads(line)["period"] for line in (tmp_path / "lines").read_text().splitlines()]
    assert (count, periods) == (13, ["2012-12"] * 3 + ["2013-01"] * 10)


def test_a_csv_reads_back_with_every_field(world: UsageTables, tmp_path: Path) -> None:
    run = close(world.client).run
    export_runs(world.client, [run], ExportFormat.CSV, tmp_path / "lines")

    with (tmp_path / "lines").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    assert [(row["customer"], row["charge"], row["quantity"], row["amount"]) for row in rows] == [
        (customer, charge, quantity, amount) for customer, charge, _, quantity, _, amount in LINES
    ]
    assert rows[0]["customer_name"] == "'=Acme"
    assert json.loads(rows[1]["tiers"])[0]["quantity"] == "2"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(start: str) -> None:
    text = (GOLDEN / "line_items.jsonl").read_text().splitlines()[0]
    item = msgspec.structs.replace(decode_line_item(text), description=f"{start}cmd|'/c calc'!A1", amount="-1.00")

    [row] = csv.DictReader(io.StringIO("".join(csv_lines([encode_line_item(item).decode()])), newline=""))

    assert row["description"] == f"'{start}cmd|'/c calc'!A1"
    assert row["amount"] == "-1.00"


def test_a_run_that_is_not_frozen_is_not_exported(world: UsageTables, tmp_path: Path) -> None:
    run = msgspec.structs.replace(close(world.client).run, state=RunState.CLOSING)

    with pytest.raises(RunError, match=r"run 2013-01\.1 is not frozen"):
        export_runs(world.client, [run], ExportFormat.CSV, tmp_path / "lines")
    assert list(tmp_path.iterdir()) == []


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


def test_a_written_file_can_be_read_by_others(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "lines", ["a\n"])

    assert stat.S_IMODE((tmp_path / "new" / "lines").stat().st_mode) == 0o644


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "lines", ["a\n"])


def test_runs_are_listed_in_their_furthest_state(world: UsageTables) -> None:
    close(world.client, "2012-12")
    close(world.client)

    assert [(one.id, one.state) for one in runs.listed(world.client)] == [
        ("2012-12.1", RunState.CLOSED),
        ("2013-01.1", RunState.CLOSED),
    ]
