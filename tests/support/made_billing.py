"""A small world to bill: customers in two zones, three charges, usage around the edges of January 2013, a ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.close import Closed, Closer
from billing_export.usage_reader import RollupReader
from metering import catalog_store
from metering.catalog_file import parse_catalog
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.config import Settings
from tests.support.made_usage import MadeEvent, UsageTables

CATALOG = """
meters:
  - {name: count, event_type: used, aggregation: count, unit: calls, group_by: {kind: kind, region: region}}
  - {name: sum, event_type: used, aggregation: sum, value: n, unit: GB, group_by: {kind: kind, region: region}}
  - {name: min, event_type: used, aggregation: min, value: n, group_by: {kind: kind, region: region}}
  - {name: max, event_type: used, aggregation: max, value: n, group_by: {kind: kind, region: region}}
  - {name: avg, event_type: used, aggregation: avg, value: n, group_by: {kind: kind, region: region}}
  - {name: latest, event_type: used, aggregation: latest, value: n, group_by: {kind: kind, region: region}}
  - {name: unique_count, event_type: used, aggregation: unique_count, value: user, unit: users,
     group_by: {kind: kind, region: region}}
customers:
  - {id: acme, name: "=Acme", subjects: [s1, s2], timezone: America/New_York}
  - {id: bolt, name: Bolt, subjects: [s3], currency: JPY}
plans:
  - id: standard
    charges:
      - {id: fee, model: flat, amount: 49.90, description: Base fee}
      - id: calls
        model: graduated
        meter: count
        description: Calls
        tiers:
          - {up_to: 2, unit_amount: 1.005}
          - {up_to: null, unit_amount: 0.5, flat_amount: 3}
      - {id: traffic, model: per_unit, meter: sum, unit_amount: 0.333, group_by: [region], description: Traffic}
  - id: yen
    currency: JPY
    charges:
      - {id: calls, model: per_unit, meter: count, unit_amount: 0.5}
      - {id: users, model: per_unit, meter: unique_count, unit_amount: 7}
      - {id: peak, model: per_unit, meter: max, unit_amount: 1}
      - {id: level, model: per_unit, meter: latest, unit_amount: 1}
      - {id: mean, model: per_unit, meter: avg, unit_amount: 1}
      - {id: low, model: per_unit, meter: min, unit_amount: 1}
subscriptions:
  - {id: acme-1, customer: acme, plan: standard, start: 2012-06-01}
  - {id: bolt-1, customer: bolt, plan: yen, start: 2013-01-10, end: 2013-02-01}
"""

METERS = """
meters:
  - {name: count, event_type: used, aggregation: count, unit: calls, group_by: {kind: kind, region: region}}
  - {name: sum, event_type: used, aggregation: sum, value: n, unit: GB, group_by: {kind: kind, region: region}}
"""
"""Two meters over the events of made usage, for catalogs of a test's own."""

REDUCED = """
customers:
  - {id: acme, subjects: [s1], discounts: [{id: friend, percent: 10}],
     credits: [{id: gift, amount: 100, currency: USD, start: 2013-01-01, expires: 2013-04-01}]}
plans:
  - id: one
    minimum: 100
    discounts: [{id: start, amount: 20, periods: 1}]
    charges:
      - {id: fee, model: flat, amount: 50, discounts: [{id: half, percent: 50, periods: 2}]}
      - {id: calls, model: per_unit, meter: count, unit_amount: 10}
subscriptions: [{id: a, customer: acme, plan: one, start: 2013-01-01}]
"""
"""A minimum, discounts of a charge, a plan and a customer, and prepaid credit; to be put behind METERS."""

CLOCK = FixedClock(datetime(2013, 2, 3, tzinfo=UTC))
GRACE_S = 86_400


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


JANUARY = [
    # acme's January runs from 05:00 UTC on 1 January to 05:00 UTC on 1 February.
    MadeEvent(offset=0, time=at("2013-01-01T04:59:59.999999"), value="1000"),
    MadeEvent(offset=1, time=at("2013-01-01T05:00"), value="0.1"),
    MadeEvent(offset=2, time=at("2013-01-15T12:00"), value="0.2", region="us", subject="s2"),
    MadeEvent(offset=3, time=at("2013-01-15T12:01"), value=None, region="us"),
    MadeEvent(offset=4, time=at("2013-02-01T04:59:59.999999"), value="12345678.123456789012"),
    MadeEvent(offset=5, time=at("2013-02-01T05:00"), value="1000"),
    # bolt's runs in UTC, and the subscription begins on the 10th.
    MadeEvent(offset=6, time=at("2013-01-09T23:59:59"), subject="s3", value="1000"),
    MadeEvent(offset=7, time=at("2013-01-10T00:00"), subject="s3", value="3", user="u1"),
    MadeEvent(offset=8, time=at("2013-01-20T00:00"), subject="s3", value="7", user="u2"),
    MadeEvent(offset=9, time=at("2013-01-20T00:00"), subject="s3", value="6", user="u1"),
]

LINES = [
    ("acme", "fee", "", "1", "49.9", "49.90"),
    ("acme", "calls", "", "4", "6.01", "6.01"),
    ("acme", "traffic", "eu", "12345678.223456789012", "4111110.848411110740996", "4111110.85"),
    ("acme", "traffic", "us", "0.2", "0.0666", "0.07"),
    ("bolt", "calls", "", "3", "1.5", "2"),
    ("bolt", "users", "", "2", "14", "14"),
    ("bolt", "peak", "", "7", "7", "7"),
    ("bolt", "level", "", "6", "6", "6"),
    ("bolt", "mean", "", "5.333333333333", "5.333333333333", "5"),
    ("bolt", "low", "", "3", "3", "3"),
]
"""(customer, charge, region, quantity, amount unrounded, amount) of every line of January, counted by hand."""


def store_world(tables: UsageTables, events: Sequence[MadeEvent] = JANUARY, catalog: str = CATALOG) -> None:
    """Apply a catalog, and fold the events as a worker would have, ledger included."""
    tables.clear()
    for table in ("positions", "runs", "line_items", "audit_log"):
        tables.client.command(f"TRUNCATE TABLE {table}")
    apply(tables, catalog)
    fold(tables, events)


def apply(tables: UsageTables, catalog: str) -> None:
    """Apply a catalog's text."""
    catalog_store.apply(tables.client, parse_catalog(catalog), clock=CLOCK, applied_by="test")


def fold(tables: UsageTables, events: Sequence[MadeEvent], log: Sequence[MadeEvent] = ()) -> None:
    """Fold events of one partition that follow each other in the log, and enter them in the ledger.

    `log` are the events before them, where corrections take any of these out.
    """
    tables.fold([*log, *events], flush_every=1000)
    tables.client.insert(
        "positions",
        [
            (
                events[0].epoch,
                "usage.events.v1",
                events[0].partition,
                events[0].offset,
                events[-1].offset,
                len(events),
                sum(one.digest for one in events) % 2**128,
                1,
            )
        ],
        column_names=["epoch", "topic", "partition", "first", "last", "accepted", "digest", "catalog_version"],
    )


def closer(client: Client, **changes: object) -> Closer:
    """One who closes as the command does, at a time when January and its grace are over."""
    arguments: dict[str, object] = {
        "client": client,
        "read_usage": RollupReader(client),
        "clock": CLOCK,
        "grace_s": GRACE_S,
        "closed_by": "ada@engine",
        "code_version": "test",
    }
    return Closer(**{**arguments, **changes})  # type: ignore[arg-type]


def close(client: Client, label: str = "2013-01", *, force: bool = False, **changes: object) -> Closed:
    """Close a period, everybody in it."""
    return closer(client, **changes).close(label, force=force)


def other_connection(settings: Settings) -> Client:
    """A second client on the same database: clients are for one thread."""
    return connect(msgspec.structs.replace(settings))
