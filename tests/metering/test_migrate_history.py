"""Migrations run once each, in order, and a changed one is noticed."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from metering.clickhouse import connect
from metering.config import Settings
from metering.migrate import migrate, migrations, statements
from metering.testing import ClickHouseUnderTest
from schemas.errors import InvariantViolationError


@pytest.fixture
def settings(clickhouse: ClickHouseUnderTest, database: str) -> Settings:
    return Settings(
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=database,
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    one = connect(settings)
    yield one
    one.close()


def names() -> list[str]:
    return [name for name, _ in migrations()]


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [int(name[:4]) for name in names()] == list(range(1, len(names()) + 1))
    assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name) for name in names())


TAKING_AWAY = re.compile(
    r"\b(DROP|RENAME|DELETE|UPDATE|TRUNCATE|DETACH|EXCHANGE|CLEAR)\b|MODIFY COLUMN|ADD COLUMN (?!IF NOT EXISTS)"
)


def test_no_migration_takes_away_what_the_version_before_works_with() -> None:
    taken = [
        (name, statement.splitlines()[0])
        for name, text in migrations()
        for statement in statements(text)
        if TAKING_AWAY.search(re.sub(r"'(?:[^']|'')*'|--.*", "", statement))
    ]

    assert taken == []


def test_a_new_database_gets_every_migration_and_an_up_to_date_one_none(client: Client) -> None:
    assert migrate(client) == names()
    assert migrate(client) == []

    tables = {row[0] for row in client.query("SHOW TABLES").result_rows}
    assert {"events", "rollups", "members", "positions", "dead_letters", "catalog_versions"} <= tables


def test_a_migration_that_was_changed_after_it_was_run_stops_everything(client: Client) -> None:
    migrate(client)
    client.command(
        "ALTER TABLE schema_migrations UPDATE digest = 'other' WHERE name LIKE '0001%' SETTINGS mutations_sync=1"
    )

    with pytest.raises(InvariantViolationError, match=r"0001_events\.sql was changed after it was run"):
        migrate(client)


def test_a_migrator_that_died_half_way_is_finished_by_the_next(client: Client) -> None:
    """Its tables are there, but it did not come to write down that it had run."""
    migrate(client)
    client.command("TRUNCATE TABLE schema_migrations")
    client.command("DROP TABLE dead_letters SYNC")

    assert migrate(client) == names()
    assert client.query("SELECT count() FROM dead_letters").result_rows == [(0,)]


def test_two_migrators_at_once_do_no_harm(settings: Settings, client: Client) -> None:
    errors: list[Exception] = []

    def run() -> None:
        mine = connect(settings)
        try:
            migrate(mine)
        except Exception as error:  # noqa: BLE001 - the test's own thread
            errors.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert errors == []
    assert migrate(client) == []
    assert client.query("SELECT count() FROM schema_migrations FINAL").result_rows == [(len(names()),)]


def test_every_column_of_every_table_says_what_it_holds(client: Client) -> None:
    migrate(client)

    silent = client.query(
        "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND comment = '' "
        "AND table NOT LIKE '.inner%'"
    ).result_rows

    assert silent == []


def test_a_semicolon_inside_a_line_does_not_end_a_statement() -> None:
    text = "-- first; still a comment\nCREATE TABLE a (x String COMMENT 'one; two');\n-- only a comment;\n\nSELECT 1;\n"

    assert statements(text) == [
        "-- first; still a comment\nCREATE TABLE a (x String COMMENT 'one; two')",
        "SELECT 1",
    ]
