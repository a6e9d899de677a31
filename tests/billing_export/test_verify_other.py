"""Lines of values that were too many for their meter are frozen, proved and explained like any other."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.explain_events import Tallied, event_page
from billing_export.line_store import read_lines
from billing_export.verify import verify_period
from metering import catalog_store
from metering.catalog_file import parse_catalog
from metering.clickhouse import connect
from metering.config import Settings
from metering.migrate import migrate
from metering.testing import ClickHouseUnderTest
from metering.usage.event_values import EventValuesQuery, event_values
from schemas.line_item import decode_line_item
from schemas.usage_query import By, UsageQuery
from tests.support.made_billing import CATALOG, CLOCK, at, close
from tests.support.pipeline_rig import life
from tests.support.plain_log import Made

NOON = at("2013-01-15T12:00")
LOG = [
    Made(offset=0, subject="s1", id="1", time=NOON, region="eu", n="1"),
    Made(offset=1, subject="s1", id="2", time=NOON, region="us", n="10"),
    Made(offset=2, subject="s1", id="3", time=NOON + timedelta(hours=2), region="asia", n="100"),
    Made(offset=3, subject="s1", id="4", time=NOON + timedelta(hours=3), region="eu", n="2"),
    # Another subject and another day keep values of their own.
    Made(offset=4, subject="s2", id="5", time=NOON, region="us", n="1000"),
    Made(offset=5, subject="s1", id="6", time=NOON + timedelta(days=1), region="us", n="20"),
]
TRAFFIC = {"eu": "3", "us": "1020", "other": "110"}


@pytest.fixture
def client(clickhouse: ClickHouseUnderTest, database: str) -> Iterator[Client]:
    """A month that a worker folded, with a meter that tells one value a day apart."""
    settings = Settings(
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=database,
    )
    one = connect(settings)
    migrate(one)
    catalog = parse_catalog(CATALOG.replace("{name: sum,", "{name: sum, group_values_max: 1,"))
    catalog_store.apply(one, catalog, clock=CLOCK, applied_by="test")
    with life(settings, "log-1") as worker:
        worker.run(LOG, batch_max=2)
    yield one
    one.close()


def test_a_line_of_other_values_is_frozen_and_proved(client: Client) -> None:
    close(client)

    items = [decode_line_item(one.document) for one in read_lines(client, runs.closed(client, "2013-01"))]
    assert {one.dimensions["region"]: one.quantity for one in items if one.charge == "traffic"} == TRAFFIC
    assert verify_period(client, "2013-01").differences == ()

    client.command("TRUNCATE TABLE group_overflows")
    assert len(verify_period(client, "2013-01").differences) > 1


def test_the_events_of_a_line_of_other_values_are_those_that_were_counted_there(client: Client) -> None:
    catalog = catalog_store.latest(client)
    assert catalog is not None
    query = UsageQuery(
        meter="sum",
        start=at("2013-01-01T05:00"),
        end=at("2013-02-01T05:00"),
        by=By.CUSTOMER,
        customers=("acme",),
        group_by=("region",),
    )

    page = event_page(client, catalog, query, {"region": "other"}, counting=Tallied, page=1, page_size=10)

    assert [(one.id, one.value) for one in page.events] == [("2", "10"), ("3", "100")]
    assert page.quantity == TRAFFIC["other"]


def test_single_values_stand_under_other_too(client: Client) -> None:
    catalog = catalog_store.latest(client)
    assert catalog is not None
    query = EventValuesQuery(
        meter="sum", start=at("2013-01-01T05:00"), end=at("2013-02-01T05:00"), customers=("acme",), group_by=("region",)
    )

    found = sorted((one.dimensions[0], int(one.value)) for one in event_values(client, catalog, query))

    assert found == [("eu", 1), ("eu", 2), ("other", 10), ("other", 100), ("us", 20), ("us", 1000)]
