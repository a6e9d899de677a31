"""Corrections that reach beyond what the worker folds: other logs, series that were filled in later, and old cuts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from aggregators.rebuild import Rebuild, Rebuilt
from metering import catalog_store
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.config import Settings
from metering.migrate import migrate
from metering.testing import ClickHouseUnderTest
from metering.usage.answer import answer
from metering.usage.recount import recount
from schemas.usage_query import By, Cut, Position, UsageQuery, Window
from tests.support.corrected_log import CATALOG, METERS, Said, check_tables, corrected_log, expected_tables
from tests.support.pipeline_rig import NOW, life


@pytest.fixture
def corrected_settings(clickhouse: ClickHouseUnderTest, database: str) -> Settings:
    return Settings(
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=database,
    )


@pytest.fixture
def client(corrected_settings: Settings) -> Iterator[Client]:
    one = connect(corrected_settings)
    migrate(one)
    yield one
    one.close()


def rebuild(settings: Settings, client: Client, *, write: bool) -> Rebuilt:
    catalog = catalog_store.latest(client)
    assert catalog is not None
    return Rebuild(lambda database: connect(settings, database=database), catalog, list(catalog.meters)).run(
        write=write
    )


def check_answers(client: Client, log: list[Said], seed: int, count: int) -> None:
    """Random questions with random cuts: the answer from rollups is the count of events."""
    chance = random.Random(seed)
    catalog = catalog_store.latest(client)
    assert catalog is not None
    ends: dict[tuple[str, int], int] = {}
    for one in log:
        ends[one.epoch, one.partition] = max(one.offset, ends.get((one.epoch, one.partition), -1))
    for _ in range(count):
        start = datetime(2012, 12, 31, 23, tzinfo=UTC) + chance.randrange(8) * timedelta(minutes=7)
        query = UsageQuery(
            meter=chance.choice(METERS),
            start=start,
            end=start + chance.choice([timedelta(hours=2), timedelta(days=3)]),
            window=chance.choice([Window.TOTAL, Window.HOUR, Window.QUARTER_HOUR]),
            by=By.SUBJECT,
            group_by=chance.choice([(), ("region",)]),
            cut=chance.choice([None, *[_cut(chance, ends)] * 4]),
        )
        assert answer(client, catalog, query) == recount(client, catalog, query), query


def _cut(chance: random.Random, ends: dict[tuple[str, int], int]) -> Cut:
    return Cut(
        positions=tuple(
            Position(epoch=epoch, partition=partition, offset=chance.randint(-1, end))
            for (epoch, partition), end in ends.items()
            if chance.random() < 0.9
        )
    )


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_at_any_cut_is_what_was_counted_then_whatever_was_corrected_since(
    corrected_settings: Settings, client: Client, epoch: str, seed: int
) -> None:
    catalog_store.apply(client, CATALOG, clock=FixedClock(NOW), applied_by="test")
    log = corrected_log(seed, 120, epoch=epoch, prefix=epoch)
    with life(corrected_settings, epoch) as worker:
        worker.run(log, batch_max=15, seed=seed)

    check_answers(client, log, seed, 25)


@pytest.mark.parametrize("seed", range(3))
def test_a_correction_in_a_new_log_reaches_events_of_the_old_one(
    corrected_settings: Settings, client: Client, epoch: str, seed: int
) -> None:
    catalog_store.apply(client, CATALOG, clock=FixedClock(NOW), applied_by="test")
    old = corrected_log(seed, 60, epoch=epoch, prefix=epoch)
    new = [
        msgspec.structs.replace(one, epoch=f"{epoch}-anew", id=f"anew-{one.id}") if not one.reason else one
        for one in corrected_log(seed + 100, 60, epoch=f"{epoch}-anew", prefix=epoch)
    ]
    with life(corrected_settings, epoch) as worker:
        worker.run(old, batch_max=15, seed=seed)
    with life(corrected_settings, f"{epoch}-anew") as worker:
        worker.run(new, batch_max=15, seed=seed)

    log = [*old, *new]
    for one in (epoch, f"{epoch}-anew"):
        check_tables(client, one, expected_tables(log, one))
    reached = client.command("SELECT count() FROM corrections FINAL WHERE event_known AND event_epoch != epoch")
    assert int(str(reached)) > 0
    check_answers(client, log, seed, 25)
    assert rebuild(corrected_settings, client, write=False).is_same


def test_a_correction_reaches_what_was_filled_in_before_live_folding_began(
    corrected_settings: Settings, client: Client, epoch: str
) -> None:
    """One meter from the start, the others applied after a third of the log and filled in after the second."""
    first = msgspec.structs.replace(CATALOG, meters=CATALOG.meters[:1])
    clock = FixedClock(NOW)
    log = corrected_log(7, 240, epoch=epoch, prefix=epoch)
    catalog_store.apply(client, first, clock=clock, applied_by="test")
    with life(corrected_settings, epoch, clock=clock) as worker:
        worker.run(log[:80], batch_max=15)
    catalog_store.apply(client, CATALOG, clock=clock, applied_by="test")
    clock.move_to(NOW + timedelta(seconds=10))
    with life(corrected_settings, epoch, clock=clock) as worker:
        worker.run(log[:160], batch_max=15)
    assert not rebuild(corrected_settings, client, write=True).is_same
    with life(corrected_settings, epoch, clock=clock) as worker:
        worker.run(log, batch_max=15)

    series = client.command("SELECT uniqExact(position_first) FROM rollups")
    assert int(str(series)) > 1
    assert rebuild(corrected_settings, client, write=False).is_same
    check_answers(client, log, 7, 25)
