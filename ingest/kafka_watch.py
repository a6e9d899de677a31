"""Watches whether Kafka can be written to, and which log it is, so that a request need not find out by waiting."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import msgspec
import structlog
from confluent_kafka import KafkaException

from ingest.metrics import GatewayMetrics
from ingest.producer import EventProducer
from metering.clock import Clock
from metering.config import Settings
from metering.kafka import log_epoch
from schemas.errors import MeteringError
from schemas.topics import DEAD_LETTERS, USAGE_EVENTS

READY_INTERVAL_S: Final = 3.0
AWAY_INTERVAL_S: Final = 0.5
ANSWER_TIMEOUT_S: Final = 3.0
EPOCH_AGE_S_MAX: Final = 10.0

_log = structlog.get_logger(__name__)


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about Kafka: `problem` is empty when it can be written to. `epoch` is which log it is."""

    problem: str
    fix: str = ""
    epoch: str = ""


class KafkaWatch:
    """Asks Kafka every few seconds, more often while it is away."""

    def __init__(self, settings: Settings, producer: EventProducer, clock: Clock, metrics: GatewayMetrics) -> None:
        self._settings = settings
        self._producer = producer
        self._clock = clock
        self._metrics = metrics
        self._state = Readiness(problem="Kafka was not asked yet")
        self._epoch = ""
        self._epoch_read_at_s = 0.0
        self._poll: asyncio.Task[None] | None = None

    @property
    def state(self) -> Readiness:
        """The newest finding; librdkafka's own notice that all brokers are gone comes before it."""
        if self._producer.brokers_down and not self._state.problem:
            return Readiness(problem="Kafka does not answer: all brokers are down", fix=_FIX_AWAY)
        return self._state

    async def start(self) -> None:
        """Ask once and keep asking."""
        await self._ask()
        self._poll = asyncio.create_task(self._keep_asking())

    async def stop(self) -> None:
        """End the asking."""
        if self._poll is not None:
            self._poll.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poll

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(AWAY_INTERVAL_S if self.state.problem else READY_INTERVAL_S)
            await self._ask()

    async def _ask(self) -> None:
        before = self._state.problem
        self._state = await asyncio.to_thread(self._find_out)
        self._metrics.kafka_ready.set(0 if self._state.problem else 1)
        if self._state.problem != before:
            _log.info("kafka_readiness", problem=self._state.problem, epoch=self._state.epoch)

    def _find_out(self) -> Readiness:
        try:
            topics = self._producer.topics(timeout_s=ANSWER_TIMEOUT_S)
        except KafkaException as error:
            return Readiness(problem=f"Kafka does not answer ({error.args[0].str()})", fix=_FIX_AWAY)
        missing = [topic for topic in (USAGE_EVENTS, DEAD_LETTERS) if topic not in topics]
        if missing:
            return Readiness(
                problem=f"Kafka has no topic {' and no topic '.join(missing)}", fix="Run `metering migrate`"
            )
        now_s = self._clock.monotonic_s()
        if not self._epoch or now_s - self._epoch_read_at_s > EPOCH_AGE_S_MAX:
            try:
                self._epoch = log_epoch(self._settings, USAGE_EVENTS)
            except MeteringError as error:
                return Readiness(problem=error.what, fix=error.fix)
            self._epoch_read_at_s = now_s
        return Readiness(problem="", epoch=self._epoch)


_FIX_AWAY: Final = "Start Kafka, or correct METERING_KAFKA_SERVERS"
