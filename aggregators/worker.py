"""A worker process: Faust brings batches, the pipeline folds and flushes them, a watchdog ends it when it is stuck."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Final

import structlog

from aggregators.app import AggregatorApp
from aggregators.audit_watch import AuditWatch
from aggregators.dead_letter_limit import DeadLetterLimit
from aggregators.dead_letter_topic import DeadLetterTopic
from aggregators.decide import Decision, Limits
from aggregators.health import Health
from aggregators.metrics import (
    EVENTS_ACCEPTED,
    EVENTS_DUPLICATE,
    EVENTS_REJECTED,
    NEXT_OFFSET,
    OFFSETS_ABSENT,
    PARTITIONS_PAUSED,
    STANDSTILL_SECONDS,
    UNFLUSHED_SECONDS,
)
from aggregators.pipeline import Pipeline
from aggregators.record_batch import RecordBatch
from aggregators.standstill import Standstill
from aggregators.worker_store import StoppedError, WorkerStore
from metering import erasure_store
from metering.clock import Clock
from metering.config import Settings
from metering.kafka import log_ends, log_epoch
from metering.version import CODE_VERSION
from schemas.errors import ErasureUnderWayError, InvariantViolationError, MeteringError
from schemas.topics import USAGE_EVENTS

log = structlog.get_logger(__name__)

DRAIN_TIMEOUT_S: Final = 10.0
EXIT_TIMEOUT_S: Final = 20.0
EPOCH_CHECK_S: Final = 10.0
ERASURE_CHECK_S: Final = 2.0
STANDSTILL_CHECK_S: Final = 5.0
STANDSTILL_READY_S_MAX: Final = 30.0
"""A partition with records to read that has not moved for this long makes the worker say that it is not ready."""


class Worker:
    """Runs until SIGTERM or SIGINT. Anything unexpected ends the process at once: the ledger says where to go on."""

    def __init__(self, settings: Settings, clock: Clock, *, accept_log_loss: bool = False) -> None:
        self._settings = settings
        self._clock = clock
        self.epoch = log_epoch(settings, USAGE_EVENTS)
        self.store = WorkerStore(
            settings,
            topic=USAGE_EVENTS,
            epoch=self.epoch,
            dead_letters=DeadLetterTopic(settings),
            log_range=lambda: log_ends(settings, USAGE_EVENTS),
            clock=clock,
            worker=f"{platform.node()}:{os.getpid()}",
            code_version=CODE_VERSION,
            accept_log_loss=accept_log_loss,
        )
        self.pipeline = Pipeline(
            self.store,
            epoch=self.epoch,
            limits=Limits(
                event_bytes_max=settings.event_bytes_max,
                ahead_s_max=settings.event_ahead_s_max,
                age_s_max=settings.event_age_s_max,
            ),
            dead_letter_limit=DeadLetterLimit(
                letters_max=settings.dead_letters_max,
                percent_max=settings.dead_letters_percent_max,
                window_records=settings.dead_letters_window_records,
            ),
            flush_events_max=settings.flush_events_max,
            flush_interval_s=settings.flush_interval_s,
            state_keys_max=settings.state_keys_max,
            clock=clock,
            on_flushed=self._flushed,
            on_paused=self._paused,
            on_fatal=die,
        )
        self._audit = AuditWatch(
            settings,
            epoch=self.epoch,
            partitions=lambda: tuple(self.pipeline.positions),
            stopping=self.store.stopping,
        )
        self._standstill = Standstill()
        self._standstill_s = 0.0
        self._erasing = ""
        self._app: AggregatorApp | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> None:
        """Work until told to stop; returns once what was folded is durable, or could not be made so in time.

        Begins only while nobody is being erased, and raises ErasureUnderWayError, stopped, when somebody is to be.
        """
        loop = self._loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if not await self._wait_for_erasure(stop):
            _end_after(EXIT_TIMEOUT_S)
            return
        self.pipeline.start()
        self._audit.start()
        self._app = app = AggregatorApp(self._settings, topic=USAGE_EVENTS, take_over=self._take_over, take=self._take)
        app.finalize()
        await app.start()
        watch = asyncio.create_task(self._watch(app))
        erasures = asyncio.create_task(self._watch_erasures(stop))
        await stop.wait()
        log.info("stopping")
        _end_after(EXIT_TIMEOUT_S)
        watch.cancel()
        erasures.cancel()
        await self._stop(app)
        if self._erasing:
            raise ErasureUnderWayError(self._erasing)

    def health(self) -> Health:
        """What this worker says of itself."""
        waiting_for = self.store.waiting_for
        partitions = self.pipeline.positions
        paused = {number: one.said for number, one in self.pipeline.pauses.current.items()}
        is_moving = not waiting_for and self._standstill_s < STANDSTILL_READY_S_MAX
        return Health(
            is_ready=bool(partitions) and not paused and is_moving,
            epoch=self.epoch,
            partitions=partitions,
            unflushed_s=self._unflushed_s(),
            standstill_s=self._standstill_s,
            waiting_for=waiting_for,
            paused=paused,
            audit_differences=self._audit.differences,
        )

    def _unflushed_s(self) -> float:
        since_s = self.pipeline.unflushed_since_s
        return 0.0 if since_s is None else self._clock.monotonic_s() - since_s

    async def _stop(self, app: AggregatorApp) -> None:
        try:
            await asyncio.wait_for(asyncio.wrap_future(self.pipeline.drain()), DRAIN_TIMEOUT_S)
        except (TimeoutError, StoppedError):
            log.warning("stopping with unflushed events; the next life reads them again")
        await asyncio.to_thread(self.pipeline.stop)
        await app.stop()

    async def _take_over(self, generation: int, partitions: tuple[int, ...]) -> Mapping[int, int]:
        future = await asyncio.to_thread(self.pipeline.assign, generation, partitions)
        return await asyncio.wrap_future(future)

    async def _take(self, batch: RecordBatch) -> None:
        """Hand a batch over. Faust would take an exception from here for success, so none may leave."""
        try:
            await asyncio.to_thread(self.pipeline.put, batch)
        except StoppedError:
            log.debug("batch left to the next life", partition=batch.partition)
        except Exception as error:  # noqa: BLE001 - see above
            die(error)

    def _flushed(self, _generation: int, decisions: list[Decision]) -> None:
        """On the write thread, after each flush: count, and let Kafka's lag tools know."""
        for decision in decisions:
            EVENTS_ACCEPTED.inc(len(decision.accepted))
            EVENTS_DUPLICATE.inc(decision.duplicate)
            OFFSETS_ABSENT.inc(decision.absent)
            for one in decision.rejected:
                EVENTS_REJECTED.labels(one.reason).inc()
            NEXT_OFFSET.labels(str(decision.partition)).set(decision.last + 1)
        if self._app is not None and self._loop is not None:
            offsets = {decision.partition: decision.last + 1 for decision in decisions}
            asyncio.run_coroutine_threadsafe(self._app.batch_consumer.commit_durable(offsets), self._loop)

    def _paused(self, generation: int, paused: frozenset[int], resumed: Mapping[int, int]) -> None:
        """On the fold thread, whenever partitions are paused, resumed or taken over: have them read or not."""
        PARTITIONS_PAUSED.set(len(paused))
        if self._app is not None and self._loop is not None:
            hold = self._app.batch_consumer.hold(generation, paused, resumed)
            asyncio.run_coroutine_threadsafe(hold, self._loop)

    async def _wait_for_erasure(self, stop: asyncio.Event) -> bool:
        """Return once no customer is being erased; False when told to stop before."""
        stopped = asyncio.create_task(stop.wait())
        while True:
            asked = asyncio.create_task(asyncio.to_thread(self._customer_being_erased))
            await asyncio.wait({asked, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                self.store.stop()
                return False
            if not (customer := await asked):
                stopped.cancel()
                return True
            log.info("waiting until a customer is erased", customer=customer)
            await asyncio.wait({stopped}, timeout=ERASURE_CHECK_S)

    async def _watch_erasures(self, stop: asyncio.Event) -> None:
        """Make way for an erasure: what is folded is flushed, and the next life knows who was erased."""
        while not self._erasing:
            await asyncio.sleep(ERASURE_CHECK_S)
            self._erasing = await asyncio.to_thread(self._customer_being_erased)
        log.info("making way for an erasure", customer=self._erasing)
        stop.set()

    def _customer_being_erased(self) -> str:
        try:
            found = self.store.read("erasures", erasure_store.unfinished)
        except StoppedError:
            return ""
        return found.customer if found else ""

    async def _watch(self, app: AggregatorApp) -> None:
        """End the process when it is stuck, when Faust gave up, or when the topic is no longer the same log."""
        checked_s = looked_s = self._clock.monotonic_s()
        while True:
            await asyncio.sleep(1.0)
            now_s = self._clock.monotonic_s()
            waiting_s = self._unflushed_s()
            UNFLUSHED_SECONDS.set(waiting_s)
            if waiting_s > self._settings.worker_stuck_s_max and not self.store.waiting_for:
                die(InvariantViolationError(f"no flush for {waiting_s:.0f} s although events wait"))
            if app.should_stop or app.crashed:
                die(InvariantViolationError(f"Faust stopped by itself ({app.crash_reason!r})"))
            if now_s - looked_s > STANDSTILL_CHECK_S:
                looked_s = now_s
                await self._look_for_standstill()
            if now_s - checked_s > EPOCH_CHECK_S:
                checked_s = now_s
                await self._check_epoch()

    async def _look_for_standstill(self) -> None:
        """End the process when a partition does not move on although nothing is waited for.

        A worker that was away for longer than its session may come back as a member that gets nothing to read.
        """
        try:
            ends = await asyncio.to_thread(log_ends, self._settings, USAGE_EVENTS)
        except MeteringError as error:
            log.warning("cannot tell where the log ends", error=str(error))
            return
        if self.store.waiting_for:
            self._standstill = Standstill()
        now_s = self._clock.monotonic_s()
        following = {number: end for number, (_, end) in ends.items()}
        self._standstill_s = self._standstill.look(
            self.pipeline.positions, following, now_s, paused=self.pipeline.pauses.current
        )
        STANDSTILL_SECONDS.set(self._standstill_s)
        if self._standstill_s > self._settings.worker_stuck_s_max:
            die(InvariantViolationError(f"a partition has not moved for {self._standstill_s:.0f} s though it could"))

    async def _check_epoch(self) -> None:
        try:
            epoch = await asyncio.to_thread(log_epoch, self._settings, USAGE_EVENTS)
        except MeteringError as error:
            log.warning("cannot tell which log this is", error=str(error))
            return
        if epoch != self.epoch:
            die(InvariantViolationError(f"the topic was made anew: this worker reads {self.epoch}, now it is {epoch}"))


def die(error: BaseException) -> None:
    """End the process now. Nothing is lost: what is not in the ledger is read again."""
    log.critical("worker ends", error=str(error), exc_info=error)
    sys.stderr.flush()
    os._exit(error.exit_code if isinstance(error, MeteringError) else 70)


def _end_after(timeout_s: float) -> None:
    """Whatever hangs while stopping, the process is gone after this."""
    timer = threading.Timer(timeout_s, os._exit, args=(75,))
    timer.daemon = True
    timer.start()
