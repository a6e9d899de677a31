"""The example of docs/kpis.md, as the page writes it: catalog, events, frozen lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid5

from metering.testing import ClickHouseUnderTest
from tests.support.documented_queries import block_of
from tests.support.made_kpis import apply, business_facts
from tests.support.made_usage import EPOCH, UsageTables, usage_tables

NAMES = UUID("6a5b7f50-6a5e-4c39-8a5e-0d4b38a4d2c1")
PAGE = "kpis.md"


@contextmanager
def example_world(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    """A database with the page's catalog in force, and its events and lines stored."""
    with usage_tables(clickhouse) as tables:
        apply(tables, block_of(PAGE, "yaml"))
        events = [json.loads(line) for line in block_of(PAGE, "json").splitlines()]
        facts = [(one["type"], one["subject"], one["time"], one["data"]) for one in events]
        business_facts(tables, facts)
        measure(tables, [(subject, time) for kind, subject, time, _ in facts if kind == "request"])
        freeze(tables, block_of(PAGE, "csv"))
        enter(tables, len(facts))
        reject(tables)
        yield tables


def measure(tables: UsageTables, requests: list[tuple[str, str]]) -> None:
    """Roll requests up, each in a window of its own, as the page's meter `requests` counts them."""
    for offset, (subject, time) in enumerate(requests):
        moment = datetime.fromisoformat(time).replace(tzinfo=UTC)
        row: tuple[object, ...] = (
            "requests",
            subject,
            moment,
            {},
            1,
            "log-1",
            0,
            0,
            offset,
            1,
            Decimal(1),
            moment,
            offset,
            offset,
        )
        columns = (
            "meter", "subject", "window_start", "dimensions", "meter_version", "epoch", "partition", "position_first",
            "position", "events_count", "value_sum", "latest_time", "latest_offset", "digest",
        )  # fmt: skip
        tables.client.insert("rollups", [row], column_names=columns)


def freeze(tables: UsageTables, lines: str) -> None:
    """Store lines of one closed run. `reduces` names the kind of the customer's line that a discount is for."""
    rows = []
    for number, one in enumerate(csv.DictReader(lines.splitlines())):
        year, month = (int(part) for part in one["period"].split("-"))
        reduces = uuid5(NAMES, f"{one['customer']}/{one['reduces']}") if one["reduces"] else None
        rows.append(
            (
                "run-1", number, uuid5(NAMES, f"{one['customer']}/{one['kind']}"), one["period"], "UTC",
                datetime(year, month, 1, tzinfo=UTC), one["customer"], one["kind"], reduces, Decimal(one["amount"]),
                "USD",
            )
        )  # fmt: skip
    columns = (
        "run", "line_number", "id", "period", "timezone", "period_start", "customer", "kind", "reduces", "amount",
        "currency",
    )  # fmt: skip
    tables.client.insert("line_items", rows, column_names=columns)
    states = [("run-1", "2024-03", state, EPOCH) for state in ("closing", "closed", "exported")]
    tables.client.insert("runs", states, column_names=("run", "period", "state", "at"))


def enter(tables: UsageTables, count: int) -> None:
    """Enter all but the last two of `count` events in the ledger."""
    at = datetime(2024, 3, 6, 12, tzinfo=UTC)
    row = ("log-1", "usage.events.v1", 0, 0, count - 3, count - 2, 0, 0, 0, 0, 1, at, at, "w", "0.1.0")
    tables.client.insert("positions", [row])


def reject(tables: UsageTables) -> None:
    """Two dead letters of 6 March, of which one was sent again."""
    at = datetime(2024, 3, 6, 12, tzinfo=UTC)
    columns = ("epoch", "topic", "partition", "offset", "reason", "logged_at")
    letters = [("log-1", "usage.events.v1", 0, offset, "unknown_type", at) for offset in (100, 101)]
    tables.client.insert("dead_letters", letters, column_names=columns)
    states = [
        ("log-1", "usage.events.v1", 0, 101, state, when) for state, when in (("discarded", EPOCH), ("replayed", at))
    ]
    tables.client.insert(
        "dead_letter_states", states, column_names=("epoch", "topic", "partition", "offset", "state", "at")
    )
