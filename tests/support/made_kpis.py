"""A small world for KPIs: subscriptions from a catalog's text, business facts as events, and views read by month."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from metering import catalog_store
from metering.catalog_file import parse_catalog
from metering.clock import FixedClock
from tests.support.made_usage import EVENT_COLUMNS, UsageTables

APPLIED_AT = datetime(2024, 1, 1, tzinfo=UTC)
TABLES = (
    "subscription_facts", "catalog_versions", "subjects", "events", "corrections", "rollups", "members", "line_items",
    "runs", "positions", "dead_letters", "dead_letter_states",
)  # fmt: skip


def clear(tables: UsageTables) -> None:
    """Empty every table that a KPI reads."""
    for table in TABLES:
        tables.client.command(f"TRUNCATE TABLE {table}")


def apply(tables: UsageTables, catalog: str) -> int:
    """Apply a catalog's text; returns its version."""
    clock = FixedClock(APPLIED_AT)
    return catalog_store.apply(tables.client, parse_catalog(catalog), clock=clock, applied_by="test").version


def answer(tables: UsageTables, sql: str) -> tuple[tuple[str, ...], tuple[tuple[str | None, ...], ...]]:
    """The columns of a query's answer, and its rows: each value as ClickHouse writes it, NULL as None."""
    text = tables.client.raw_query(sql, fmt="TabSeparatedWithNames").decode()
    head, *lines = [tuple(line.split("\t")) for line in text.removesuffix("\n").split("\n")]
    return head, tuple(tuple(None if cell == "\\N" else cell for cell in line) for line in lines)


def rows(tables: UsageTables, sql: str) -> list[tuple[str | None, ...]]:
    """The rows of a query's answer."""
    return list(answer(tables, sql)[1])


def business_facts(tables: UsageTables, facts: Sequence[tuple[str, str, str, dict[str, Any]]]) -> None:
    """Store events as a worker would have: (type, subject, time, data), in the order of the log."""
    made = []
    for offset, (kind, subject, time, data) in enumerate(facts):
        moment = datetime.fromisoformat(time).replace(tzinfo=UTC)
        raw = json.dumps({"specversion": "1.0", "id": str(offset), "source": "/crm", "type": kind, "subject": subject,
                          "time": f"{time}Z", "data": data})  # fmt: skip
        digest = int.from_bytes(sha256(raw.encode()).digest()[:16], "little")
        made.append((subject, "/crm", str(offset), kind, moment, "log-1", 0, offset, moment, digest, raw))
    tables.client.insert("events", made, column_names=EVENT_COLUMNS)
