"""Sends rejected records to `usage.dead_letters.v1`: the original bytes, with headers that say why and from where."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from aggregators.decide import Decision
from metering.config import Settings
from metering.kafka import client_config
from schemas.errors import KafkaUnavailableError
from schemas.topics import BATCH_BYTES_MAX, DEAD_LETTERS, RECORD_OVERHEAD_BYTES_MAX

QUEUED_MAX: Final = 5_000


class DeadLetterTopic:
    """A producer of dead letters. A record may be sent twice after a crash; (epoch, partition, offset) names it."""

    def __init__(self, settings: Settings) -> None:
        self._servers = settings.kafka_bootstrap
        self._timeout_s = settings.kafka_delivery_timeout_s
        self._producer = Producer(
            {
                **client_config(settings),
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "message.max.bytes": max(settings.event_bytes_max, BATCH_BYTES_MAX) + 2 * RECORD_OVERHEAD_BYTES_MAX,
                "delivery.timeout.ms": int(settings.kafka_delivery_timeout_s * 1000),
            }
        )

    def send(self, decision: Decision) -> None:
        """Send the decision's rejected records; returns once Kafka has acknowledged all of them.

        Raises KafkaUnavailableError when one was not acknowledged in time; sending all of them again is harmless.
        """
        failures: list[str] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(str(error))

        try:
            for index, one in enumerate(decision.rejected):
                headers = {
                    "reason": one.reason,
                    "field": one.field,
                    "detail": one.detail,
                    "epoch": decision.epoch,
                    "topic": decision.topic,
                    "partition": str(decision.partition),
                    "offset": str(one.offset),
                    "logged_at_ms": str(one.logged_at_ms),
                }
                self._producer.produce(
                    DEAD_LETTERS,
                    value=one.raw,
                    key=one.key,
                    headers=[(name, text.encode("utf-8", "backslashreplace")) for name, text in headers.items()],
                    on_delivery=delivered,
                )
                if index % QUEUED_MAX == QUEUED_MAX - 1:
                    self._producer.flush(self._timeout_s)
            unsent = self._producer.flush(self._timeout_s + 1)
        except (KafkaException, BufferError) as error:
            raise self._unavailable(str(error)) from error
        if unsent or failures:
            raise self._unavailable(failures[0] if failures else "no acknowledgement in time")

    def _unavailable(self, why: str) -> KafkaUnavailableError:
        return KafkaUnavailableError(f"Kafka does not take dead letters ({why})", where=self._servers)
