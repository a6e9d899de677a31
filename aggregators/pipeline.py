"""The worker's engine: batches in, flushes out. Knows nothing of Faust; two threads and two bounded queues.

The fold thread decodes, decides and folds; the write thread writes one flush while the next is folded. A full queue
holds the caller back, so that a slow ClickHouse slows the worker, not its memory.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

import structlog

from aggregators.commands import Assign, Command, Drain
from aggregators.correct import take_in_corrections
from aggregators.dead_letter_limit import DeadLetterLimit
from aggregators.decide import Decider, Decision, Limits
from aggregators.dedupe import KeyFilter
from aggregators.flush import Flush, build_flush
from aggregators.metrics import FLUSH_SECONDS
from aggregators.partition import LoadDays, Partition
from aggregators.pauses import Pauses, Told
from aggregators.record_batch import RecordBatch
from aggregators.state import DayKey
from aggregators.threads import STOP_CHECK_S, guarded, offer
from aggregators.worker_store import StoppedError, WorkerStore
from metering.clock import Clock
from schemas.admission import Admission
from schemas.catalog import AppliedCatalog

log = structlog.get_logger(__name__)

_Item = TypeVar("_Item")

BATCHES_QUEUED_MAX: Final = 8
CATALOG_POLL_S: Final = 2.0
BUSY_PATIENCE: Final = 4
"""How many flush intervals a worker that has more to fold may wait before it flushes."""


class Pipeline:
    """Runs the two threads. `on_flushed` is told each durable decision; `on_fatal` must end the process."""

    def __init__(
        self,
        store: WorkerStore,
        *,
        epoch: str,
        limits: Limits,
        dead_letter_limit: DeadLetterLimit,
        flush_events_max: int,
        flush_interval_s: float,
        state_keys_max: int,
        clock: Clock,
        on_flushed: Callable[[int, list[Decision]], None],
        on_paused: Told,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._epoch = epoch
        self._limits = limits
        self._flush_events_max = flush_events_max
        self._flush_interval_s = flush_interval_s
        self._state_keys_max = state_keys_max
        self._clock = clock
        self._on_flushed = on_flushed
        self._commands: queue.Queue[Command] = queue.Queue(BATCHES_QUEUED_MAX)
        self._flushes: queue.Queue[Flush] = queue.Queue(1)
        self._durable: queue.SimpleQueue[Flush] = queue.SimpleQueue()
        self._generation = -1
        self._partitions: dict[int, Partition] = {}
        self.pauses = Pauses(store, dead_letter_limit, clock, on_paused)
        self._decider: Decider | None = None
        self._catalog: AppliedCatalog | None = None
        self._admission = Admission((), ())
        self._catalog_found: AppliedCatalog | None = None
        self._catalog_looked_s = float("-inf")
        self._pending_events = 0
        self._pending_since_s = 0.0
        self._in_flight = 0
        self._days_in_flight: deque[frozenset[DayKey]] = deque()
        self.unflushed_since_s: float | None = None
        self._threads = [
            threading.Thread(target=guarded(self._fold_loop, on_fatal), name="fold", daemon=True),
            threading.Thread(target=guarded(self._write_loop, on_fatal), name="write", daemon=True),
        ]

    @property
    def positions(self) -> dict[int, int]:
        """The next offset to fold of every assigned partition."""
        return {number: one.next_offset for number, one in self._partitions.items()}

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def put(self, batch: RecordBatch) -> None:
        """Hand over a batch; blocks while the queue is full. Raises StoppedError when the worker stops meanwhile."""
        self._offer(self._commands, batch)

    def assign(self, generation: int, partitions: tuple[int, ...]) -> Future[dict[int, int]]:
        """Take over `partitions`; the answer says the offset to read each from."""
        answer: Future[dict[int, int]] = Future()
        self._offer(self._commands, Assign(generation, partitions, answer))
        return answer

    def drain(self) -> Future[None]:
        """Have everything that was handed over so far made durable."""
        answer: Future[None] = Future()
        self._offer(self._commands, Drain(answer))
        return answer

    def stop(self) -> None:
        """End both threads; what is pending is left to the next life. Waits for a request that is under way."""
        self._store.stop()
        for thread in self._threads:
            thread.join()

    def _offer(self, to: queue.Queue[_Item], item: _Item) -> None:
        offer(to, item, self._store.stopping)

    # The fold thread.

    def _fold_loop(self) -> None:
        while not self._store.stopping.is_set():
            try:
                command = self._commands.get(timeout=self._wait_s())
            except queue.Empty:
                self._flush_if_due()
                continue
            self._collect_durable()
            if isinstance(command, Assign):
                if command.answer.set_running_or_notify_cancel():  # another rebalance may have made it needless
                    command.answer.set_result(self._take_over(command))
            elif isinstance(command, Drain):
                self._make_durable()
                command.answer.set_result(None)
            elif command.generation == self._generation:
                self._take_in(command)
            self._flush_if_due()

    def _wait_s(self) -> float:
        """How long the next batch may be waited for before a flush is due."""
        if not self._pending_events:
            return STOP_CHECK_S
        return max(0.001, min(STOP_CHECK_S, self._pending_since_s + self._flush_interval_s - self._clock.monotonic_s()))

    def _take_over(self, command: Assign) -> dict[int, int]:
        self._partitions, self._pending_events = {}, 0
        self._wait_written()
        # The ledger first: a worker that still flushes meanwhile then makes us read an event again, never miss one.
        ends = self._store.ledger_ends(command.partitions)
        identities = KeyFilter()
        identities.update(self._store.identity_keys())
        store = self._store
        self._decider = Decider(self._epoch, self._limits, identities, store.taken_keys(), store.erasures())
        self._generation = command.generation
        self._partitions = {
            number: Partition(ends[number], self._store.known_days(number), (self._epoch, number))
            for number in command.partitions
        }
        if newest := self._newest_catalog():
            self._take_up(newest)
        self.pauses.take_over(command.generation, ends)
        self.unflushed_since_s = None
        log.info("assigned", partitions={number: one.next_offset for number, one in self._partitions.items()})
        return {number: one.next_offset for number, one in self._partitions.items()}

    def _take_in(self, batch: RecordBatch) -> None:
        partition = self._partitions[batch.partition]
        if self.pauses.skips(batch):
            return  # it is read again from where the partition stands
        batch = batch.starting_at(partition.next_offset)
        if not batch.offsets:
            return
        decider = self._decider
        if decider is None:
            raise RuntimeError("a batch came before an assignment")
        decoded = decider.decode(batch)
        # A type that is not known may have been applied just before its first event was sent: ask before rejecting it.
        is_news = not decoded.types <= self._admission.known_types
        is_old = self._clock.monotonic_s() - self._catalog_looked_s > CATALOG_POLL_S
        newest = self._newest_catalog() if is_news or is_old else self._catalog_found
        if newest is not None and (self._catalog is None or newest.version > self._catalog.version):
            self._take_up(newest)
        decision = decider.decide(decoded, partition.next_offset, self._admission, self._store.standings)
        if decision.absent:
            log.error(
                "offsets without a record",
                partition=decision.partition,
                first=decision.first,
                last=decision.last,
                absent=decision.absent,
            )
        if decision.is_correcting:
            self._correct(decider, partition, decision)
        else:
            partition.take_in(decision, self._load_days(partition))
            if not self._pending_events:
                self._pending_since_s = self._clock.monotonic_s()
            if self.unflushed_since_s is None:
                self.unflushed_since_s = self._clock.monotonic_s()
            self._pending_events += len(batch.offsets)
        self.pauses.take_in(decision)
        self.pauses.pause_if_too_many(batch.partition, partition.next_offset, self._make_durable)

    def _correct(self, decider: Decider, partition: Partition, decision: Decision) -> None:
        """Take in a batch with corrections: between two flushes, because it is counted again from what is stored."""
        self._make_durable()
        versions = self._catalog.meter_versions if self._catalog is not None else ()
        taken = take_in_corrections(
            self._store,
            partition,
            decision,
            versions=versions,
            measure=self._admission.readable,
            load_days=self._load_days(partition),
        )
        decider.take_out(taken)
        self._make_durable()

    def _load_days(self, partition: Partition) -> LoadDays:
        number = partition.place[1]
        return lambda days, series: self._store.states(number, days, series)

    def _newest_catalog(self) -> AppliedCatalog | None:
        """Ask for it. Of a busy worker the write thread does so in time: folding would wait for the answer."""
        newest = self._store.catalog(self._catalog)
        self._catalog_looked_s = self._clock.monotonic_s()
        return newest

    def _take_up(self, newest: AppliedCatalog) -> None:
        """Go by this catalog. What the one before decided is durable first: a ledger row names one catalog."""
        self._flush()
        self._catalog = newest
        self._admission = Admission(newest.meter_versions, newest.known_types)
        log.info("catalog", version=newest.version)
        starts = [one.start_of(newest.version) for one in self._partitions.values()]
        if wanted := [one for one in starts if one is not None]:
            self._wait_written()
            self._store.claim_starts(wanted)
        for partition in self._partitions.values():
            partition.begin_catalog(newest.version, newest.meter_versions)

    def _flush_if_due(self) -> None:
        self._collect_durable()
        self.pauses.look()
        if not self._pending_events:
            return
        is_full = self._pending_events >= self._flush_events_max
        # With more batches waiting, fewer and larger flushes catch up sooner.
        patience = 1 if self._commands.empty() else BUSY_PATIENCE
        is_old = self._clock.monotonic_s() - self._pending_since_s >= self._flush_interval_s * patience
        if is_full or (is_old and not self._in_flight):
            self._flush()

    def _flush(self) -> None:
        """Hand everything pending to the write thread; waits while the one before is being written."""
        version = self._catalog.version if self._catalog else 0
        flush = build_flush(list(self._partitions.values()), self._generation, version)
        self._pending_events = 0
        if flush is not None:
            self._in_flight += 1
            self._days_in_flight.append(flush.days)
            self._offer(self._flushes, flush)
        self._collect_durable()

    def _make_durable(self) -> None:
        self._flush()
        self._wait_written()

    def _wait_written(self) -> None:
        while self._in_flight:
            if self._store.stopping.is_set():
                raise StoppedError("flush")
            try:
                self._forget_flushed(self._durable.get(timeout=STOP_CHECK_S))
            except queue.Empty:
                continue

    def _collect_durable(self) -> None:
        while not self._durable.empty():
            self._forget_flushed(self._durable.get())

    def _forget_flushed(self, flush: Flush) -> None:
        """What is durable need not be remembered: neither its identities nor, when memory is short, its states."""
        self._in_flight -= 1
        self._days_in_flight.popleft()
        if self._decider is not None:
            for decision in flush.decisions:
                self._decider.flushed(decision.accepted)
        if self._in_flight == 0 and self._pending_events == 0:
            self.unflushed_since_s = None
        else:
            self.unflushed_since_s = self._clock.monotonic_s()
        if sum(one.fold.keys_count for one in self._partitions.values()) > self._state_keys_max:
            # Also while more is pending or being written, or a busy worker would never forget anything.
            unsaved = frozenset[DayKey]().union(*self._days_in_flight)
            for one in self._partitions.values():
                one.fold.forget(self._state_keys_max // len(self._partitions), unsaved | one.fold.dirty_days)

    # The write thread.

    def _write_loop(self) -> None:
        while not self._store.stopping.is_set():
            try:
                flush = self._flushes.get(timeout=STOP_CHECK_S)
            except queue.Empty:
                continue
            with FLUSH_SECONDS.time():
                self._store.write(flush)
            self._on_flushed(flush.generation, flush.decisions)
            self._durable.put(flush)
            if self._clock.monotonic_s() - self._catalog_looked_s > CATALOG_POLL_S / 2:
                self._catalog_found = self._newest_catalog()
