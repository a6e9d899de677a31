"""docs/sql.md: every query is run as an analyst runs it, and answers what stands below it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from typer.testing import CliRunner, Result

from metering.cli import build_app
from metering.read_query import read_query
from metering.testing import ClickHouseUnderTest
from schemas.errors import RequestError
from tests.support.documented_queries import DocumentedQuery, queries_count, queries_of
from tests.support.example_world import example_world
from tests.support.made_kpis import answer
from tests.support.made_usage import UsageTables

QUERIES = queries_of("sql.md")
WRITES = (
    "INSERT INTO subjects (subject, customer) VALUES ('x', 'y')",
    "INSERT INTO subjects (subject, customer) SELECT 'x', 'y'",
    "CREATE TABLE mine (a UInt8) ENGINE = Memory",
    "DROP TABLE events",
    "TRUNCATE TABLE events",
    "ALTER TABLE subjects DELETE WHERE 1",
    "SELECT 1; TRUNCATE TABLE subjects",
    "SET readonly = 0",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "OPTIMIZE TABLE events",
    "DELETE FROM subjects WHERE 1",
)
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def world(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with example_world(clickhouse) as tables:
        yield tables


@pytest.fixture
def run(world: UsageTables) -> Run:
    environment = {
        "METERING_CLICKHOUSE_URL": world.settings.clickhouse_url,
        "METERING_CLICKHOUSE_USERNAME": world.settings.clickhouse_username,
        "METERING_CLICKHOUSE_PASSWORD": world.settings.clickhouse_password,
        "METERING_CLICKHOUSE_DATABASE": world.settings.clickhouse_database,
    }

    def sql(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(build_app(["sql", "usage"]), ["sql", *arguments], env=environment, input=stdin)

    return sql


def test_the_page_has_its_questions_each_with_its_answer() -> None:
    assert [int(one.heading.split(".")[0]) for one in QUERIES] == list(range(1, 22))
    assert queries_count("sql.md") == 21


@pytest.mark.parametrize("query", QUERIES, ids=[one.heading.split(".")[0] for one in QUERIES])
def test_the_question_is_answered_as_the_page_says(world: UsageTables, query: DocumentedQuery) -> None:
    read = read_query(world.client, query.sql)

    assert answer(world, query.sql) == (query.columns, query.rows)
    assert (read.columns, len(read.rows)) == (query.columns, len(query.rows))


@pytest.mark.parametrize("statement", WRITES)
def test_a_statement_that_writes_or_unties_itself_is_refused(world: UsageTables, statement: str) -> None:
    before = answer(world, "SELECT count() FROM subjects FINAL")

    with pytest.raises((RequestError, DatabaseError)) as refused:
        read_query(world.client, statement)

    assert isinstance(refused.value, RequestError), refused.value
    assert answer(world, "SELECT count() FROM subjects FINAL") == before


def test_no_file_of_the_server_can_be_read(world: UsageTables) -> None:
    with pytest.raises(RequestError):
        read_query(world.client, "SELECT * FROM file('/etc/hostname', 'LineAsString', 'line String')")


def test_more_rows_than_are_allowed_are_refused(world: UsageTables) -> None:
    with pytest.raises(RequestError, match=r"the answer has more than 9 rows.*--rows-max"):
        read_query(world.client, "SELECT number FROM numbers(10)", rows_max=9)

    assert len(read_query(world.client, "SELECT number FROM numbers(9)", rows_max=9).rows) == 9


def test_a_query_that_takes_too_long_is_ended(world: UsageTables) -> None:
    with pytest.raises(RequestError, match=r"the query takes longer than 1 s.*--timeout-s"):
        read_query(world.client, "SELECT sum(sipHash64(number)) FROM numbers(100000000000)", time_s_max=1)


def test_a_mistake_is_shown_with_where_to_look(world: UsageTables) -> None:
    with pytest.raises(RequestError, match=r"kpi_mr.*docs/tables\.md"):
        read_query(world.client, "SELECT * FROM kpi_mr")


def test_nothing_is_no_query(world: UsageTables) -> None:
    with pytest.raises(RequestError, match="there is no query"):
        read_query(world.client, " ; ")


def test_a_connection_that_only_read_can_write_again(world: UsageTables) -> None:
    read_query(world.client, "SELECT 1")
    world.client.command("CREATE TABLE scratch (a UInt8) ENGINE = Memory")
    world.client.command("DROP TABLE scratch")

    assert read_query(world.client, "SELECT 1 AS one;").rows == ((1,),)


def test_numbers_that_a_reader_could_round_are_texts(world: UsageTables) -> None:
    read = read_query(
        world.client,
        "SELECT toDecimal128('12345678901234567890.123456789012', 12) AS d, toUInt64(18446744073709551615) AS n,"
        " CAST(NULL, 'Nullable(String)') AS nothing, 'a\nb' AS text",
    )

    assert read.rows == (("12345678901234567890.123456789012", "18446744073709551615", None, "a\nb"),)


def test_the_command_prints_a_table(run: Run) -> None:
    done = run("SELECT month, mrr, arr FROM kpi_mrr WHERE month <= '2024-02-01' ORDER BY month")

    assert done.exit_code == 0, done.output
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["month", "mrr", "arr"],
        ["2024-01-01", "50", "600"],
        ["2024-02-01", "70", "840"],
    ]


def test_the_command_prints_csv_that_no_spreadsheet_runs(run: Run) -> None:
    done = run("SELECT '=1+1' AS text, -1.5::Decimal(9, 1) AS number, NULL AS nothing", "--format", "csv")

    assert list(csv.reader(io.StringIO(done.stdout))) == [["text", "number", "nothing"], ["'=1+1", "-1.5", ""]]


def test_the_command_prints_json(run: Run) -> None:
    done = run("-", "--format", "json", stdin="SELECT 1 AS one")

    assert json.loads(done.stdout) == {"columns": ["one"], "types": ["UInt8"], "rows": [[1]]}


def test_the_command_refuses_to_write(run: Run) -> None:
    done = run("DROP TABLE events")

    assert isinstance(done.exception, RequestError)
    assert "only reading is allowed here" in str(done.exception)
