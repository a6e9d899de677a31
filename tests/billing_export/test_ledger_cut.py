"""Where the ledger's cut lies, from the rows of `positions`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from clickhouse_connect.driver.client import Client

from billing_export.cut import ledger_cut
from metering.clickhouse import connect
from metering.config import Settings
from metering.migrate import migrate
from metering.testing import ClickHouseUnderTest
from schemas.errors import InvariantViolationError
from schemas.topics import USAGE_EVENTS
from schemas.usage_query import Cut, Position

COLUMNS = [
    "epoch", "topic", "partition", "first", "last", "accepted", "duplicate", "rejected", "absent", "digest",
    "catalog_version", "logged_at_last", "flushed_at", "worker", "code_version",
]  # fmt: skip
AT = datetime(2013, 1, 1, tzinfo=UTC)


@pytest.fixture
def client(clickhouse: ClickHouseUnderTest, database: str) -> Iterator[Client]:
    one = connect(
        Settings(
            clickhouse_url=clickhouse.url,
            clickhouse_username=clickhouse.username,
            clickhouse_password=clickhouse.password,
            clickhouse_database=database,
        )
    )
    migrate(one)
    yield one
    one.close()


def write_ledger(client: Client, *batches: tuple[int, int, int]) -> None:
    """Batches of partition 0 as (first, last, catalog version)."""
    rows = [
        ("log", USAGE_EVENTS, 0, first, last, last - first + 1, 0, 0, 0, 0, version, AT, AT, f"w{version}", "test")
        for first, last, version in batches
    ]
    client.insert("positions", rows, column_names=COLUMNS)


def cut_at(offset: int) -> Cut:
    return Cut(positions=(Position(epoch="log", partition=0, offset=offset),))


def test_the_cut_is_the_end_of_batches_that_follow_one_another(client: Client) -> None:
    write_ledger(client, (0, 99, 1), (100, 149, 1), (150, 199, 2))

    assert ledger_cut(client) == cut_at(199)


def test_a_late_batch_of_an_older_catalog_does_not_move_the_cut_beyond_the_newest_catalogs_batches(
    client: Client,
) -> None:
    """A worker that was cut off wrote 100 to 299 with catalog 1; its successor has come to 149 with catalog 2."""
    write_ledger(client, (0, 99, 1), (100, 149, 2), (100, 299, 1))

    assert ledger_cut(client) == cut_at(149)


def test_a_gap_in_the_ledger_refuses_a_cut(client: Client) -> None:
    write_ledger(client, (0, 99, 1), (150, 199, 1))

    with pytest.raises(InvariantViolationError, match="offsets before 150"):
        ledger_cut(client)
