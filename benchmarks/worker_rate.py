"""Worker against a plain Faust agent: single-event records from a real Kafka into ClickHouse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Final

from clickhouse_connect.driver.client import Client

from benchmarks.stack import Totals, check, expected_totals, fresh_database, python_process, wait_for
from metering.clickhouse import connect
from metering.config import Settings

TIMEOUT_S = 300.0

_PLAIN_TABLES = (
    """
    CREATE TABLE plain_events
    (subject String, id String, time String, region String, bytes Decimal(38, 12),
     inserted_at DateTime64(6) DEFAULT now64(6))
    ENGINE = MergeTree ORDER BY (subject, time)
    """,
    """
    CREATE MATERIALIZED VIEW plain_rollup ENGINE = SummingMergeTree ORDER BY (subject, window, region) AS
    SELECT subject, toStartOfFifteenMinutes(parseDateTimeBestEffort(time, 'UTC')) AS window, region,
           count() AS calls, sum(bytes) AS bytes
    FROM plain_events GROUP BY subject, window, region
    """,
)


def worker_rate(settings: Settings, name: str, count: int, *, processes: int = 1) -> float:
    """Events a second while all of the worker processes were at work, from durable batch to durable batch."""
    with _folded(settings, name, count, processes) as client:
        check(worker_totals(client), expected_totals(count))
        return _rate(client, _SHARED)


def resent_rates(settings: Settings, name: str, count: int) -> tuple[float, float]:
    """Events a second of one worker for a log's first half, and for its second half, which is the first once more.

    The log holds `count` events twice; the totals are those of one half.
    """
    with _folded(settings, name, 2 * count, 1) as client:
        check(worker_totals(client), expected_totals(count))
        half = "SELECT partition, intDiv(max(last) + 1, 2) AS middle FROM positions GROUP BY partition"
        sides = [
            "SELECT flushed_at, sum(last - first + 1) FROM positions AS one FINAL "  # noqa: S608 - constants
            f"INNER JOIN ({half}) AS half USING (partition) WHERE {side} GROUP BY flushed_at ORDER BY flushed_at"
            for side in ("last < middle", "first >= middle")
        ]
        return _rate(client, sides[0]), _rate(client, sides[1])


@contextmanager
def _folded(settings: Settings, name: str, records: int, processes: int) -> Iterator[Client]:
    """A connection to a new database once the workers have folded `records` records into it."""
    settings = fresh_database(settings, name)
    client = connect(settings)

    def is_done() -> bool:
        return bool(client.query("SELECT sum(last - first + 1) FROM positions").result_rows[0][0] >= records)

    with ExitStack() as stack:
        running = [stack.enter_context(python_process(settings, "-m", "metering", "worker")) for _ in range(processes)]
        wait_for(running[0], is_done, TIMEOUT_S)
    yield client
    client.close()


def plain_rate(settings: Settings, name: str, count: int) -> float:
    """Events a second of the plain agent, on the same log, measured the same way; it stops after `count`."""
    settings = fresh_database(settings, name)
    client = connect(settings)
    for statement in _PLAIN_TABLES:
        client.command(statement)

    def is_done() -> bool:
        return int(client.query("SELECT count() FROM plain_events").result_rows[0][0]) >= count

    with python_process(settings, "-m", "benchmarks.plain_agent", name) as process:
        wait_for(process, is_done, TIMEOUT_S)
    check(_plain_totals(client), _plain_expected(client))
    return _rate(
        client,
        "SELECT inserted_at, count() FROM plain_events GROUP BY inserted_at ORDER BY inserted_at",
    )


_SHARED: Final = """
WITH (SELECT (max(began), min(ended)) FROM (
        SELECT min(flushed_at) AS began, max(flushed_at) AS ended FROM positions GROUP BY worker)) AS shared
SELECT flushed_at, sum(last - first + 1) FROM positions FINAL
WHERE flushed_at BETWEEN shared.1 AND shared.2 GROUP BY flushed_at ORDER BY flushed_at"""
"""What was flushed while every worker was at work."""


def _rate(client: Client, query: str) -> float:
    """Events after the first batch, divided by the time from the first batch to the last: start-up is left out."""
    rows: list[tuple[datetime, int]] = client.query(query).result_rows  # type: ignore[assignment]
    elapsed_s = (rows[-1][0] - rows[0][0]).total_seconds()
    return sum(int(count) for _, count in rows[1:]) / elapsed_s


def worker_totals(client: Client) -> Totals:
    """What a worker's rollups add up to."""
    rows = client.query(
        "SELECT sumIf(events_count, meter = 'calls'), sumIf(value_sum, meter = 'bytes') FROM rollups FINAL"
    ).result_rows
    return Totals(events=int(rows[0][0]), bytes=rows[0][1])


def _plain_totals(client: Client) -> Totals:
    rows = client.query("SELECT sum(calls), sum(bytes) FROM plain_rollup").result_rows
    return Totals(events=int(rows[0][0]), bytes=rows[0][1])


def _plain_expected(client: Client) -> Totals:
    """The plain agent is stopped early, so what it should have is said by the numbers of the events it took."""
    rows = client.query(
        "SELECT count(), sum(toDecimal128(toUInt64(id), 12) + toDecimal128('0.25', 12)) FROM plain_events"
    ).result_rows
    return Totals(events=int(rows[0][0]), bytes=rows[0][1])
