"""Connections to ClickHouse: what is passing, what is not, and what is said when nothing answers."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, DataError, OperationalError, ProgrammingError

from metering.clickhouse import connect, ensure_database, is_passing
from metering.config import Settings
from metering.embedded.parts import settings_env
from metering.embedded.ports import free_ports
from metering.testing import ClickHouseUnderTest
from schemas.errors import ClickHouseUnavailableError, SettingError


def settings_of(clickhouse: ClickHouseUnderTest, database: str) -> Settings:
    return Settings(
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=database,
    )


def test_times_come_back_in_utc_and_say_so(clickhouse: ClickHouseUnderTest, database: str) -> None:
    client = connect(settings_of(clickhouse, database))

    found = client.query("SELECT toDateTime64('2013-03-31 01:30:00.000001', 6, 'UTC')").result_rows[0][0]

    assert found == datetime(2013, 3, 31, 1, 30, 0, 1, tzinfo=UTC)
    assert found.tzinfo is not None
    client.close()


INSERT = """
import sys
from datetime import UTC, datetime
from metering.clickhouse import connect
from metering.config import load_settings

client = connect(load_settings())
client.command("CREATE TABLE moments (at DateTime64(6, 'UTC'), n UInt8) ENGINE = MergeTree ORDER BY n")
client.insert("moments", [[datetime(2013, 1, 1, tzinfo=UTC), 7]], column_names=["at", "n"])
print(client.query("SELECT count() FROM moments").result_rows, "pandas" in sys.modules)
"""


def test_an_insert_does_not_load_pandas(clickhouse: ClickHouseUnderTest, database: str) -> None:
    env = {**os.environ, **settings_env(settings_of(clickhouse, database))}

    said = subprocess.run([sys.executable, "-c", INSERT], env=env, capture_output=True, text=True, check=True).stdout

    assert said == "[(1,)] False\n"


def test_a_database_is_made_once_and_then_left_alone(clickhouse: ClickHouseUnderTest, database: str) -> None:
    settings = settings_of(clickhouse, f"{database}_made")

    ensure_database(settings)
    ensure_database(settings)

    client = connect(settings)
    assert client.query("SELECT currentDatabase()").result_rows == [(f"{database}_made",)]
    client.command("DROP DATABASE {name:Identifier} SYNC", {"name": f"{database}_made"})
    client.close()


def test_no_clickhouse_is_said_with_its_address_and_what_to_do() -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"

    with pytest.raises(ClickHouseUnavailableError) as caught:
        connect(Settings(clickhouse_url=url))

    assert url in str(caught.value)
    assert "METERING_CLICKHOUSE_URL" in str(caught.value)


@pytest.mark.parametrize("url", ["clickhouse:8123", "ftp://host:1", "http://", "host"])
def test_what_is_no_http_address_is_a_setting_error(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        connect(Settings(clickhouse_url=url))

    assert caught.value.where == "METERING_CLICKHOUSE_URL"


def test_a_mistake_in_a_statement_is_not_passing(clickhouse: ClickHouseUnderTest, database: str) -> None:
    client = connect(settings_of(clickhouse, database))

    for statement in ("SELEC 1", "SELECT * FROM nowhere", "SELECT throwIf(1)"):
        with pytest.raises(DatabaseError) as caught:
            client.query(statement)
        assert not is_passing(caught.value)
    client.close()


def test_no_answer_and_overload_are_passing() -> None:
    assert is_passing(OperationalError("Connection refused"))
    assert not is_passing(ProgrammingError("wrong argument"))
    assert not is_passing(DataError("wrong column"))
    assert not is_passing(ValueError("of something else"))
