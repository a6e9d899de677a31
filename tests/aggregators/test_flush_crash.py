"""A worker that ends at any step of a flush leaves nothing that the next one does not mend."""

from __future__ import annotations

import random
import time
from contextlib import closing
from datetime import UTC, datetime

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from aggregators.flush import STEPS
from metering.clickhouse import connect
from metering.config import Settings
from tests.support.pipeline_rig import Life, check, crash_in, life
from tests.support.plain_log import Made, expected, made_log


def test_an_undisturbed_worker_folds_a_log_to_what_it_comes_to(
    folded_settings: Settings, folded: Client, epoch: str
) -> None:
    log = made_log(1, 400, prefix=epoch)

    with life(folded_settings, epoch) as worker:
        worker.run(log)

    check(folded, epoch, expected(log))
    assert sorted(worker.letters.sent) == sorted((*place, why) for place, why in expected(log).rejected.items())


@pytest.mark.parametrize("flush_number", [1, 3])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_after_any_step_of_a_flush_changes_nothing(
    folded_settings: Settings, folded: Client, epoch: str, step: str, flush_number: int
) -> None:
    log = made_log(flush_number, 160, prefix=epoch)

    crash_in(folded_settings, epoch, step, flush_number, lambda one: one.run(log, seed=1), flush_events_max=30)
    with life(folded_settings, epoch, flush_events_max=70) as worker:
        worker.run(log, batch_max=60, seed=2)

    check(folded, epoch, expected(log))


@pytest.mark.parametrize("seed", [11, 12])
def test_a_worker_that_crashes_again_and_again_ends_with_the_same_numbers(
    folded_settings: Settings, folded: Client, epoch: str, seed: int
) -> None:
    chance = random.Random(seed)
    log = made_log(seed, 400, prefix=epoch, days=5)

    for number in range(6):

        def run(one: Life, number: int = number) -> None:
            one.run(log, batch_max=40, seed=seed + number)

        crash_in(
            folded_settings,
            epoch,
            chance.choice(STEPS),
            chance.randint(1, 2),
            run,
            flush_events_max=chance.randint(1, 30),
        )
    with life(folded_settings, epoch, flush_events_max=50) as worker:
        worker.run(log, batch_max=50, seed=seed)

    check(folded, epoch, expected(log))


def test_a_log_handed_over_twice_is_counted_once(folded_settings: Settings, folded: Client, epoch: str) -> None:
    log = made_log(21, 200, prefix=epoch)

    with life(folded_settings, epoch) as worker:
        worker.run(log)
        for partition in (0, 1):
            worker.put([one for one in log if one.partition == partition])
        worker.drain()

    check(folded, epoch, expected(log))


def test_a_batch_that_overlaps_what_was_folded_adds_only_its_new_part(
    folded_settings: Settings, folded: Client, epoch: str
) -> None:
    log = made_log(22, 100, prefix=epoch, partitions=1)

    with life(folded_settings, epoch) as worker:
        worker.take_over(0)
        worker.put(log[:60])
        worker.put(log[40:80])
        worker.put(log[79:])
        worker.drain()

    check(folded, epoch, expected(log))


def test_a_batch_fetched_before_a_rebalance_is_dropped(folded_settings: Settings, folded: Client, epoch: str) -> None:
    log = made_log(23, 60, prefix=epoch, partitions=1)

    with life(folded_settings, epoch) as worker:
        worker.take_over(0)
        worker.put(log[:20])
        assert worker.take_over(0) == {0: 0}  # what was not flushed is read again
        worker.generation -= 1
        worker.put(log[20:])
        worker.generation += 1
        worker.put(log)
        worker.drain()

    check(folded, epoch, expected(log))


def test_states_are_forgotten_by_a_worker_that_is_never_idle_and_read_back(
    folded_settings: Settings, folded: Client, epoch: str
) -> None:
    """300 keys pass through a memory for 20; a flush brings about 60 at most, and two may be under way."""
    log = made_log(24, 300, prefix=epoch, days=30)
    keys_counts: list[int] = []

    def count_keys(_step: str) -> None:
        keys_counts.append(sum(one.fold.keys_count for one in worker.pipeline._partitions.values()))

    with life(folded_settings, epoch, reached=count_keys, state_keys_max=20, flush_events_max=15) as worker:
        worker.run(log, batch_max=10)

    check(folded, epoch, expected(log))
    assert len(expected(log).rollups) > 300
    assert max(keys_counts) < 250


def test_a_state_that_is_not_durable_yet_is_not_forgotten(
    folded_settings: Settings, folded: Client, epoch: str
) -> None:
    """Memory for one key, all keys in use all the time, and a ClickHouse that is always a little behind."""
    log = made_log(26, 200, prefix=epoch, days=1)

    with life(
        folded_settings, epoch, reached=lambda _step: time.sleep(0.02), state_keys_max=1, flush_events_max=15
    ) as worker:
        worker.run(log, batch_max=10)

    check(folded, epoch, expected(log))


def test_the_log_again_in_another_epoch_is_all_duplicates(
    folded_settings: Settings, folded: Client, epoch: str
) -> None:
    log = [one for one in made_log(25, 120, prefix=epoch, partitions=1) if not one.reason]
    log = [msgspec.structs.replace(one, offset=offset) for offset, one in enumerate(log)]
    first = expected(log)

    with life(folded_settings, epoch) as worker:
        worker.run(log)
    with life(folded_settings, f"{epoch}-anew") as worker:
        worker.run(log)

    check(folded, epoch, first)
    anew = folded.query(
        "SELECT sum(accepted), sum(duplicate), sum(rejected) FROM positions FINAL WHERE epoch = {epoch:String}",
        {"epoch": f"{epoch}-anew"},
    ).result_rows[0]
    assert anew == (0, len(first.accepted) + sum(first.duplicates.values()), len(first.rejected))


def test_fifteen_hundred_months_in_one_batch_are_one_flush(changing_settings: Settings, epoch: str) -> None:
    """From 1970 to 2094, written down by Kafka over 25 months: each is a partition of some table."""
    year_ms = 365 * 86_400_000
    log = [
        Made(
            subject=epoch,
            id=f"e{month}",
            offset=month,
            time=datetime(1970 + month // 12, 1 + month % 12, 15, tzinfo=UTC),
            logged_at_ms=125 * year_ms + month * 2 * year_ms // 1500,
        )
        for month in range(1500)
    ]

    with life(changing_settings, epoch, flush_events_max=10_000) as worker:
        worker.take_over(0)
        worker.put(log)
        worker.drain()

    with closing(connect(changing_settings)) as client:
        check(client, epoch, expected(log))
