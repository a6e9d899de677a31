"""Services for every test: see `metering.testing` for how they are chosen."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import clickhouse_connect
import hypothesis
import msgspec
import pytest
import structlog
from clickhouse_connect.driver.client import Client

from metering.config import Settings, load_settings
from metering.testing import ClickHouseUnderTest, KafkaUnderTest, clickhouse_under_test, kafka_under_test
from tests.support.chromium import MISSING, chromium_path

# No test asserts elapsed time: a busy machine is no bug. A failure prints what replays it.
hypothesis.settings.register_profile("metering", deadline=None, print_blob=True)
hypothesis.settings.load_profile("metering")
# A line logged in the background, by a gateway that serves a whole run of tests, must not end up in the output of the
# command that another test runs at that moment; the real standard error is shown with a failure.
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was not tested for want of a browser is said where nobody can miss it."""
    if not chromium_path():
        terminalreporter.section("not tested", sep="!", red=True, bold=True)
        terminalreporter.line(MISSING, red=True, bold=True)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaUnderTest]:
    """One Kafka for the whole run; name topics after `topic_prefix` so that tests do not meet."""
    with kafka_under_test(load_settings(), tmp_path_factory.mktemp("kafka")) as service:
        yield service


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseUnderTest]:
    """One ClickHouse for the whole run; work in `database` so that tests do not meet."""
    with clickhouse_under_test(load_settings(), tmp_path_factory.mktemp("clickhouse")) as service:
        yield service


@pytest.fixture(scope="session")
def clickhouse_client(clickhouse: ClickHouseUnderTest) -> Iterator[Client]:
    """A client without a database of its own and without a session, so that threads may share it."""
    address = urlsplit(clickhouse.url)
    client = clickhouse_connect.get_client(
        host=address.hostname or "",
        port=address.port or 0,
        secure=address.scheme == "https",
        username=clickhouse.username,
        password=clickhouse.password,
        autogenerate_session_id=False,
    )
    yield client
    client.close()


@pytest.fixture
def database(clickhouse_client: Client) -> Iterator[str]:
    """The name of a database made for this test and dropped after it."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    clickhouse_client.command("CREATE DATABASE {name:Identifier}", parameters={"name": name})
    yield name
    clickhouse_client.command("DROP DATABASE {name:Identifier} SYNC", parameters={"name": name})


@pytest.fixture
def topic_prefix() -> str:
    """Begins every topic and group name of this test."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def service_settings(kafka: KafkaUnderTest, clickhouse: ClickHouseUnderTest, database: str, tmp_path: Path) -> Settings:
    """Settings that point at this run's services, this test's database and a data folder of its own."""
    return msgspec.structs.replace(
        load_settings(),
        data_dir=tmp_path / "data",
        kafka_servers=kafka.bootstrap,
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=database,
    )
