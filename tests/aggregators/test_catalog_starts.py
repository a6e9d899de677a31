"""Where a new catalog begins on a partition is claimed once, whoever holds the partition."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from aggregators import catalog_starts
from aggregators.catalog_starts import Start
from billing_export.cut import ledger_cut
from metering import catalog_store
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.config import Settings
from schemas.catalog import Catalog
from schemas.errors import InvariantViolationError, PartitionTakenError
from schemas.meter import Aggregation, Meter
from tests.support.pipeline_rig import NOW, WAIT_S, CrashError, Life, check, crash_in, life
from tests.support.plain_log import CATALOG, Made, expected


@pytest.fixture
def client(changing_settings: Settings) -> Iterator[Client]:
    one = connect(changing_settings)
    yield one
    one.close()


def with_meters(*meters: Meter) -> Catalog:
    return msgspec.structs.replace(CATALOG, meters=(*CATALOG.meters, *meters))


def apply(client: Client, catalog: Catalog) -> None:
    catalog_store.apply(client, catalog, clock=FixedClock(NOW), applied_by="test")


EXTRA = Meter(name="extra", event_type="used", aggregation=Aggregation.COUNT)


@pytest.mark.parametrize("first_to_take_it_up", ["late", "next"])
def test_of_two_workers_that_hold_a_partition_one_begins_a_new_meter_and_the_other_ends(
    changing_settings: Settings, client: Client, epoch: str, first_to_take_it_up: str
) -> None:
    """`late` lost the partition and has come to offset 40 unflushed, `next` goes on from 0 and has come to 20."""
    log = [Made(subject=epoch, id=f"e{offset}", offset=offset) for offset in range(80)]
    clocks = {"late": FixedClock(NOW), "next": FixedClock(NOW)}
    come_to = {"late": 40, "next": 20}

    with (
        life(changing_settings, epoch, clock=clocks["late"], flush_events_max=1_000, name="late") as late,
        life(changing_settings, epoch, clock=clocks["next"], flush_events_max=1_000, name="next") as following,
    ):
        workers = {"late": late, "next": following}
        for name, worker in workers.items():
            worker.take_over(0)
            worker.put(log[: come_to[name]])
        apply(client, with_meters(EXTRA))
        for name in sorted(workers, key=lambda one: one != first_to_take_it_up):
            clocks[name].move_to(NOW + timedelta(seconds=10))
            workers[name].put(log[come_to[name] : come_to[name] + 10])
            with suppress(CrashError):
                workers[name].drain()
        (loser,) = (one for name, one in workers.items() if name != first_to_take_it_up)
        assert loser.ended.wait(WAIT_S)
        ended_with = loser.fatal.pop()
    with life(changing_settings, epoch) as last:
        last.run(log)

    start = come_to[first_to_take_it_up]
    assert isinstance(ended_with, PartitionTakenError)
    assert f"another worker took catalog version 2 up at offset {start}" in str(ended_with)
    found = client.query(
        "SELECT position_first, sum(events_count) FROM rollups FINAL WHERE meter = 'extra' GROUP BY position_first"
    ).result_rows
    assert found == [(start, 80 - start)]
    client.command("DELETE FROM rollups WHERE meter = 'extra'")
    check(client, epoch, expected(log), ledger_may_overlap=True)


def test_a_catalog_that_was_claimed_and_never_written_with_is_taken_up_where_it_was_claimed(
    changing_settings: Settings, client: Client, epoch: str
) -> None:
    """One worker claims offset 20 and dies; a zombie flushes up to 39 with the catalog before."""
    log = [Made(subject=epoch, id=f"e{offset}", offset=offset) for offset in range(60)]
    clock = FixedClock(NOW)

    def take_it_up(dying: Life) -> None:
        dying.take_over(0)
        dying.put(log[:20])
        apply(client, with_meters(EXTRA))
        clock.move_to(NOW + timedelta(seconds=10))
        dying.put(log[20:21])
        dying.drain()

    with life(changing_settings, epoch, flush_events_max=1_000, name="late") as late:
        late.take_over(0)
        late.put(log[:40])
        crash_in(changing_settings, epoch, "events", 2, take_it_up, clock=clock, flush_events_max=1_000, name="next")
        claimed = catalog_starts.claimed(client, epoch)[0][1:]
        late.drain()
    cut = ledger_cut(client)
    with life(changing_settings, epoch) as last:
        starts = last.take_over(0)
        last.put(log[starts[0] :])
        last.drain()

    assert claimed == [Start(partition=0, number=2, catalog_version=2, first=20)]
    assert [one.offset for one in cut.positions] == [19]
    assert starts == {0: 20}
    found = client.query(
        "SELECT position_first, sum(events_count) FROM rollups FINAL WHERE meter = 'extra' GROUP BY position_first"
    ).result_rows
    assert found == [(20, 40)]


def test_a_claim_may_be_repeated_and_another_of_its_number_is_refused(client: Client, epoch: str) -> None:
    """As after a lost answer, and as a worker that lost the partition would."""
    one = Start(partition=0, number=1, catalog_version=1, first=0)
    other = Start(partition=0, number=1, catalog_version=1, first=7)

    for _ in range(2):
        catalog_starts.claim(client, epoch, [one], at=NOW, worker="one")
    with pytest.raises(PartitionTakenError, match="one of the two has lost the partition"):
        catalog_starts.claim(client, epoch, [other], at=NOW, worker="other")

    assert catalog_starts.claimed(client, epoch) == {0: [one]}


def test_two_starts_under_one_number_stop_the_worker(client: Client, epoch: str) -> None:
    for first in (0, 7):
        client.insert("catalog_starts", [(epoch, 0, 1, 1, first, NOW, "w")], column_names=catalog_starts.COLUMNS)

    with pytest.raises(InvariantViolationError, match="insert token"):
        catalog_starts.claimed(client, epoch)
