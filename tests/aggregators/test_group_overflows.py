"""More values of a dimension than a meter takes: the first are told apart, the rest is `other`, no total moves."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.client import Client
from structlog.testing import capture_logs

from aggregators.erase_copies import copy_rollups
from aggregators.erase_rows import delete_rows, left_behind
from aggregators.flush import STEPS
from aggregators.metrics import GROUP_OVERFLOWS
from aggregators.rebuild import Rebuild, Rebuilt
from metering import catalog_store
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.config import Settings
from metering.migrate import migrate
from metering.testing import ClickHouseUnderTest
from metering.usage.answer import answer
from metering.usage.recount import recount
from schemas.catalog import Catalog
from schemas.usage_query import By, Cut, Position, UsageQuery, Window
from tests.support.corrected_log import CATALOG as CORRECTED
from tests.support.corrected_log import corrected_log, stored_tables
from tests.support.pipeline_rig import NOW, Life, check, crash_in, life
from tests.support.plain_log import CATALOG, EXACTLY, Made, expected, made_log

VALUES_MAX = 2
TABLES = ("group_overflows", "rollups", "members")


def limited(catalog: Catalog, values_max: int = VALUES_MAX) -> Catalog:
    """The catalog, with meters that take few values."""
    meters = tuple(msgspec.structs.replace(one, group_values_max=values_max) for one in catalog.meters)
    return msgspec.structs.replace(catalog, meters=meters)


@pytest.fixture
def settings(clickhouse: ClickHouseUnderTest, database: str) -> Settings:
    """A database whose meters tell two values of a dimension apart."""
    settings = Settings(
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=database,
    )
    client = connect(settings)
    migrate(client)
    catalog_store.apply(client, limited(CATALOG), clock=FixedClock(NOW), applied_by="test")
    client.close()
    return settings


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    one = connect(settings)
    yield one
    one.close()


def rebuild(settings: Settings, client: Client, *, write: bool) -> Rebuilt:
    catalog = catalog_store.latest(client)
    assert catalog is not None
    return Rebuild(lambda database: connect(settings, database=database), catalog, list(catalog.meters)).run(
        write=write
    )


def rows(client: Client) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the tables, whole, in a fixed order."""
    return {
        table: [tuple(row) for row in client.query(f"SELECT * FROM {table} FINAL ORDER BY ALL").result_rows]  # noqa: S608
        for table in TABLES
    }


def test_a_worker_tells_the_first_values_apart_and_counts_the_rest_as_other(
    settings: Settings, client: Client, epoch: str
) -> None:
    log = made_log(3, 300, prefix=epoch)
    wanted = expected(log, values_max=VALUES_MAX)
    assert any("other" in dict(key[3]).values() for key in wanted.rollups)

    with life(settings, epoch, flush_events_max=30) as worker:
        worker.run(log)

    check(client, epoch, wanted)


def test_no_total_moves_because_values_are_counted_together(settings: Settings, client: Client, epoch: str) -> None:
    log = made_log(4, 300, prefix=epoch)
    wanted: dict[tuple[str, str], list[Any]] = defaultdict(lambda: [0, Decimal(0), 0])
    for (meter, subject, *_), row in expected(log).rollups.items():
        total = wanted[meter, subject]
        total[0] += row.events_count
        total[1] = EXACTLY.add(total[1], row.value_sum)
        total[2] = (total[2] + row.digest) % (1 << 128)

    with life(settings, epoch) as worker:
        worker.run(log)

    found = client.query(
        "SELECT meter, subject, sum(events_count), sum(value_sum), sum(digest) FROM rollups FINAL GROUP BY ALL"
    )
    assert {(row[0], row[1]): list(row[2:]) for row in found.result_rows} == dict(wanted)


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_that_dies_goes_on_with_the_same_values(
    settings: Settings, client: Client, epoch: str, step: str
) -> None:
    log = made_log(len(step), 200, prefix=epoch)

    crash_in(settings, epoch, step, 2, lambda one: one.run(log, batch_max=9), flush_events_max=20)
    with life(settings, epoch, flush_events_max=50) as worker:
        worker.run(log, batch_max=31, seed=1)

    check(client, epoch, expected(log, values_max=VALUES_MAX))
    assert rebuild(settings, client, write=False).is_same


def test_days_that_were_forgotten_are_read_back_with_the_values_they_keep(
    settings: Settings, client: Client, epoch: str
) -> None:
    log = made_log(8, 300, prefix=epoch)

    with life(settings, epoch, state_keys_max=1, flush_events_max=5) as worker:
        worker.run(log, batch_max=4)

    check(client, epoch, expected(log, values_max=VALUES_MAX))
    assert rebuild(settings, client, write=False).is_same


def test_a_rebuild_equals_what_workers_wrote_row_for_row(settings: Settings, client: Client, epoch: str) -> None:
    log = made_log(9, 300, prefix=epoch)
    with life(settings, epoch, flush_events_max=20) as worker:
        worker.run(log[:150], batch_max=7)
    with life(settings, epoch) as worker:
        worker.run(log)
    written = rows(client)
    assert written["group_overflows"]
    assert rebuild(settings, client, write=False).is_same

    for table in TABLES:
        client.command(f"TRUNCATE TABLE {table}")
    rebuild(settings, client, write=True)

    assert rows(client) == written


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM group_overflows WHERE dimension = 'region'",
        "INSERT INTO group_overflows SELECT * REPLACE (['other'] AS kept, rank + 1 AS rank) FROM group_overflows",
        "INSERT INTO group_overflows SELECT * REPLACE ('nobody' AS subject) FROM group_overflows",
    ],
)
def test_damage_to_what_days_keep_is_found_and_mended(
    settings: Settings, client: Client, epoch: str, damage: str
) -> None:
    log = made_log(9, 200, prefix=epoch)
    with life(settings, epoch) as worker:
        worker.run(log)
    written = rows(client)

    client.command(damage)

    assert not rebuild(settings, client, write=False).is_same
    rebuild(settings, client, write=True)
    assert rows(client) == written


def test_a_meter_that_came_later_is_filled_by_a_series_with_values_of_its_own(
    settings: Settings, client: Client, epoch: str
) -> None:
    log = made_log(19, 300, prefix=epoch)
    twin = next(one for one in limited(CATALOG).meters if one.name == "total")
    late = msgspec.structs.replace(twin, name="late")
    clock = FixedClock(NOW)
    with life(settings, epoch, clock=clock) as worker:
        worker.run(log[:150])
    both = msgspec.structs.replace(limited(CATALOG), meters=(*limited(CATALOG).meters, late))
    catalog_store.apply(client, both, clock=clock, applied_by="test")
    clock.move_to(NOW + timedelta(seconds=10))
    with life(settings, epoch, clock=clock) as worker:
        worker.run(log)

    rebuild(settings, client, write=True)

    assert rebuild(settings, client, write=False).is_same
    sums = client.query(
        "SELECT meter, sum(value_sum), sum(events_count) FROM rollups FINAL "
        "WHERE meter IN ('late', 'total') GROUP BY meter"
    ).result_rows
    assert len({(total, count) for _, total, count in sums}) == 1
    [(ends,)] = client.query(
        "SELECT countIf(position_end < 1000) FROM group_overflows WHERE meter = 'late'"
    ).result_rows
    assert ends > 0
    for query in questions(epoch, "late"):
        catalog = catalog_store.latest(client)
        assert catalog is not None
        assert answer(client, catalog, query) == recount(client, catalog, query)


def questions(epoch: str, meter: str) -> Iterator[UsageQuery]:
    """Ranges on and off the edges of windows, with and without a cut."""
    start = datetime(2013, 1, 1, tzinfo=UTC)
    cuts = [
        None,
        *(Cut(positions=tuple(Position(epoch=epoch, partition=one, offset=end) for one in (0, 1))) for end in (40, 90)),
    ]
    for cut in cuts:
        for first, last in ((0, 4320), (5, 1447)):
            yield UsageQuery(
                meter=meter,
                start=start + timedelta(minutes=first),
                end=start + timedelta(minutes=last),
                window=Window.DAY,
                by=By.SUBJECT,
                group_by=("region",),
                cut=cut,
            )


@pytest.mark.parametrize("meter", ["calls", "total"])
def test_an_answer_from_rollups_is_that_of_the_events(
    settings: Settings, client: Client, epoch: str, meter: str
) -> None:
    log = made_log(21, 300, prefix=epoch)
    with life(settings, epoch, flush_events_max=40) as worker:
        worker.run(log)
    catalog = catalog_store.latest(client)
    assert catalog is not None

    for query in questions(epoch, meter):
        found = answer(client, catalog, query)
        assert found == recount(client, catalog, query)
        assert any(row.dimensions["region"] == "other" for row in found)


@pytest.mark.parametrize("seed", [61, 62, 63])
def test_where_batches_end_does_not_decide_which_values_a_day_keeps(
    settings: Settings, client: Client, epoch: str, seed: int
) -> None:
    """With corrections: of an event that is taken out, before or after it came, the value was seen all the same."""
    catalog_store.apply(client, only(CORRECTED, 1), clock=FixedClock(NOW + timedelta(days=1)), applied_by="test")
    found = []
    for batch_max in (1, 60):
        log = corrected_log(seed, 120, epoch=f"{epoch}-{batch_max}", prefix=f"{epoch}-{batch_max}", partitions=1)
        with life(settings, f"{epoch}-{batch_max}", flush_events_max=random.Random(seed).randint(1, 60)) as worker:
            worker.run(log, batch_max=batch_max, seed=seed)
        tables = stored_tables(client, f"{epoch}-{batch_max}")
        found.append(
            {
                name: {str(row).replace(f"{epoch}-{batch_max}", epoch) for row in tables[name]}
                for name in ("rollups", "members")
            }
        )

    same = [{name: {row.split("Decimal")[0] for row in one[name]} for name in one} for one in found]
    assert same[0] == same[1]
    assert any("'other'" in row for row in found[0]["rollups"])
    assert rebuild(settings, client, write=False).is_same


def only(catalog: Catalog, values_max: int) -> Catalog:
    """The catalog beside the meters that are there already."""
    return msgspec.structs.replace(catalog, meters=(*limited(CATALOG).meters, *limited(catalog, values_max).meters))


def test_a_flood_of_values_costs_a_few_rows_and_is_told(settings: Settings, client: Client, epoch: str) -> None:
    """Five thousand values within one window."""
    log = [
        Made(offset=number, subject=epoch, id=f"e{number}", region=f"r{number}", user=None) for number in range(5_000)
    ]
    before = GROUP_OVERFLOWS.labels("calls")._value.get()

    with capture_logs() as said, life(settings, epoch, flush_events_max=1_000) as worker:
        worker.run(log, batch_max=500)

    regions = client.query(
        "SELECT dimensions['region'], events_count FROM rollups FINAL WHERE meter = 'calls' ORDER BY ALL"
    ).result_rows
    assert regions == [("other", 4_998), ("r0", 1), ("r1", 1)]
    assert GROUP_OVERFLOWS.labels("calls")._value.get() == before + 1
    warned = [one for one in said if one["log_level"] == "warning"]
    assert [(one["meter"], one["dimension"], one["days"]) for one in warned] == [
        ("calls", "region", 1),
        ("total", "region", 1),
    ]
    shown = client.query(
        "SELECT meter, dimension, subject, day, values_kept, events_other FROM usage_other ORDER BY ALL"
    ).result_rows
    day = datetime(2013, 1, 1, tzinfo=UTC).date()
    assert shown == [("calls", "region", epoch, day, 2, 4_998), ("total", "region", epoch, day, 2, 4_998)]


def test_a_value_that_is_called_other_takes_no_place(settings: Settings, client: Client, epoch: str) -> None:
    regions = ["other", "eu", "us", "asia", "eu", "other"]
    log = [Made(offset=at, subject=epoch, id=f"e{at}", region=region) for at, region in enumerate(regions)]

    with life(settings, epoch) as worker:
        worker.run(log, batch_max=1)

    found = client.query(
        "SELECT dimensions['region'], events_count FROM rollups FINAL WHERE meter = 'calls' ORDER BY ALL"
    )
    assert found.result_rows == [("eu", 2), ("other", 3), ("us", 1)]


def test_two_workers_that_fold_the_same_partition_keep_the_same_values(
    settings: Settings, client: Client, epoch: str
) -> None:
    """The first one lost its partition, did not notice, and flushes after its successor."""
    log = made_log(33, 200, prefix=epoch, partitions=1)
    zombie = Life(settings, epoch, flush_events_max=1_000_000)
    zombie.take_over(0)
    zombie.put(log[:90])

    with life(settings, epoch, flush_events_max=20) as worker:
        worker.run(log, batch_max=13)
    zombie.drain()
    zombie.stop()

    check(client, epoch, expected(log, values_max=VALUES_MAX), ledger_may_overlap=True)
    assert rebuild(settings, client, write=False).is_same


def test_what_a_day_keeps_goes_along_with_its_rollups_when_a_subject_is_erased(
    settings: Settings, client: Client, epoch: str
) -> None:
    log = [Made(offset=number, subject=epoch, id=f"e{number}", region=f"r{number}") for number in range(5)]
    with life(settings, epoch) as worker:
        worker.run(log)
    kept = "SELECT subject, meter, kept FROM group_overflows FINAL ORDER BY ALL"
    before = client.query(kept).result_rows
    assert [(row[0], row[1]) for row in before] == [(epoch, "calls"), (epoch, "total")]

    for _ in range(2):  # a second time, as after a kill
        copy_rollups(client, {epoch: "somebody"})
    left = left_behind(client, {epoch: "somebody"})
    delete_rows(client, [epoch])

    assert (left["rollups"], left["group_overflows"]) == (0, 0)
    assert client.query(kept).result_rows == [("somebody", meter, values) for _, meter, values in before]
