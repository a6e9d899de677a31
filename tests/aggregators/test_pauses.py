"""A partition of which too much is rejected is not read on until somebody says so, and goes on just where it stood."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from clickhouse_connect.driver.client import Client

from aggregators.dead_letter_limit import DeadLetterLimit
from aggregators.pauses import RESUME_POLL_S
from metering.clock import FixedClock
from metering.config import Settings
from metering.partition_pauses import Pause, last_pauses, paused, write_pause, write_resumption
from tests.support.pipeline_rig import NOW, Life, check, crash_in, life, stored
from tests.support.plain_log import Made, expected

PATIENCE_S = 120.0
LIMIT = DeadLetterLimit(letters_max=5, percent_max=50, window_records=100)


def made(epoch: str, partition: int, first: int, count: int, *, bad: bool = False) -> list[Made]:
    """`count` records of a partition from offset `first` on."""
    return [
        Made(
            partition=partition,
            offset=offset,
            subject=f"{epoch}-{partition}",
            id=f"{partition}-{offset}",
            reason="not_json" if bad else "",
            bad=b"rubbish",
        )
        for offset in range(first, first + count)
    ]


def resume(client: Client, epoch: str) -> list[Pause]:
    """Somebody resumes all of a log."""
    found = paused(client, epoch)
    write_resumption(client, found, why="mended", at=NOW, by="ada@engine")
    return found


def wait_until(what: str, happened: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline_s, f"{what}: it never came to that"
        time.sleep(0.01)


def ledger_end(client: Client, epoch: str, partition: int) -> int:
    return max((row[2] + 1 for row in stored(client, epoch).ledger if row[0] == partition), default=0)


def test_a_partition_is_paused_where_the_limit_was_passed_and_the_others_go_on(
    folded_settings: Settings, folded: Client, epoch: str
) -> None:
    good, bad = made(epoch, 0, 0, 4), made(epoch, 0, 4, 6, bad=True)
    unread, other = made(epoch, 0, 10, 20), made(epoch, 1, 0, 30)

    with life(folded_settings, epoch, dead_letter_limit=LIMIT, name="the worker") as worker:
        worker.take_over(0, 1)
        for records in (good, bad, unread, other):
            worker.put(records)
        worker.drain()
        current = worker.pipeline.pauses.current

    check(folded, epoch, expected([*good, *bad, *other]))
    assert paused(folded, epoch) == [
        Pause(epoch=epoch, partition=0, offset=10, records=10, rejected=6, at=NOW, by="the worker")
    ]
    assert list(current.values()) == paused(folded, epoch)
    assert worker.told == [(frozenset(), {}), (frozenset({0}), {})]


def test_a_pause_is_seen_by_every_life_until_it_is_resumed_and_then_nothing_is_missing(
    folded_settings: Settings, folded: Client, epoch: str
) -> None:
    bad, rest = made(epoch, 0, 0, 6, bad=True), made(epoch, 0, 6, 30)
    with life(folded_settings, epoch, dead_letter_limit=LIMIT) as first:
        first.take_over(0)
        first.put(bad)
        first.put(rest)
        first.drain()

    clock = FixedClock(NOW)
    with life(folded_settings, epoch, dead_letter_limit=LIMIT, clock=clock) as second:
        starts = second.take_over(0)
        second.put(rest)
        second.drain()
        before = ledger_end(folded, epoch, 0)
        resume(folded, epoch)
        clock.move_to(NOW + timedelta(seconds=RESUME_POLL_S))
        wait_until("a resumption", lambda: not second.pipeline.pauses.current)
        second.put(rest[10:])  # was fetched before, and what lies between was dropped
        second.put(rest)
        second.drain()

    with life(folded_settings, epoch, dead_letter_limit=LIMIT) as third:
        third.take_over(0)
        assert not third.pipeline.pauses.current

    assert starts == {0: 6}
    assert before == 6
    assert second.told == [(frozenset({0}), {}), (frozenset(), {0: 6})]
    check(folded, epoch, expected([*bad, *rest]))


def test_a_partition_that_is_resumed_and_still_bad_is_paused_again(
    folded_settings: Settings, folded: Client, epoch: str
) -> None:
    clock = FixedClock(NOW)
    log = made(epoch, 0, 0, 20, bad=True)

    with life(folded_settings, epoch, dead_letter_limit=LIMIT, clock=clock) as worker:
        worker.take_over(0)
        worker.put(log[:6])
        worker.drain()
        resume(folded, epoch)
        clock.move_to(NOW + timedelta(seconds=RESUME_POLL_S))
        wait_until("a resumption", lambda: not worker.pipeline.pauses.current)
        for offset in range(6, 20):
            worker.put(log[offset : offset + 1])
        worker.drain()

    assert [(one.offset, one.rejected, one.resumed_from) for one in paused(folded, epoch)] == [(12, 6, 6)]
    check(folded, epoch, expected(log[:12]))


def test_a_life_that_ended_before_its_note_leaves_the_pause_to_the_next_one(
    folded_settings: Settings, folded: Client, epoch: str
) -> None:
    log = made(epoch, 0, 0, 20, bad=True)

    def run(worker: Life) -> None:
        worker.take_over(0)
        worker.put(log[:8])
        worker.drain()

    crash_in(folded_settings, epoch, "positions", 1, run, dead_letter_limit=LIMIT)
    none_yet = paused(folded, epoch)
    with life(folded_settings, epoch, dead_letter_limit=LIMIT) as following:
        starts = following.take_over(0)
        following.put(log[8:])
        following.drain()

    assert none_yet == []
    assert starts == {0: 8}
    assert [(one.offset, one.records, one.rejected) for one in paused(folded, epoch)] == [(8, 8, 8)]
    assert following.told == [(frozenset(), {}), (frozenset({0}), {})]
    check(folded, epoch, expected(log[:8]))


def test_rejections_of_earlier_lives_count(folded_settings: Settings, folded: Client, epoch: str) -> None:
    log = made(epoch, 0, 0, 8, bad=True)

    for offset in range(8):
        with life(folded_settings, epoch, dead_letter_limit=LIMIT) as one:
            one.take_over(0)
            one.put(log[offset : offset + 1])
            one.drain()

    assert [(one.offset, one.rejected) for one in paused(folded, epoch)] == [(6, 6)]
    check(folded, epoch, expected(log[:6]))


@pytest.mark.parametrize("order", [("pause", "resume"), ("resume", "pause"), ("pause", "resume", "pause")])
def test_a_note_that_comes_late_or_twice_says_nothing_new(folded: Client, epoch: str, order: tuple[str, ...]) -> None:
    one = Pause(epoch=epoch, partition=3, offset=70, records=10, rejected=9, at=NOW, by="a worker")

    for word in order:
        if word == "pause":
            write_pause(folded, one)
        else:
            write_resumption(folded, [one], why="", at=NOW, by="ada@engine")

    assert paused(folded, epoch) == []
    assert [(found.offset, found.resumed_from, found.is_over) for found in last_pauses(folded, epoch)] == [
        (70, 70, True)
    ]
