"""Rebuilding from stored events: the same rows as the worker wrote, whatever was lost, changed or came later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from aggregators.rebuild import Rebuild, Rebuilt
from metering import catalog_store
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.config import Settings
from schemas.meter import Aggregation, Meter
from tests.support.pipeline_rig import NOW, life
from tests.support.plain_log import CATALOG, made_log

Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def client(changing_settings: Settings) -> Iterator[Client]:
    one = connect(changing_settings)
    yield one
    one.close()


def rebuild(settings: Settings, client: Client, meters: Sequence[str] | None = None, *, write: bool) -> Rebuilt:
    catalog = catalog_store.latest(client)
    assert catalog is not None
    return Rebuild(lambda database: connect(settings, database=database), catalog, meters or list(catalog.meters)).run(
        write=write
    )


def rows(client: Client) -> Rows:
    """Every row of both tables, whole, in a fixed order."""
    return {
        table: [tuple(row) for row in client.query(f"SELECT * FROM {table} FINAL ORDER BY ALL").result_rows]  # noqa: S608
        for table in ("rollups", "members")
    }


@pytest.fixture
def folded(changing_settings: Settings, client: Client, epoch: str) -> Rows:
    """What a worker wrote of a log with repeats and bad records, in two lives."""
    log = made_log(7, 400, prefix=epoch)
    with life(changing_settings, epoch) as worker:
        worker.run(log[:250])
    with life(changing_settings, epoch) as worker:
        worker.run(log)
    return rows(client)


def test_a_rebuild_of_everything_equals_what_the_worker_wrote_row_for_row(
    changing_settings: Settings, client: Client, folded: Rows
) -> None:
    for table in folded:
        client.command(f"TRUNCATE TABLE {table}")

    done = rebuild(changing_settings, client, write=True)

    assert rows(client) == folded
    assert folded["rollups"]
    assert folded["members"]
    assert not done.is_same


def test_a_rebuild_of_what_is_right_writes_nothing(changing_settings: Settings, client: Client, folded: Rows) -> None:
    done = rebuild(changing_settings, client, write=True)

    assert done.is_same
    assert done.events_read > 0
    assert rows(client) == folded


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM rollups WHERE cityHash64(subject, window_start) % 2 = 0",
        "DELETE FROM members WHERE cityHash64(member) % 2 = 0",
        "INSERT INTO rollups SELECT * REPLACE (value_sum + 1 AS value_sum) FROM rollups",
        "INSERT INTO rollups SELECT * REPLACE ('nobody' AS subject) FROM rollups",
        "INSERT INTO rollups SELECT * REPLACE (position + 1 AS position, 7 AS digest) FROM rollups WHERE position < 50",
        "INSERT INTO members SELECT * REPLACE ('nobody' AS member) FROM members",
    ],
)
def test_damage_is_found_and_mended_twice_over(
    changing_settings: Settings, client: Client, folded: Rows, damage: str
) -> None:
    """Twice, because the second mending writes the very rows of the first, which must not be dropped as a repeat."""
    for _ in range(2):
        client.command(damage)
        found = rebuild(changing_settings, client, write=False)
        assert not found.is_same

        rebuild(changing_settings, client, write=True)

        assert rows(client) == folded


def test_a_check_writes_nothing(changing_settings: Settings, client: Client, folded: Rows) -> None:
    client.command("TRUNCATE TABLE rollups")

    done = rebuild(changing_settings, client, write=False)

    assert [(one.table, one.missing, one.surplus) for one in done.differences] == [
        ("group_overflows", 0, 0),
        ("members", 0, 0),
        ("rollups", len(folded["rollups"]), 0),
    ]
    assert rows(client)["rollups"] == []


def test_a_meter_that_came_later_is_filled_up_to_where_live_folding_began(
    changing_settings: Settings, client: Client, epoch: str
) -> None:
    """Applied in the middle of the log; filled, it has the same sums as its twin that was there from the start."""
    log = made_log(19, 300, prefix=epoch)
    twin = next(one for one in CATALOG.meters if one.aggregation is Aggregation.SUM)
    late = Meter(
        name="late_twin",
        event_type=twin.event_type,
        aggregation=twin.aggregation,
        value=twin.value,
        filters=twin.filters,
        group_by=twin.group_by,
    )
    clock = FixedClock(NOW)
    with life(changing_settings, epoch, clock=clock) as worker:
        worker.run(log[:150])
    catalog_store.apply(
        client,
        msgspec.structs.replace(CATALOG, meters=(*CATALOG.meters, late)),
        clock=clock,
        applied_by="test",
    )
    clock.move_to(NOW + timedelta(seconds=10))
    with life(changing_settings, epoch, clock=clock) as worker:
        worker.run(log)
    before = sums(client, "late_twin")
    assert before != sums(client, twin.name)

    done = rebuild(changing_settings, client, ["late_twin"], write=True)

    assert sums(client, "late_twin") == sums(client, twin.name)
    assert done.unreadable == 0
    assert rebuild(changing_settings, client, write=False).is_same


def sums(client: Client, meter: str) -> list[tuple[Any, ...]]:
    """What a meter comes to per subject, window and dimensions, over all of its series."""
    return [
        tuple(row)
        for row in client.query(
            "SELECT subject, window_start, dimensions, sum(events_count), sum(value_sum), sum(digest) "
            "FROM rollups FINAL WHERE meter = {meter:String} GROUP BY ALL ORDER BY ALL",
            {"meter": meter},
        ).result_rows
    ]
