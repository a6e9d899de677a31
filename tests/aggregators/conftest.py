"""One database with the plain log's catalog for all tests of this folder; each works in an epoch of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from metering import catalog_store
from metering.clickhouse import connect, ensure_database
from metering.clock import FixedClock
from metering.config import Settings
from metering.migrate import migrate
from metering.testing import ClickHouseUnderTest
from tests.support.pipeline_rig import NOW
from tests.support.plain_log import CATALOG


@pytest.fixture(scope="session")
def folded_settings(clickhouse: ClickHouseUnderTest) -> Iterator[Settings]:
    """Settings of the shared database."""
    settings = Settings(
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=f"test_{uuid.uuid4().hex[:12]}",
    )
    ensure_database(settings)
    client = connect(settings)
    migrate(client)
    catalog_store.apply(client, CATALOG, clock=FixedClock(NOW), applied_by="test")
    yield settings
    client.command("DROP DATABASE {name:Identifier} SYNC", parameters={"name": settings.clickhouse_database})
    client.close()


@pytest.fixture(scope="session")
def folded(folded_settings: Settings) -> Iterator[Client]:
    """A client on the shared database."""
    client = connect(folded_settings)
    yield client
    client.close()


@pytest.fixture
def epoch() -> str:
    """A log of this test's own; subjects begin with it, so that no two tests share an identity."""
    return f"log-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def changing_settings(clickhouse: ClickHouseUnderTest, database: str) -> Settings:
    """A database of the test's own, migrated and with the plain log's catalog, for tests that change the catalog."""
    settings = Settings(
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=database,
    )
    client = connect(settings)
    migrate(client)
    catalog_store.apply(client, CATALOG, clock=FixedClock(NOW), applied_by="test")
    client.close()
    return settings
