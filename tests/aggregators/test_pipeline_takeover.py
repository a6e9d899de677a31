"""Two workers on one partition: one that lost it and has not noticed, and one that went on."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from aggregators.flush import STEPS
from metering.config import Settings
from schemas.errors import InvariantViolationError
from tests.support.pipeline_rig import WAIT_S, Life, check, life
from tests.support.plain_log import Made, expected, made_log


class Pause:
    """Holds a worker's write thread right after a step of a flush, until it is let go or the block ends."""

    def __init__(self, step: str, flush_number: int = 1) -> None:
        self._step = step
        self._left = flush_number
        self.is_held = threading.Event()
        self._may_go = threading.Event()

    def __call__(self, step: str) -> None:
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                self.is_held.set()
                assert self._may_go.wait(WAIT_S)

    def let_go(self) -> None:
        self._may_go.set()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self.let_go()


@pytest.mark.parametrize("step", STEPS[:-1])
def test_a_worker_that_wakes_up_late_and_ends_its_flush_changes_nothing(
    folded_settings: Settings, folded: Client, epoch: str, step: str
) -> None:
    log = made_log(31, 220, prefix=epoch)
    halves = {number: [one for one in log if one.partition == number] for number in (0, 1)}
    pause = Pause(step, flush_number=2)

    with life(folded_settings, epoch, reached=pause, flush_events_max=30, name="late") as late, pause:
        late.take_over(0, 1)
        for start in (0, 8, 16, 24, 32):
            for number in (0, 1):
                late.put(halves[number][start : start + 8])
        assert pause.is_held.wait(WAIT_S)
        with life(folded_settings, epoch, flush_events_max=25, name="next") as following:
            starts = following.take_over(0, 1)
            for number in (0, 1):
                following.put(halves[number][starts[number] : 25])
                following.put(halves[number][25:100])
            following.drain()
            pause.let_go()
            late.drain()
            for number in (0, 1):
                following.put(halves[number][100:])
            following.drain()
    with life(folded_settings, epoch) as last:
        last.run(log)

    check(folded, epoch, expected(log), ledger_may_overlap=True)


def test_what_the_worker_before_flushes_during_a_take_over_is_still_known_as_a_repeat(
    folded_settings: Settings, folded: Client, epoch: str
) -> None:
    """The one before makes 20 events durable, ledger and all, while the next one reads what is stored."""
    first = [Made(offset=offset, subject=epoch, id=f"e{offset}") for offset in range(20)]
    again = [msgspec.structs.replace(one, offset=one.offset + 20) for one in first]

    for moment in ("identity_keys", "ledger_ends", "known_days", "catalog"):
        log_epoch = f"{epoch}-{moment}"
        before = [msgspec.structs.replace(one, subject=log_epoch) for one in first]
        repeats = [msgspec.structs.replace(one, subject=log_epoch) for one in again]
        with life(folded_settings, log_epoch) as earlier, life(folded_settings, log_epoch) as following:
            earlier.take_over(0)
            earlier.put(before)
            _run_after(following, moment, earlier.drain)
            start = following.take_over(0)[0]
            following.put([*before, *repeats][start:])
            following.drain()

        check(folded, log_epoch, expected([*before, *repeats]), ledger_may_overlap=True)


def _run_after(worker: Life, call: str, then: Callable[[], None]) -> None:
    """Have `then` happen each time right after one of the worker's reads."""
    read = getattr(worker.store, call)

    def reading(*arguments: object) -> object:
        answer = read(*arguments)
        then()
        return answer

    setattr(worker.store, call, reading)


def test_partitions_move_between_workers_again_and_again(folded_settings: Settings, folded: Client, epoch: str) -> None:
    log = made_log(33, 240, prefix=epoch, partitions=3)
    parts = {number: [one for one in log if one.partition == number] for number in range(3)}
    shares = [((0, 1, 2), ()), ((0,), (1, 2)), ((2,), (0, 1)), ((), (0, 1, 2)), ((1, 0), (2,)), ((0, 1, 2), ())]

    with life(folded_settings, epoch) as left, life(folded_settings, epoch) as right:
        for turn, shared in enumerate(shares, start=1):
            for worker, partitions in zip((left, right), shared, strict=True):
                starts = worker.take_over(*partitions)
                for number in partitions:
                    until = max(starts[number], len(parts[number]) * turn // len(shares))
                    worker.put(parts[number][starts[number] : until])
                if turn % 2:  # every other turn the partitions move on with events unflushed
                    worker.drain()
        left.run(log)

    check(folded, epoch, expected(log), ledger_may_overlap=True)


def test_the_same_event_on_another_partition_is_a_repeat(folded_settings: Settings, folded: Client, epoch: str) -> None:
    """As after the number of partitions was raised: the same subject goes elsewhere from then on."""
    one = Made(subject=epoch, id="e", partition=0, offset=0)
    elsewhere = msgspec.structs.replace(one, partition=1)

    with life(folded_settings, epoch) as worker:
        worker.take_over(0, 1)
        worker.put([one])
        worker.put([elsewhere])
        worker.drain()
        worker.put([msgspec.structs.replace(elsewhere, offset=1)])
        worker.drain()

    assert _ledger(folded, epoch) == [(0, 1, 0, 0), (1, 0, 2, 0)]


def test_a_crash_does_not_change_which_of_two_partitions_had_an_event_first(
    folded_settings: Settings, folded: Client, epoch: str
) -> None:
    one = Made(subject=epoch, id="e", partition=0, offset=0)
    elsewhere = msgspec.structs.replace(one, partition=1)
    pause = Pause("rollups")

    with life(folded_settings, epoch, reached=pause) as cut_off, pause:
        cut_off.take_over(0, 1)
        cut_off.put([one])
        cut_off.put([elsewhere])
        cut_off.pipeline.drain()
        assert pause.is_held.wait(WAIT_S)
        with life(folded_settings, epoch) as following:
            following.take_over(0, 1)
            following.put([elsewhere])
            following.put([one])
            following.drain()
        pause.let_go()

    assert _ledger(folded, epoch) == [(0, 1, 0, 0), (1, 0, 1, 0)]


def _ledger(client: Client, epoch: str) -> list[tuple[int, ...]]:
    """(partition, accepted, duplicate, rejected) summed over batches."""
    rows = client.query(
        "SELECT partition, sum(accepted), sum(duplicate), sum(rejected) FROM positions FINAL "
        "WHERE epoch = {epoch:String} GROUP BY partition ORDER BY partition",
        {"epoch": epoch},
    ).result_rows
    return [tuple(row) for row in rows]


def test_a_batch_that_was_lost_on_its_way_ends_the_worker_and_is_read_again(
    folded_settings: Settings, folded: Client, epoch: str
) -> None:
    log = [one for one in made_log(35, 90, prefix=epoch) if one.partition == 0]

    with life(folded_settings, epoch) as first:
        first.take_over(0)
        first.put(log[:10])
        first.put(log[20:30])
        assert first.ended.wait(WAIT_S)
        why = first.fatal.pop()
    with life(folded_settings, epoch) as following:
        following.run(log)

    assert isinstance(why, InvariantViolationError)
    assert "lost on its way" in str(why)
    check(folded, epoch, expected(log))
