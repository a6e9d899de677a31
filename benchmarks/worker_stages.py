"""Where a worker's time goes: the processor time of each stage of an event's way, and of ClickHouse beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from aggregators.decide import Decider, Limits
from aggregators.dedupe import KeyFilter
from aggregators.flush import build_flush
from aggregators.partition import Partition
from aggregators.record_batch import RecordBatch
from aggregators.store import LedgerEnd
from benchmarks.measures import Say, Sizes
from benchmarks.result import Result, result
from benchmarks.stack import (
    CATALOG,
    SUBJECTS,
    Totals,
    check,
    engines,
    event,
    expected_totals,
    fill_log,
    fresh_database,
    python_process,
    wait_for,
)
from benchmarks.worker_rate import TIMEOUT_S, worker_totals
from metering.clickhouse import connect
from metering.config import Settings
from schemas.admission import Admission
from schemas.meter import MeterVersion
from schemas.quantity import ZERO

BATCH_EVENTS: Final = 2_500
LOGGED_AT_MS: Final = 1_768_521_599_000
"""The end of the day that the events are of."""
DAY: Final = LOGGED_AT_MS // 1000 // 86_400
UNIT: Final = "µs an event"
_CLICKHOUSE_US: Final = "SELECT value FROM system.events WHERE event = 'OSCPUVirtualTimeMicroseconds'"

STAGES: Final = {
    "decode": "from a record's bytes to columns of an event's attributes",
    "decide": "what is a repeat, what the meters see of each event, and the rows of `events`",
    "fold": "grouping, and adding to the states of the rollups",
    "build": "the rows of `rollups` and the rest of a flush",
}


def stages(sizes: Sizes, say: Say) -> list[Result]:
    """The stages in this process, without Kafka and ClickHouse; then a worker with both."""
    rounds: list[dict[str, float]] = []
    _stages(BATCH_EVENTS)  # what is imported at the first use is no part of it
    for number in range(sizes.rounds):
        say(f"round {number + 1} of {sizes.rounds}")
        rounds.append(_stages(sizes.worker_events))
    whole = sum(sum(one.values()) for one in rounds)
    rows = [
        result(
            f"worker's {stage}",
            [one[stage] for one in rounds],
            UNIT,
            f"{what}; the ratio is the share of all stages",
            ratio=sum(one[stage] for one in rounds) / whole,
        )
        for stage, what in STAGES.items()
    ]
    taken: list[tuple[float, float]] = []
    with engines() as settings:
        say("filling the log")
        fill_log(settings, sizes.worker_events)
        for number in range(sizes.rounds):
            say(f"worker, round {number + 1} of {sizes.rounds}")
            taken.append(_processor_times(settings, f"stages_{number}", sizes.worker_events))
    return [
        *rows,
        result("worker's processor time", [worker for worker, _ in taken], UNIT, "all threads of the process"),
        result("ClickHouse's processor time", [engine for _, engine in taken], UNIT, "inserts and merges meanwhile"),
    ]


def _stages(count: int) -> dict[str, float]:
    """Processor time by stage, in microseconds an event; the totals in memory are checked."""
    versions = [MeterVersion(meter=one, version=1, introduced_in=1, start=None, end=None) for one in CATALOG.meters]
    admission = Admission(versions, ())
    limits = Limits(event_bytes_max=1 << 18, ahead_s_max=86_400, age_s_max=0)
    decider = Decider("log", limits, KeyFilter())
    partition = Partition(LedgerEnd(next_offset=0, starts={}), KeyFilter(), ("log", 0))
    partition.begin_catalog(1, versions)
    took_s = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        began_s = time.thread_time()
        yield
        took_s[stage] += time.thread_time() - began_s

    flush_events_max, waiting = Settings().flush_events_max, 0
    for first in range(0, count, BATCH_EVENTS):
        batch = _batch(first, min(first + BATCH_EVENTS, count))
        with timed("decode"):
            decoded = decider.decode(batch)
        with timed("decide"):
            decision = decider.decide(decoded, first, admission, lambda _identities: {})
        with timed("fold"):
            partition.take_in(decision, lambda _days, _series: {})
        waiting += len(batch.offsets)
        if waiting >= flush_events_max or batch.offsets[-1] == count - 1:
            with timed("build"):
                flush = build_flush([partition], 0, 1)
            waiting = 0
            for one in flush.decisions if flush else ():
                decider.flushed(one.accepted)
    check(_folded(partition, count), expected_totals(count))
    return {stage: took * 1_000_000 / count for stage, took in took_s.items()}


def _batch(first: int, end: int) -> RecordBatch:
    numbers = range(first, end)
    return RecordBatch(
        topic="log",
        partition=0,
        generation=0,
        start=first,
        offsets=list(numbers),
        timestamps_ms=[LOGGED_AT_MS] * len(numbers),
        keys=[b"customer-%02d" % (number % SUBJECTS) for number in numbers],
        values=[event(number) for number in numbers],
    )


def _folded(partition: Partition, count: int) -> Totals:
    """What the states in memory add up to."""
    days = [(f"customer-{number:02d}", DAY) for number in range(min(count, SUBJECTS))]
    states = [(key[0], state) for day in days for key, state in partition.fold.states_of(day).items()]
    return Totals(
        events=sum(state.events_count for meter, state in states if meter == "calls"),
        bytes=sum((state.value_sum for meter, state in states if meter == "bytes"), ZERO),
    )


def _processor_times(settings: Settings, name: str, count: int) -> tuple[float, float]:
    """Processor time of a worker and of ClickHouse in microseconds an event, from the first flush seen to the last."""
    settings = fresh_database(settings, name)
    client = connect(settings)
    looks: list[tuple[int, float, float]] = []
    with python_process(settings, "-m", "metering", "worker") as process:

        def is_done() -> bool:
            done = int(client.query("SELECT sum(last - first + 1) FROM positions").result_rows[0][0])
            if done:
                looks.append((done, _process_us(process.pid), float(client.query(_CLICKHOUSE_US).result_rows[0][0])))
            return done >= count

        wait_for(process, is_done, TIMEOUT_S)
    check(worker_totals(client), expected_totals(count))
    client.close()
    (done_first, *first), (done_last, *last) = looks[0], looks[-1]
    if done_first == done_last:
        raise RuntimeError(f"{count:,} events are too few to see two flushes")
    worker, engine = ((end - begin) / (done_last - done_first) for begin, end in zip(first, last, strict=True))
    return worker, engine


def _process_us(pid: int) -> float:
    """Processor time of all threads of a process since it began, by Linux' proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1_000_000 / os.sysconf("SC_CLK_TCK")
