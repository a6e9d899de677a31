"""Writes events to Kafka: one record an event, key = subject, value = the event's bytes untouched.

The delivery contract: `send_all` returns once every record is decided. `acknowledged` means that all in-sync copies
have it. `failed` means that it certainly is not in the log. `unknown` means that the answer got lost: it may be in the
log, and sending the same event again is safe, since its identity makes the repeat a duplicate.
"""

from __future__ import annotations

import asyncio
import enum
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec
import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from metering.config import Settings
from metering.kafka import client_config
from schemas.errors import UnavailableError
from schemas.topics import USAGE_EVENTS

QUEUE_EVENTS_MAX: Final = 200_000
QUEUE_BYTES_MAX: Final = 128 * 1024 * 1024
"""Most events, and bytes of events, that may wait for Kafka in one process; more is refused, never queued."""

PRODUCE_SLICE_EVENTS: Final = 500
"""Records handed over between two looks at other requests."""

POLL_TIMEOUT_S: Final = 0.1
PURGE_TIMEOUT_S: Final = 5.0
LINGER_MS: Final = 5

_log = structlog.get_logger(__name__)


class Record(msgspec.Struct, frozen=True, gc=False):
    """What is written: the subject's bytes and the event's bytes."""

    key: bytes
    value: bytes


class Outcome(enum.Enum):
    """What is known about a record once Kafka had its time."""

    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """Where one record is, or why it is not; partition and offset are -1 unless acknowledged."""

    outcome: Outcome
    partition: int = -1
    offset: int = -1
    error: str = ""


class ProducerBusyError(UnavailableError):
    """Too many events wait for Kafka already; nothing of the request was taken."""


def producer_config(settings: Settings) -> dict[str, Any]:
    """How a producer of usage events must be set up; any other producer should do the same (docs/events.md)."""
    return {
        **client_config(settings),
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "linger.ms": LINGER_MS,
        "compression.type": "lz4",
        "delivery.timeout.ms": round(settings.kafka_delivery_timeout_s * 1000),
        "request.timeout.ms": min(30_000, max(1, round(settings.kafka_delivery_timeout_s * 1000))),
        "message.max.bytes": max(1_000_000, settings.event_bytes_max + 65_536),
        "queue.buffering.max.messages": QUEUE_EVENTS_MAX * 2,
        "queue.buffering.max.kbytes": QUEUE_BYTES_MAX * 2 // 1024,
        "reconnect.backoff.max.ms": 1_000,
        "socket.nagle.disable": True,
    }


class EventProducer:
    """One librdkafka producer and the thread that serves its callbacks. `start` it before use, `close` it after."""

    def __init__(self, settings: Settings, *, topic: str = USAGE_EVENTS) -> None:
        self._settings = settings
        self._topic = topic
        self._lock = threading.Lock()
        self._queued_events = 0
        self._queued_bytes = 0
        self._stopping = threading.Event()
        self._broken = threading.Event()
        self._brokers_down = threading.Event()
        self._producer = self._new_producer()
        self._poller = threading.Thread(target=self._serve_callbacks, name="kafka-callbacks", daemon=True)

    @property
    def queued_events(self) -> int:
        """Events that wait for Kafka's acknowledgement now."""
        return self._queued_events

    @property
    def queued_bytes(self) -> int:
        """Bytes of events that wait for Kafka's acknowledgement now."""
        return self._queued_bytes

    @property
    def brokers_down(self) -> bool:
        """Whether librdkafka lost every broker and none has been reached since."""
        return self._brokers_down.is_set()

    def start(self) -> None:
        """Begin to serve delivery reports."""
        self._poller.start()

    def topics(self, *, timeout_s: float) -> frozenset[str]:
        """The topics Kafka has, asked now. Raises KafkaException when nothing answers; blocks up to `timeout_s`."""
        found = self._producer.list_topics(timeout=timeout_s).topics
        self._brokers_down.clear()
        return frozenset(found)

    async def send_all(self, records: Sequence[Record]) -> list[Delivery]:
        """Write the records; returns one Delivery for each, in order, once all are decided.

        Takes at most about `kafka_delivery_timeout_s`. Raises ProducerBusyError, with nothing written, when the
        queue has no room for all of them.
        """
        if not records:
            return []
        size_bytes = sum([len(record.value) + len(record.key) for record in records])
        self._reserve(len(records), size_bytes)
        flight = _Flight(len(records), partial(self._release, len(records), size_bytes), asyncio.get_running_loop())
        # A client that leaves must neither stop its records half way nor keep their room in the queue.
        await asyncio.shield(asyncio.ensure_future(self._fly(records, flight)))
        return [delivery for delivery in flight.deliveries if delivery is not None]

    def close(self) -> int:
        """Wait for what is queued, up to the delivery timeout, then stop; returns how many events stay undecided."""
        left = self._producer.flush(self._settings.kafka_delivery_timeout_s)
        self._stopping.set()
        if self._poller.is_alive():
            self._poller.join()
        _end(self._producer)
        return int(left)

    async def _fly(self, records: Sequence[Record], flight: _Flight) -> None:
        for start in range(0, len(records), PRODUCE_SLICE_EVENTS):
            if start:
                await asyncio.sleep(0)
            self._produce(records, start, min(start + PRODUCE_SLICE_EVENTS, len(records)), flight)
        await flight.done

    def _produce(self, records: Sequence[Record], start: int, end: int, flight: _Flight) -> None:
        produce, topic, decided = self._producer.produce, self._topic, flight.decided
        for index in range(start, end):
            record = records[index]
            try:
                produce(topic, record.value, record.key, on_delivery=partial(decided, index))
            except (BufferError, KafkaException) as error:
                flight.settle(index, Delivery(Outcome.FAILED, error=str(error)))
                if isinstance(error, KafkaException) and error.args[0].fatal():
                    self._broken.set()

    def _reserve(self, events: int, size_bytes: int) -> None:
        with self._lock:
            fits = (
                self._queued_events + events <= QUEUE_EVENTS_MAX and self._queued_bytes + size_bytes <= QUEUE_BYTES_MAX
            )
            if not fits and self._queued_events:
                raise ProducerBusyError(
                    f"{self._queued_events} events wait for Kafka already",
                    where="the gateway's queue to Kafka",
                    fix="Send the same request again after the pause that Retry-After names",
                )
            self._queued_events += events
            self._queued_bytes += size_bytes

    def _release(self, events: int, size_bytes: int) -> None:
        with self._lock:
            self._queued_events -= events
            self._queued_bytes -= size_bytes

    def _serve_callbacks(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(POLL_TIMEOUT_S)
            if self._broken.is_set():
                self._replace()

    def _replace(self) -> None:
        """An idempotent producer that met a fatal error refuses everything from then on; a fresh one does not."""
        broken, self._producer = self._producer, self._new_producer()
        self._broken.clear()
        _end(broken)

    def _new_producer(self) -> Producer:
        return Producer({**producer_config(self._settings), "error_cb": self._on_error})

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._broken.set()
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's local codes are spelt so
            self._brokers_down.set()
        _log.warning("kafka_error", code=error.name(), detail=error.str())


def _end(producer: Producer) -> None:
    """Decide what is still queued as not delivered, and let go of threads and connections."""
    producer.purge()
    producer.flush(PURGE_TIMEOUT_S)
    producer.close()


class _Flight:
    """The records of one `send_all` on their way. Decided from the callback thread, awaited in the event loop."""

    def __init__(self, count: int, release: partial[None], loop: asyncio.AbstractEventLoop) -> None:
        self.deliveries: list[Delivery | None] = [None] * count
        self.done: asyncio.Future[None] = loop.create_future()
        self._left = count
        self._lock = threading.Lock()
        self._release = release
        self._loop = loop

    def decided(self, index: int, error: KafkaError | None, message: Any) -> None:
        """Kafka's delivery report for the record at `index`."""
        if error is None:
            self.settle(index, Delivery(Outcome.ACKNOWLEDGED, message.partition(), message.offset()))
        else:
            outcome = Outcome.FAILED if error.code() in _NEVER_WRITTEN else Outcome.UNKNOWN
            self.settle(index, Delivery(outcome, error=error.str()))

    def settle(self, index: int, delivery: Delivery) -> None:
        """Note what became of a record; the last one wakes the waiter up."""
        with self._lock:
            self.deliveries[index] = delivery
            self._left -= 1
            last = self._left == 0
        if last:
            self._release()
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


_NEVER_WRITTEN: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.POLICY_VIOLATION,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError._PURGE_QUEUE,  # noqa: SLF001
    }
)
"""Errors after which a record certainly is not in the log; after all others, time-outs above all, it may be."""
