"""A catalog that changes while the worker runs: what was counted stays, what is new begins at a recorded place."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from metering import catalog_store
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.config import Settings
from schemas.catalog import AppliedCatalog, Catalog
from schemas.meter import Aggregation, Meter
from tests.support.invariants import wait_for
from tests.support.pipeline_rig import NOW, check, crash_in, life
from tests.support.plain_log import CATALOG, Made, expected, made_log

NEW_YEAR = datetime(2013, 1, 1, tzinfo=UTC)


@pytest.fixture
def client(changing_settings: Settings) -> Iterator[Client]:
    one = connect(changing_settings)
    yield one
    one.close()


def with_meters(*meters: Meter, event_types: tuple[str, ...] = ("idle",)) -> Catalog:
    """The plain log's catalog with these meters added, or put in place of those of the same name."""
    names = {one.name for one in meters}
    kept = tuple(one for one in CATALOG.meters if one.name not in names)
    return msgspec.structs.replace(CATALOG, meters=(*kept, *meters), event_types=event_types)


def apply(client: Client, catalog: Catalog) -> None:
    catalog_store.apply(client, catalog, clock=FixedClock(NOW), applied_by="test")


def test_a_meter_that_comes_later_counts_from_a_recorded_position_on(
    changing_settings: Settings, client: Client, epoch: str
) -> None:
    """Position 60 of each partition: what came before is for `rebuild`, nothing in between is left out."""
    log = made_log(41, 240, prefix=epoch)
    parts = {number: [one for one in log if one.partition == number] for number in (0, 1)}
    sources = Meter(
        name="sources",
        event_type="used",
        aggregation=Aggregation.UNIQUE_COUNT,
        value="region",
        group_by={"who": "user"},
    )
    clock = FixedClock(NOW)

    def fold(first: int, last: int) -> None:
        for number in (0, 1):
            worker.put(parts[number][first:last])

    with life(changing_settings, epoch, clock=clock) as worker:
        worker.take_over(0, 1)
        fold(0, 60)  # not all of it flushed when the catalog changes
        wait_for("folding", lambda: worker.pipeline.positions == {0: 60, 1: 60})
        apply(client, with_meters(sources))
        clock.move_to(NOW + timedelta(seconds=10))
        fold(60, 80)
        worker.drain()
    with life(changing_settings, epoch) as worker:
        worker.take_over(0, 1)
        fold(80, 500)
        worker.drain()

    wanted = expected(log)
    later = [one for one in log if (one.partition, one.offset) in wanted.accepted and one.offset >= 60]
    counted = {
        (one.subject, one.window_s, one.user or "", one.partition, one.region) for one in later if one.type == "used"
    }
    found = client.query(
        "SELECT subject, toUnixTimestamp(window_start), dimensions['who'], partition, member FROM members FINAL "
        "WHERE meter = 'sources' AND position_first = 60"
    ).result_rows
    events = client.query("SELECT sum(events_count) FROM rollups FINAL WHERE meter = 'sources'").result_rows[0][0]
    assert set(found) == counted
    assert len(found) == len(counted)
    assert events == sum(1 for one in later if one.type == "used")
    client.command("DELETE FROM members WHERE meter = 'sources'")
    client.command("DELETE FROM rollups WHERE meter = 'sources'")
    check(client, epoch, wanted)  # and every other meter is as if nothing had changed
    versions = client.query(
        "SELECT partition, catalog_version, min(first), max(last) FROM positions FINAL "
        "GROUP BY partition, catalog_version ORDER BY partition, catalog_version"
    ).result_rows
    assert versions == [
        (number, version, first, last)
        for number in (0, 1)
        for version, first, last in [(1, 0, 59), (2, 60, len(parts[number]) - 1)]
    ]


def test_a_changed_meter_counts_each_event_in_the_version_of_its_own_time(
    changing_settings: Settings, client: Client, epoch: str
) -> None:
    """`total` adds `n` until noon and `deep.app` from noon on, whenever the event arrives."""
    noon = NEW_YEAR + timedelta(hours=12)
    changed = Meter(name="total", event_type="used", aggregation=Aggregation.SUM, value="deep.app", effective_from=noon)
    apply(client, with_meters(changed))
    times = [noon - timedelta(microseconds=1), noon, noon - timedelta(hours=5), noon + timedelta(days=40)]
    log = [
        Made(subject=epoch, id=f"e{offset}", offset=offset, time=time, n="1", app="100")
        for offset, time in enumerate(times)
    ]

    with life(changing_settings, epoch) as worker:
        worker.run(log)

    sums = client.query(
        "SELECT meter_version, sum(value_sum), min(window_start) < {noon:DateTime('UTC')} FROM rollups FINAL "
        "WHERE meter = 'total' GROUP BY meter_version ORDER BY meter_version",
        {"noon": noon},
    ).result_rows
    assert sums == [(1, Decimal(2), True), (2, Decimal(200), False)]


def test_a_busy_worker_finds_a_new_catalog_while_it_writes_and_folding_waits_for_no_answer(
    changing_settings: Settings, client: Client, epoch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FixedClock(NOW)
    asked: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    with life(changing_settings, epoch, clock=clock) as worker:
        ask = worker.store.catalog

        def told(known: AppliedCatalog | None) -> AppliedCatalog | None:
            newest = ask(known)
            asked.put((threading.current_thread().name, newest.version if newest else 0))
            return newest

        monkeypatch.setattr(worker.store, "catalog", told)
        worker.take_over(0)
        apply(client, with_meters(event_types=("idle", "fresh")))
        clock.move_to(NOW + timedelta(seconds=1.5))  # the fold thread itself would ask after two
        for offset in range(3):
            worker.put([Made(subject=epoch, id=str(offset), offset=offset)])
            worker.drain()

    assert [asked.get(), asked.get(), asked.empty()] == [("fold", 1), ("write", 2), True]
    ledger = client.query("SELECT first, catalog_version FROM positions FINAL ORDER BY first").result_rows
    assert (ledger[0], ledger[-1]) == ((0, 1), (2, 2))


def test_an_event_sent_after_its_type_was_applied_is_never_unknown(
    changing_settings: Settings, client: Client, epoch: str
) -> None:
    """The worker's clock stands still: however shortly ago it read the catalog, it asks before it rejects."""
    with life(changing_settings, epoch) as worker:
        worker.take_over(0)
        worker.put([Made(subject=epoch, id="known")])
        worker.drain()
        apply(client, with_meters(event_types=("idle", "fresh")))
        worker.put([Made(subject=epoch, id="fresh", type="fresh", offset=1)])
        worker.put([Made(subject=epoch, id="stale", type="stale", offset=2, reason="unknown_type", bad=stale(epoch))])
        worker.drain()

    ledger = client.query("SELECT sum(accepted), sum(rejected) FROM positions FINAL").result_rows
    assert ledger == [(2, 1)]
    assert client.query("SELECT offset, reason FROM dead_letters FINAL").result_rows == [(2, "unknown_type")]


def stale(subject: str) -> bytes:
    return Made(subject=subject, id="stale", type="stale").raw or b""


@pytest.mark.parametrize("step", ["events", "rollups", "dead_letters"])
def test_an_event_that_a_dead_worker_had_accepted_stays_accepted_under_a_stricter_catalog(
    changing_settings: Settings, client: Client, epoch: str, step: str
) -> None:
    """Under the second catalog `region` is a number, which 'eu' is not; the first worker died before its ledger row."""
    log = [Made(subject=epoch, id=f"e{offset}", offset=offset) for offset in range(10)]
    stricter = Meter(name="regions", event_type="used", aggregation=Aggregation.SUM, value="region")

    crash_in(changing_settings, epoch, step, 1, lambda one: one.run(log, batch_max=10))
    apply(client, with_meters(stricter))
    late = Made(subject=epoch, id="late", offset=10, reason="invalid_number", bad=Made(subject=epoch, id="late").raw)
    again = msgspec.structs.replace(log[0], offset=11)
    with life(changing_settings, epoch) as worker:
        worker.run([*log, late, again])

    check(client, epoch, expected([*log, late, again]))
