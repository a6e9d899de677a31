"""ClickHouse's own way: blocks of JSON straight into a raw table with a view that keeps the rollup.

No Kafka, no dedupe, no ledger, no check of an event: what a worker's work is held against.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Final

from benchmarks.stack import Totals, check, event, expected_totals, fresh_database
from metering.clickhouse import connect
from metering.config import Settings

BLOCK_EVENTS: Final = 50_000

_TABLES: Final = (
    """
    CREATE TABLE view_events
    (subject String, source LowCardinality(String), id String, type LowCardinality(String),
     time DateTime64(6, 'UTC'), data Tuple(region String, bytes Decimal(38, 12)))
    ENGINE = MergeTree ORDER BY (subject, time)
    """,
    """
    CREATE MATERIALIZED VIEW view_rollup ENGINE = SummingMergeTree ORDER BY (subject, window, region) AS
    SELECT subject, toStartOfFifteenMinutes(time) AS window, data.region AS region, count() AS calls,
           sum(data.bytes) AS bytes
    FROM view_events GROUP BY subject, window, region
    """,
)
_SETTINGS: Final = {"date_time_input_format": "best_effort", "input_format_skip_unknown_fields": 1}


def view_rate(settings: Settings, name: str, count: int) -> float:
    """Events a second over one connection. The blocks are made beforehand."""
    settings = fresh_database(settings, name)
    client = connect(settings)
    for statement in _TABLES:
        client.command(statement)
    numbers = range(0, count, BLOCK_EVENTS)
    blocks = [b"\n".join(event(n) for n in range(first, min(first + BLOCK_EVENTS, count))) for first in numbers]
    started_s = time.monotonic()
    for block in blocks:
        client.raw_insert("view_events", insert_block=block, fmt="JSONEachRow", settings=_SETTINGS)
    elapsed_s = time.monotonic() - started_s
    rows = client.query("SELECT sum(calls), sum(bytes) FROM view_rollup").result_rows
    client.close()
    check(Totals(events=int(rows[0][0]), bytes=Decimal(rows[0][1])), expected_totals(count))
    return count / elapsed_s
