"""Any usage: what is closed from rollups is what verify counts from events, and both are what plain Python counts."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from random import Random

import pytest

from billing_export import runs
from billing_export.line_store import read_lines
from billing_export.verify import verify_period
from schemas.line_item import LineItem, decode_line_item
from schemas.quantity import format_quantity
from tests.support.made_billing import at, close, store_world
from tests.support.made_usage import MadeEvent, UsageTables, counted, plain_quantity

EDGES = [at("2013-01-01T05:00"), at("2013-01-10T00:00"), at("2013-02-01T00:00"), at("2013-02-01T05:00")]


def random_events(random: Random) -> list[MadeEvent]:
    """Events on, just before and around the edges of periods and subscriptions, with values of every length."""
    events = []
    for offset in range(120):
        time = random.choice(EDGES) + timedelta(
            microseconds=random.choice([-1, 0, 1]), minutes=random.choice([0, 0, 14, 15, -15, -10_000, 10_000])
        )
        value = f"{random.randrange(-(10**18) + 1, 10**18)}.{random.randrange(10**12):012}"
        events.append(
            MadeEvent(
                offset=offset,
                time=time,
                subject=random.choice(["s1", "s2", "s3", "nobody"]),
                value=random.choice([None, "0", "-1.5", value]),
                region=random.choice(["eu", "us", ""]),
                user=random.choice("abc"),
            )
        )
    return events


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_lines_are_what_plain_python_counts_and_verify_agrees(world: UsageTables, seed: int) -> None:
    events = random_events(Random(seed))
    store_world(world, events)
    owners = {"s1": "acme", "s2": "acme", "s3": "bolt"}

    run = close(world.client).run

    assert verify_period(world.client, "2013-01").differences == ()
    items = [
        decode_line_item(line.document) for line in read_lines(world.client, runs.closed(world.client, run.period))
    ]
    for item in items:
        assert (item.quantity, item.events_count, item.digest) == expected(item, events, owners), item


def expected(item: LineItem, events: list[MadeEvent], owners: dict[str, str]) -> tuple[str, int, str]:
    if item.meter is None:
        return "1", 0, "0" * 32
    mine = [
        one
        for one in counted(events, item.meter)
        if owners.get(one.subject) == item.customer
        and item.service_start <= one.time < item.service_end
        and one.region == item.dimensions.get("region", one.region)
    ]
    quantity = plain_quantity(item.meter, mine) if mine else Decimal(0)
    return format_quantity(quantity), len(mine), f"{sum(one.digest for one in mine) % 2**128:032x}"
