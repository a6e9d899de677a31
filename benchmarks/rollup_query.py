"""One customer's month: from the rollups, beside a scan that takes the value out of every event's JSON."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from benchmarks.stack import fresh_database
from metering import catalog_store
from metering.clickhouse import connect
from metering.config import Settings
from metering.usage.answer import answer
from schemas.period import month
from schemas.usage_query import By, UsageQuery

SUBJECTS: Final = 1_000
SUBJECT: Final = "customer-0042"
LOOKS: Final = 5
SECONDS_OF_MONTH: Final = 31 * 86_400

_EVENTS: Final = """
INSERT INTO events (subject, source, id, type, time, epoch, partition, offset, logged_at, digest, raw)
SELECT concat('customer-', leftPad(toString(number % {subjects:UInt64}), 4, '0')) AS subject, 'bench',
    leftPad(toString(number), 12, '0') AS id, 'api.call',
    toDateTime64('2026-01-01 00:00:00', 6, 'UTC') + intDiv(number * {seconds:UInt64}, {events:UInt64}) AS time,
    'log', 0, number, time, 1,
    format('{{"specversion":"1.0","id":"{}","source":"bench","type":"api.call","subject":"{}","time":"{}Z",'
        || '"data":{{"region":"eu-{}","bytes":{}.25}}}}',
        id, subject, formatDateTime(time, '%Y-%m-%dT%H:%i:%S'), toString(number % 3), toString(number))
FROM numbers({first:UInt64}, {count:UInt64})"""
_ROLLUPS: Final = """
INSERT INTO rollups (meter, subject, window_start, dimensions, meter_version, epoch, partition, position_first,
    position, events_count, value_sum, digest)
SELECT 'bytes', subject, toStartOfFifteenMinutes(time) AS window, map('region', region), 1, 'log', 0, 0,
    max(offset), count(), sum(bytes), count()
FROM
(
    SELECT subject, time, offset, JSONExtractString(raw, 'data', 'region') AS region,
        toDecimal256(JSONExtractRaw(raw, 'data', 'bytes'), 12) AS bytes
    FROM events
)
GROUP BY subject, window, region"""
_BY_TIME: Final = """
CREATE TABLE events_by_time ENGINE = MergeTree ORDER BY (type, time) AS SELECT type, time, subject, raw FROM events"""
_SCAN: Final = """
SELECT sum(toDecimal128(JSON_VALUE(raw, '$.data.bytes'), 12)) FROM {table:Identifier}
WHERE subject = {subject:String} AND type = 'api.call' AND time >= '2026-01-01' AND time < '2026-02-01'"""
EVENTS_AT_A_TIME: Final = 1_000_000


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of each look at one customer's month, in turns, with `events` events of all customers in the table.

    `scan_s` goes through a table that is sorted by type and time, `sorted_scan_s` through ours, sorted by subject.
    """

    events: int
    rollups_s: list[float]
    scan_s: list[float]
    sorted_scan_s: list[float]


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a row on disk once merged, and of an event's JSON as it was sent."""

    event: float
    rollup: float
    json: float


def asked(settings: Settings, name: str, events: int) -> tuple[Asked, Stored]:
    """Fill a month with events, keep their rollups, and ask both in turns; both must say the same."""
    settings = fresh_database(settings, name)
    client = connect(settings)
    for first in range(0, events, EVENTS_AT_A_TIME):
        numbers = {"first": first, "count": min(EVENTS_AT_A_TIME, events - first)}
        client.command(_EVENTS, {**numbers, "events": events, "subjects": SUBJECTS, "seconds": SECONDS_OF_MONTH})
    client.command(_ROLLUPS)
    client.command(_BY_TIME)
    for table in ("events", "rollups", "events_by_time"):
        client.command(f"OPTIMIZE TABLE {table} FINAL")
    catalog = catalog_store.load(client, 1)
    period = month("2026-01", "UTC")
    query = UsageQuery(meter="bytes", start=period.start, end=period.end, by=By.SUBJECT, subjects=(SUBJECT,))

    def from_rollups() -> Decimal:
        return answer(client, catalog, query)[0].quantity

    def scanned(table: str) -> Decimal:
        return Decimal(client.query(_SCAN, {"table": table, "subject": SUBJECT}).result_rows[0][0])

    numbers_of = range(42, events, SUBJECTS)
    expected = Decimal(sum(numbers_of)) + Decimal("0.25") * len(numbers_of)
    looks = [
        (
            _timed(from_rollups, expected),
            _timed(lambda: scanned("events_by_time"), expected),
            _timed(lambda: scanned("events"), expected),
        )
        for _ in range(LOOKS + 1)
    ]
    rollups_s, scan_s, sorted_scan_s = (list(column) for column in zip(*looks[1:], strict=True))
    found = Asked(events=events, rollups_s=rollups_s, scan_s=scan_s, sorted_scan_s=sorted_scan_s)
    stored = _stored(client)
    client.command("DROP DATABASE {name:Identifier} SYNC", {"name": name})
    client.close()
    return found, stored


def ratio(one: Asked) -> float:
    """How many times as long the scan takes."""
    return statistics.median(one.scan_s) / statistics.median(one.rollups_s)


def _timed(ask: Callable[[], Decimal], expected: Decimal) -> float:
    started_s = time.monotonic()
    found = ask()
    elapsed_s = time.monotonic() - started_s
    if found != expected:
        raise AssertionError(f"{found} instead of {expected}")
    return elapsed_s


def _stored(client: Client) -> Stored:
    sizes = {
        table: size / rows
        for table, size, rows in client.query(
            "SELECT table, sum(bytes_on_disk), sum(rows) FROM system.parts "
            "WHERE database = currentDatabase() AND active AND table IN ('events', 'rollups') GROUP BY table"
        ).result_rows
    }
    return Stored(
        event=sizes["events"],
        rollup=sizes["rollups"],
        json=client.query("SELECT avg(length(raw)) FROM events").result_rows[0][0],
    )
