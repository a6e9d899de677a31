"""Lives of a worker's engine without Kafka: batches are handed in, ClickHouse is real, and a life can be cut short."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from clickhouse_connect.driver.client import Client

from aggregators.dead_letter_limit import DeadLetterLimit
from aggregators.decide import Decision, Limits
from aggregators.pipeline import Pipeline
from aggregators.record_batch import RecordBatch
from aggregators.worker_store import StoppedError, WorkerStore
from metering.clock import Clock, FixedClock
from metering.config import Settings
from tests.support.plain_log import TOPIC, Expected, Key, Made, Row

_Result = TypeVar("_Result")

LIMITS = Limits(event_bytes_max=1_000_000, ahead_s_max=3600, age_s_max=0)
NO_LIMIT = DeadLetterLimit(letters_max=0, percent_max=0, window_records=1)
NOW = datetime(2013, 3, 1, tzinfo=UTC)
WAIT_S = 30.0


class CrashError(Exception):
    """The process is gone at this point, as far as anybody can tell."""


class DeadLetterList:
    """Takes dead letters the way the topic would."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, str]] = []

    def send(self, decision: Decision) -> None:
        self.sent += [(decision.partition, one.offset, one.reason) for one in decision.rejected]


class Life:
    """One life of a worker: takes partitions over, folds batches, and may end at a step of a flush."""

    def __init__(
        self,
        settings: Settings,
        epoch: str,
        *,
        reached: Callable[[str], None] = lambda _step: None,
        flush_events_max: int = 40,
        state_keys_max: int = 500_000,
        clock: Clock | None = None,
        name: str = "worker",
        log_end: int = 1_000_000,
        dead_letter_limit: DeadLetterLimit = NO_LIMIT,
    ) -> None:
        clock = clock or FixedClock(NOW)
        self.letters = DeadLetterList()
        self.fatal: list[BaseException] = []
        self.told: list[tuple[frozenset[int], dict[int, int]]] = []
        self.ended = threading.Event()
        self.generation = 0
        self.store = WorkerStore(
            settings,
            topic=TOPIC,
            epoch=epoch,
            dead_letters=self.letters,
            log_range=lambda: dict.fromkeys(range(64), (0, log_end)),
            clock=clock,
            worker=name,
            code_version="test",
            reached=reached,
        )
        self.pipeline = Pipeline(
            self.store,
            epoch=epoch,
            limits=LIMITS,
            dead_letter_limit=dead_letter_limit,
            flush_events_max=flush_events_max,
            flush_interval_s=3600.0,
            state_keys_max=state_keys_max,
            clock=clock,
            on_flushed=lambda _generation, _decisions: None,
            on_paused=lambda _generation, paused, resumed: self.told.append((paused, dict(resumed))),
            on_fatal=self._end,
        )
        self.pipeline.start()

    def _end(self, error: BaseException) -> None:
        """What ends the process in earnest; here the other thread must be kept from going on."""
        self.fatal.append(error)
        self.store.stop()
        self.ended.set()

    def take_over(self, *partitions: int) -> dict[int, int]:
        self.generation += 1
        return self.answer(self.pipeline.assign(self.generation, partitions))

    def put(self, records: Sequence[Made]) -> None:
        if records:
            self.pipeline.put(batch_of(records, self.generation))

    def drain(self) -> None:
        self.answer(self.pipeline.drain())

    def answer(self, future: Future[_Result]) -> _Result:
        """The answer of the fold thread; CrashError when the life ends before it comes."""
        deadline_s = time.monotonic() + WAIT_S
        while not future.done():
            if self.ended.wait(0.005):
                raise CrashError from self.fatal[0]
            if time.monotonic() > deadline_s:
                raise TimeoutError("the fold thread does not answer")
        return future.result()

    def run(self, log: Sequence[Made], *, batch_max: int = 25, seed: int = 0) -> None:
        """Fold the log from where the ledger ends, in batches of seeded sizes, and make it durable."""
        chance = random.Random(seed)
        partitions = sorted({one.partition for one in log})
        starts = self.take_over(*partitions)
        left = {
            number: [one for one in log if one.partition == number and one.offset >= starts[number]]
            for number in partitions
        }
        while any(left.values()):
            number = chance.choice([one for one, records in left.items() if records])
            size = chance.randint(1, batch_max)
            self.put(left[number][:size])
            left[number] = left[number][size:]
        self.drain()

    def stop(self) -> None:
        self.pipeline.stop()


def batch_of(records: Sequence[Made], generation: int) -> RecordBatch:
    """One fetched batch."""
    return RecordBatch(
        topic=TOPIC,
        partition=records[0].partition,
        generation=generation,
        start=records[0].offset,
        offsets=[one.offset for one in records],
        timestamps_ms=[one.logged_at_ms for one in records],
        keys=[one.key for one in records],
        values=[one.raw for one in records],
    )


@contextmanager
def life(settings: Settings, epoch: str, **options: Any) -> Iterator[Life]:
    """A life that is over at the end of the block, and in which nothing unexpected happened."""
    one = Life(settings, epoch, **options)
    try:
        yield one
        assert not one.fatal
    finally:
        one.stop()


def crash_in(
    settings: Settings, epoch: str, step: str, flush_number: int, run: Callable[[Life], None], **options: Any
) -> Life:
    """A life that ends right after `step` of its flush number `flush_number` (from 1); the crash must happen."""
    done = 0

    def reached(now: str) -> None:
        nonlocal done
        if now == step:
            done += 1
            if done == flush_number:
                raise CrashError(step)

    one = Life(settings, epoch, reached=reached, **options)
    with suppress(CrashError, StoppedError):  # the end may come while the caller waits
        run(one)
    one.ended.wait(WAIT_S)
    one.stop()
    assert [type(error) for error in one.fatal] == [CrashError]
    return one


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What the tables hold of one epoch."""

    accepted: dict[tuple[int, int], bytes]
    rejected: dict[tuple[int, int], str]
    rollups: dict[Key, Row]
    members: dict[tuple[Key, str], int]
    ledger: list[tuple[int, int, int, int, int, int, int, int]]


def stored(client: Client, epoch: str) -> Stored:
    """Read all of an epoch back, FINAL; a key that stands in two rows is an error."""
    found = {"epoch": epoch}
    events = client.query("SELECT partition, offset, raw, digest FROM events FINAL WHERE epoch = {epoch:String}", found)
    letters = client.query(
        "SELECT partition, offset, reason FROM dead_letters FINAL WHERE epoch = {epoch:String}", found
    )
    rollups = client.query(
        "SELECT meter, subject, toUnixTimestamp(window_start), dimensions, partition, position, events_count, "
        "value_sum, value_min, value_max, value_latest, digest FROM rollups FINAL WHERE epoch = {epoch:String}",
        found,
    )
    members = client.query(
        "SELECT meter, subject, toUnixTimestamp(window_start), dimensions, partition, member, position "
        "FROM members FINAL WHERE epoch = {epoch:String}",
        found,
    )
    ledger = client.query(
        "SELECT partition, first, last, accepted, duplicate, rejected, absent, digest FROM positions FINAL "
        "WHERE epoch = {epoch:String} ORDER BY partition, first, last",
        found,
    )
    rows = {_key(row): Row(*row[5:]) for row in rollups.result_rows}
    assert len(rows) == len(rollups.result_rows)
    return Stored(
        accepted={(row[0], row[1]): _bytes(row[2]) for row in events.result_rows},
        rejected={(row[0], row[1]): row[2] for row in letters.result_rows},
        rollups=rows,
        members={(_key(row), row[5]): row[6] for row in members.result_rows},
        ledger=[tuple(row) for row in ledger.result_rows],
    )


def check(client: Client, epoch: str, wanted: Expected, *, ledger_may_overlap: bool = False) -> None:
    """The tables hold just what the log comes to, and the ledger has every offset once."""
    found = stored(client, epoch)
    assert found.accepted == wanted.accepted
    assert found.rollups == wanted.rollups
    assert found.members == wanted.members
    assert found.rejected == wanted.rejected
    for partition, size in wanted.sizes.items():
        rows = [row for row in found.ledger if row[0] == partition]
        covered = sorted(offset for row in rows for offset in range(row[1], row[2] + 1))
        if ledger_may_overlap:
            covered = sorted(set(covered))
        assert covered == list(range(size))
        for row in rows:
            assert sum(row[3:6]) == row[2] - row[1] + 1
            assert row[6] == 0
        if not ledger_may_overlap:
            assert sum(row[3] for row in rows) == sum(1 for place in wanted.accepted if place[0] == partition)
            assert sum(row[4] for row in rows) == wanted.duplicates.get(partition, 0)
            assert sum(row[5] for row in rows) == sum(1 for place in wanted.rejected if place[0] == partition)


def _key(row: Sequence[Any]) -> Key:
    return row[0], row[1], row[2], tuple(sorted(row[3].items())), row[4]


def _bytes(raw: str | bytes) -> bytes:
    return raw if isinstance(raw, bytes) else raw.encode()
