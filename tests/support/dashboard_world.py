"""A dashboard on a port with the portal beside it, over a small world with usage, bills, a correction, dead letters."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import msgspec
import uvicorn

from metering.clock import FixedClock
from metering.dashboard.app import create_dashboard
from metering.embedded.ports import free_ports
from metering.kafka import ensure_topics
from metering.portal.app import beside, create_portal
from metering.portal.links import make_link
from metering.testing import ClickHouseUnderTest, KafkaUnderTest
from schemas.topics import USAGE_EVENTS
from tests.support.made_billing import CATALOG, close, fold, store_world
from tests.support.made_usage import MadeEvent, UsageTables, usage_tables

CLOCK = FixedClock(datetime(2013, 2, 18, 9, 30, tzinfo=UTC))
GOALS = """
goals:
  - {id: grow, kpi: mrr, currency: USD, target: 60, tolerance: 15}
  - {id: keep, kpi: customer_churn_rate, currency: USD, direction: at_most, target: 5, tolerance: 5}
"""
STARTED_S = 60
PORTAL_SECRET = "a secret of thirty-two characters or more"
LETTER = (
    b'{"specversion":"1.0","id":"odd-1","source":"/shop","type":"refund","subject":"s1",'
    b'"time":"2013-02-10T11:00:00Z","data":{"n":"3"}}'
)


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Where the dashboard answers, the tables it reads, and a link to one customer's portal beside it."""

    address: str
    tables: UsageTables
    portal_link: str


def month_of_use() -> list[MadeEvent]:
    """Usage of every day of January and half of February: more on weekdays, in two regions, by three subjects."""
    start, made = datetime(2013, 1, 1, 6, tzinfo=UTC), []
    for day in range(48):
        at = start + timedelta(days=day)
        for number in range(2 if at.weekday() >= 5 else 5):
            for subject, region in (("s1", "eu"), ("s2", "us"), ("s3", "eu"))[: 1 + (day + number) % 3]:
                made.append((at + timedelta(hours=2 * number, minutes=7), subject, region))
    return [
        MadeEvent(
            time=time, subject=subject, region=region, value=f"{3 + place % 7}.{place % 10}", user=f"u{place % 4}",
            kind="ab"[place % 2], offset=place,
        )
        for place, (time, subject, region) in enumerate(made)
    ]  # fmt: skip


def fill(tables: UsageTables) -> None:
    """Two closed months' worth of things to look at."""
    events = month_of_use()
    store_world(tables, events, CATALOG + GOALS)
    close(tables.client)
    fold(tables, [MadeEvent(time=datetime(2013, 1, 30, 9, tzinfo=UTC), value="50", offset=len(events))])
    now = CLOCK.now()
    ledger = [
        ("log-1", "usage.events.v1", 1, 100 * minute, 100 * minute + 99, 80 + minute % 17, minute % 5, minute % 3, 1,
         now - timedelta(minutes=minute, seconds=30), now - timedelta(minutes=minute, seconds=29))
        for minute in range(1, 60)
    ]  # fmt: skip
    tables.client.insert(
        "positions",
        ledger,
        column_names=["epoch", "topic", "partition", "first", "last", "accepted", "duplicate", "rejected",
                      "catalog_version", "logged_at_last", "flushed_at"],
    )  # fmt: skip
    at = datetime(2013, 2, 10, 12, tzinfo=UTC)
    letters = [
        (
            "log-1",
            USAGE_EVENTS,
            0,
            900,
            "unknown_type",
            "type",
            "refund is no type that a meter reads",
            b"s1",
            LETTER,
            at,
            1,
        ),
        ("log-1", USAGE_EVENTS, 0, 901, "not_json", "", "unexpected end of input", b"s2", b'{"specversion":"1.', at, 1),
        (
            "log-1",
            USAGE_EVENTS,
            1,
            77,
            "unknown_type",
            "type",
            "refund is no type that a meter reads",
            b"s1",
            LETTER,
            at,
            1,
        ),
    ]
    tables.client.insert("dead_letters", letters)


@contextmanager
def served_dashboard(clickhouse: ClickHouseUnderTest, kafka: KafkaUnderTest) -> Iterator[Served]:
    """The dashboard over that world, on a port of its own; numbers that are counted beside pages are waited for."""
    [port] = free_ports(1)
    with usage_tables(clickhouse) as tables:
        fill(tables)
        settings = msgspec.structs.replace(
            tables.settings, kafka_servers=kafka.bootstrap, dashboard_port=port, portal_secret=PORTAL_SECRET
        )
        ensure_topics(settings)
        app = beside(
            create_dashboard(settings, clock=CLOCK, patience_s=STARTED_S),
            create_portal(settings, clock=CLOCK, patience_s=STARTED_S),
        )
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        deadline_s = time.monotonic() + STARTED_S
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        try:
            link = make_link(settings, "acme", expires_in=timedelta(days=1), now=CLOCK.now())
            yield Served(address=f"http://127.0.0.1:{port}", tables=tables, portal_link=link.url)
        finally:
            server.should_exit = True
            thread.join()
