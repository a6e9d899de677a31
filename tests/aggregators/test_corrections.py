"""Corrections go through a worker: every table says what the log comes to, whatever the order and whoever died."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from clickhouse_connect.driver.client import Client

from aggregators.flush import STEPS
from aggregators.rebuild import Rebuild
from aggregators.worker_store import CORRECTION_STEPS
from metering import catalog_store
from metering.clickhouse import connect, ensure_database
from metering.clock import FixedClock
from metering.config import Settings
from metering.migrate import migrate
from metering.testing import ClickHouseUnderTest
from tests.support.corrected_log import CATALOG, check_tables, corrected_log, expected_tables, stored_tables
from tests.support.pipeline_rig import NOW, Life, crash_in, life


@contextmanager
def new_database(clickhouse: ClickHouseUnderTest) -> Iterator[Settings]:
    """A database with a meter for each aggregation."""
    settings = Settings(
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=f"test_{uuid.uuid4().hex[:12]}",
    )
    ensure_database(settings)
    client = connect(settings)
    migrate(client)
    catalog_store.apply(client, CATALOG, clock=FixedClock(NOW), applied_by="test")
    yield settings
    client.command("DROP DATABASE {name:Identifier} SYNC", parameters={"name": settings.clickhouse_database})
    client.close()


@pytest.fixture(scope="module")
def corrected_settings(clickhouse: ClickHouseUnderTest) -> Iterator[Settings]:
    """Each test works in an epoch of its own."""
    with new_database(clickhouse) as settings:
        yield settings


@pytest.fixture(scope="module")
def corrected(corrected_settings: Settings) -> Iterator[Client]:
    client = connect(corrected_settings)
    yield client
    client.close()


@pytest.mark.parametrize("seed", range(6))
def test_a_worker_folds_corrections_to_what_the_log_comes_to(
    corrected_settings: Settings, corrected: Client, epoch: str, seed: int
) -> None:
    log = corrected_log(seed, 120, epoch=epoch, prefix=epoch)

    with life(corrected_settings, epoch, flush_events_max=random.Random(seed).randint(1, 60)) as worker:
        worker.run(log, batch_max=random.Random(seed).choice([1, 7, 40]), seed=seed)

    check_tables(corrected, epoch, expected_tables(log))


@pytest.mark.parametrize("step", [*CORRECTION_STEPS, *STEPS])
@pytest.mark.parametrize("number", [1, 4])
def test_a_crash_after_any_step_changes_nothing(
    corrected_settings: Settings, corrected: Client, epoch: str, step: str, number: int
) -> None:
    log = corrected_log(number, 90, epoch=epoch, prefix=epoch)

    crash_in(
        corrected_settings, epoch, step, number, lambda one: one.run(log, batch_max=9, seed=1), flush_events_max=30
    )
    with life(corrected_settings, epoch, flush_events_max=70) as worker:
        worker.run(log, batch_max=13, seed=2)

    check_tables(corrected, epoch, expected_tables(log))


@pytest.mark.parametrize("seed", [31, 32])
def test_a_worker_that_crashes_again_and_again_ends_with_the_same_rows(
    corrected_settings: Settings, corrected: Client, epoch: str, seed: int
) -> None:
    chance = random.Random(seed)
    log = corrected_log(seed, 150, epoch=epoch, prefix=epoch)

    for number in range(5):

        def run(one: Life, number: int = number) -> None:
            one.run(log, batch_max=11, seed=seed + number)

        crash_in(
            corrected_settings,
            epoch,
            chance.choice([*CORRECTION_STEPS, *STEPS]),
            chance.randint(1, 3),
            run,
            flush_events_max=chance.randint(1, 30),
        )
    with life(corrected_settings, epoch, flush_events_max=50) as worker:
        worker.run(log, batch_max=17, seed=seed)

    check_tables(corrected, epoch, expected_tables(log))


def test_states_that_were_forgotten_are_read_back_with_what_was_taken_out_of_them(
    corrected_settings: Settings, corrected: Client, epoch: str
) -> None:
    log = corrected_log(41, 150, epoch=epoch, prefix=epoch)

    with life(corrected_settings, epoch, state_keys_max=1, flush_events_max=5) as worker:
        worker.run(log, batch_max=6)

    check_tables(corrected, epoch, expected_tables(log))


def test_a_rebuild_of_corrected_events_equals_what_the_worker_wrote(
    clickhouse: ClickHouseUnderTest, epoch: str
) -> None:
    log = corrected_log(51, 150, epoch=epoch, prefix=epoch)
    # A rebuild goes through every epoch, so that it needs a database without those of the other tests.
    with new_database(clickhouse) as settings:
        with life(settings, epoch) as worker:
            worker.run(log, batch_max=20)
        client = connect(settings)
        catalog = catalog_store.latest(client)
        assert catalog is not None
        rebuild = Rebuild(lambda database: connect(settings, database=database), catalog, list(catalog.meters))

        assert rebuild.run(write=False).is_same

        wanted = stored_tables(client, epoch)
        for table in ("rollups", "members"):
            client.command(f"TRUNCATE TABLE {table}")
        assert not rebuild.run(write=True).is_same
        check_tables(client, epoch, wanted)
        assert rebuild.run(write=False).is_same
        client.close()
