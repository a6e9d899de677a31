"""A slow ClickHouse slows whoever hands batches over, and a partition without records holds no other back."""

from __future__ import annotations

import threading
import time

from clickhouse_connect.driver.client import Client

from aggregators.pipeline import BATCHES_QUEUED_MAX
from metering.config import Settings
from tests.support.pipeline_rig import check, life
from tests.support.plain_log import Made, expected

BATCH = 10
BATCHES = 60
HELD_MAX = 3 + BATCHES_QUEUED_MAX
"""Batches that a worker holds, a flush being as large as a batch: one is written, one waits for that, one waits to be
handed on, the others wait to be folded."""
PATIENCE_S = 120.0


def log_of(subject: str, count: int) -> list[Made]:
    return [Made(offset=number, subject=subject, id=f"e{number}") for number in range(count)]


def test_a_clickhouse_that_does_not_answer_stops_the_reading_and_not_the_counting(
    folded_settings: Settings, folded: Client, epoch: str
) -> None:
    log = log_of(epoch, BATCHES * BATCH)
    answers = threading.Event()
    written = 0
    handed = 0
    held_most = 0

    def reached(step: str) -> None:
        nonlocal written
        if step == "events":
            assert answers.wait(PATIENCE_S)
        elif step == "positions":
            written += 1

    with life(folded_settings, epoch, reached=reached, flush_events_max=BATCH) as worker:

        def hand_over() -> None:
            nonlocal handed, held_most
            for start in range(0, len(log), BATCH):
                before = written
                worker.put(log[start : start + BATCH])
                handed += 1
                held_most = max(held_most, handed - before)

        worker.take_over(0)
        reader = threading.Thread(target=hand_over, daemon=True)
        reader.start()
        deadline_s = time.monotonic() + PATIENCE_S
        while handed < HELD_MAX and time.monotonic() < deadline_s:
            time.sleep(0.01)
        held_while_silent = handed
        answers.set()
        reader.join(PATIENCE_S)
        worker.drain()

    assert held_while_silent == HELD_MAX
    assert handed == BATCHES
    # What is written is looked at before the next batch is handed over.
    assert held_most <= HELD_MAX + 1
    check(folded, epoch, expected(log))


def test_a_partition_without_records_holds_no_other_back(folded_settings: Settings, folded: Client, epoch: str) -> None:
    log = log_of(epoch, 50)

    with life(folded_settings, epoch, flush_events_max=BATCH) as worker:
        assert worker.take_over(0, 1, 2) == {0: 0, 1: 0, 2: 0}
        worker.put(log)
        worker.drain()
        ends = worker.pipeline.positions

    assert ends == {0: 50, 1: 0, 2: 0}
    check(folded, epoch, expected(log))
