"""`metering usage` as a person runs it, on a real ClickHouse."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner, Result

from metering.cli import build_app
from metering.testing import ClickHouseUnderTest
from schemas.catalog import Customer
from schemas.errors import ClickHouseUnavailableError, RequestError
from tests.support.made_usage import MadeEvent, UsageTables, made_catalog, usage_tables

Run = Callable[..., Result]

CATALOG = made_catalog(
    [
        Customer(id="acme", subjects=("s1", "s2"), timezone="America/New_York"),
        Customer(id="bolt", subjects=("=cmd()",), timezone="Asia/Kathmandu"),
    ]
)
EVENTS = [
    MadeEvent(subject="s1", time=datetime(2013, 1, 31, 23, tzinfo=UTC), value="1.50", region="eu", offset=0),
    MadeEvent(subject="s1", time=datetime(2013, 2, 1, 4, 59, tzinfo=UTC), value="2", region="=1+1", offset=1),
    MadeEvent(subject="s2", time=datetime(2013, 2, 1, 5, tzinfo=UTC), value="-3", region="[bold]x\x1b[31m", offset=2),
    MadeEvent(subject="=cmd()", time=datetime(2013, 2, 1, 5, tzinfo=UTC), value="9", region="a,b", offset=3),
    MadeEvent(subject="stray", time=datetime(2013, 2, 1, 5, tzinfo=UTC), value="100", offset=4),
]


@pytest.fixture(scope="module")
def tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        made.store(CATALOG)
        made.fold(EVENTS)
        yield made


def environment(tables: UsageTables) -> dict[str, str]:
    return {
        "METERING_CLICKHOUSE_URL": tables.settings.clickhouse_url,
        "METERING_CLICKHOUSE_USERNAME": tables.settings.clickhouse_username,
        "METERING_CLICKHOUSE_PASSWORD": tables.settings.clickhouse_password,
        "METERING_CLICKHOUSE_DATABASE": tables.settings.clickhouse_database,
    }


@pytest.fixture
def run(tables: UsageTables) -> Run:
    def usage(*arguments: str, **more: str) -> Result:
        return CliRunner().invoke(build_app(["usage"]), ["usage", *arguments], env={**environment(tables), **more})

    return usage


def lines(result: Result) -> list[str]:
    assert result.exception is None, result.exception
    return [line.rstrip() for line in result.stdout.splitlines()]


def rows_of(result: Result) -> list[dict[str, str]]:
    assert result.exception is None, result.exception
    return list(csv.DictReader(io.StringIO(result.stdout)))


def test_the_table_shows_the_months_of_the_customer(run: Run) -> None:
    shown = lines(run("sum", "--customer", "acme", "--from", "2013-01", "--to", "2013-03", "--window", "month"))

    assert shown == [
        "sum (sum) from 2013-01-01T00:00:00-05:00 to 2013-03-01T00:00:00-05:00, America/New_York",
        "month    customer  quantity  unit    events",
        "2013-01  acme           3.5  things       2",
        "2013-02  acme            -3  things       1",
    ]


def test_data_in_the_table_is_neither_markup_nor_terminal_control(run: Run) -> None:
    shown = run("count", "--subject", "s2", "--from", "2013-02-01", "--to", "2013-02-02", "--group-by", "region")

    assert "[bold]x\N{REPLACEMENT CHARACTER}[31m" in shown.stdout
    assert "\x1b" not in shown.stdout


def test_no_usage_is_said_in_words_and_where_else_to_look(run: Run) -> None:
    shown = lines(run("sum", "--from", "2012-01", "--to", "2012-02"))

    assert shown == [
        "No usage of sum from 2012-01-01T00:00:00+00:00 to 2012-02-01T00:00:00+00:00, UTC.",
        "Usage of subjects that no customer owns shows with --by subject.",
    ]


@pytest.mark.parametrize("flags", [["--json"], ["--format", "json"]])
def test_json_keeps_every_digit_and_names_the_question_as_it_was_understood(run: Run, flags: list[str]) -> None:
    result = run("sum", "--subject", "s1", "--from", "2013-01-31", "--to", "2013-02-01T12:30:00+01:00", *flags)

    document = json.loads(result.stdout)
    assert document | {"rows": []} == {
        "meter": "sum",
        "aggregation": "sum",
        "unit": "things",
        "from": "2013-01-31T00:00:00+00:00",
        "to": "2013-02-01T11:30:00+00:00",
        "window": "total",
        "timezone": "UTC",
        "by": "subject",
        "group_by": [],
        "catalog_version": 1,
        "rows": [],
    }
    assert document["rows"] == [
        {
            "subject": "s1",
            "window_start": "2013-01-31T00:00:00+00:00",
            "window_end": "2013-02-01T11:30:00+00:00",
            "dimensions": {},
            "quantity": "3.5",
            "events_count": 2,
            "digest": f"{(EVENTS[0].digest + EVENTS[1].digest) % 2**128:032x}",
        }
    ]


def test_csv_can_be_opened_in_a_spreadsheet_without_running_anything(run: Run) -> None:
    owned = ["--by", "subject", "--customer", "acme", "--customer", "bolt"]
    rows = rows_of(
        run("sum", *owned, "--from", "2013-01", "--to", "2013-03", "--group-by", "region", "--format", "csv")
    )

    assert [(row["subject"], row["region"], row["quantity"]) for row in rows] == [
        ("'=cmd()", "a,b", "9"),
        ("s1", "'=1+1", "2"),
        ("s1", "eu", "1.5"),
        ("s2", "[bold]x\x1b[31m", "-3"),
    ]
    assert set(rows[0]) == {
        "meter", "subject", "window_start", "window_end", "region", "quantity", "unit", "events_count"
    }  # fmt: skip


def test_hours_and_days_carry_the_offset_of_the_zone(run: Run) -> None:
    hours = rows_of(run("count", "--customer", "bolt", "--from", "2013-02-01", "--to", "2013-02-02",
                        "--window", "hour", "--format", "csv"))  # fmt: skip

    assert [(row["window_start"], row["window_end"]) for row in hours] == [
        ("2013-02-01T10:00:00+05:45", "2013-02-01T11:00:00+05:45")
    ]


def test_everything_is_one_row_without_a_name(run: Run) -> None:
    assert rows_of(run("sum", "--by", "everything", "--from", "2013-01", "--to", "2013-03", "--format", "csv")) == [
        {
            "meter": "sum",
            "window_start": "2013-01-01T00:00:00+00:00",
            "window_end": "2013-03-01T00:00:00+00:00",
            "quantity": "109.5",
            "unit": "things",
            "events_count": "5",
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smu"], "unknown meter 'smu'. Did you mean 'sum'?"),
        (["sum", "--from", "2013-13-01"], "'2013-13-01' is no day"),
        (["sum", "--from", "2013-02-30"], "'2013-02-30' is no day"),
        (["sum", "--from", "yesterday"], "'yesterday' is no RFC 3339 time with a zone"),
        (["sum", "--from", "2013-01-01T10:00:00"], "such as 2013-01-31T10:30:00-05:00"),
        (["sum", "--from", "2013-02", "--to", "2013-01"], "the range is empty"),
        (["sum", "--timezone", "America/NewYork"], "Did you mean America/New_York?"),
        (["sum", "--customer", "acne"], "Did you mean 'acme'?"),
        (["sum", "--group-by", "regoin"], "Did you mean 'region'?"),
        (["count", "--by", "subject", "--from", "2013-01", "--rows-max", "2"], "more than 2 rows"),
    ],
)
def test_a_wrong_question_is_answered_with_what_to_write_instead(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments)

    assert isinstance(result.exception, RequestError)
    assert message in str(result.exception)
    assert result.stdout == ""


def test_without_clickhouse_it_says_where_it_looked(run: Run) -> None:
    result = run("sum", METERING_CLICKHOUSE_URL="http://127.0.0.1:1")

    assert isinstance(result.exception, ClickHouseUnavailableError)
    assert "http://127.0.0.1:1" in str(result.exception)


def test_without_tables_it_says_how_to_make_them(run: Run) -> None:
    result = run("sum", METERING_CLICKHOUSE_DATABASE="never_made")

    assert isinstance(result.exception, RequestError)
    assert "metering migrate" in str(result.exception)


def test_help_shows_an_example_for_each_kind_of_question(run: Run) -> None:
    shown = " ".join(run("--help").stdout.split())

    assert "metering usage flights --from 2013-01 --to 2014-01 --window month" in shown


def test_the_command_ends_with_its_error_code_and_one_line(tables: UsageTables) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from metering.cli import main; main()", "usage", "smu"],
        env={**environment(tables), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: meter: unknown meter 'smu'. Did you mean 'sum'?\n"
