"""Lines to the Kafka topic billing.line_items.v1, each there once for whoever reads committed records.

A group of lines is one transaction. Its transactional id is the run's, so a new exporter shuts an older one out and
ends what that one had begun; whatever the ledger knows no answer of is then looked up in the topic itself, from where
its end was before, and only what is not there is sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import orjson
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from billing_export.delivery import Answer, Delivery, Outcome, Sending
from metering.config import Settings
from metering.kafka import client_config, ensure_topics
from schemas.errors import KafkaUnavailableError
from schemas.line_item import LineItem, encode_line_item
from schemas.topics import BILLING_LINE_ITEMS, line_items_topic

LINE_ID_HEADER: Final = "line_item_id"
RUN_HEADER: Final = "run"
ANSWER_TIMEOUT_S: Final = 30.0


class KafkaTopic:
    """Writes lines to the topic. `run` is the run they are of: it names the transactions."""

    group_max = 5_000

    def __init__(self, settings: Settings, *, run: str, topic: str = BILLING_LINE_ITEMS, name: str = "kafka") -> None:
        self._settings = settings
        self._name = name
        self._topic = topic
        self._run = run
        self._producer: Producer | None = None

    @property
    def name(self) -> str:
        return self._name

    def deliveries(self, items: Iterable[LineItem]) -> Iterator[Delivery]:
        for item in items:
            yield Delivery(key=item.id, items=(item,))

    def preview(self, delivery: Delivery) -> dict[str, object]:
        document: dict[str, object] = orjson.loads(encode_line_item(delivery.items[0]))
        return {"topic": self._topic, "key": delivery.items[0].customer, "value": document}

    def mark(self) -> str:
        """The next offset of each partition, as JSON."""
        consumer = self._consumer()
        try:
            self._ready()
            partitions = self._partitions(consumer)
            ends = {one: consumer.get_watermark_offsets(one, timeout=ANSWER_TIMEOUT_S)[1] for one in partitions}
        except KafkaException as error:
            raise self._away(error) from error
        finally:
            consumer.close()
        return orjson.dumps({str(one.partition): end for one, end in ends.items()}).decode()

    def send(self, sendings: Sequence[Sending]) -> Iterator[tuple[Sending, Answer]]:
        try:
            producer = self._ready()  # before looking back, so that no older exporter can still add to the topic
            found = self._found([one for one in sendings if one.unresolved])
            missing = [one for one in sendings if one.delivery.key not in found]
            written = self._write(producer, missing) if missing else {}
        except KafkaException as error:
            self._producer = None
            raise self._away(error) from error
        for sending in sendings:
            place = found.get(sending.delivery.key) or written[sending.delivery.key]
            yield sending, Answer(outcome=Outcome.ACCEPTED, status="committed", foreign_id=place)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def _ready(self) -> Producer:
        if self._producer is None:
            ensure_topics(self._settings, [line_items_topic(partitions=self._settings.kafka_partitions)])
            producer = Producer(
                {
                    **client_config(self._settings),
                    "transactional.id": f"metering-export-{self._topic}-{self._run}",
                    "enable.idempotence": True,
                    "acks": "all",
                    "partitioner": "murmur2_random",
                    "compression.type": "zstd",
                    "linger.ms": 20,
                }
            )
            producer.init_transactions(ANSWER_TIMEOUT_S)
            self._producer = producer
        return self._producer

    def _write(self, producer: Producer, sendings: Sequence[Sending]) -> dict[str, str]:
        """Where each line came to stand, once all of them are committed."""
        places: dict[str, str] = {}

        def written(line_id: str, error: KafkaError | None, message: Message) -> None:
            if error is None:  # an error fails the commit below
                places[line_id] = f"{message.partition()}/{message.offset()}"

        producer.begin_transaction()
        for sending in sendings:
            item = sending.delivery.items[0]
            headers: list[tuple[str, str | bytes | None]] = [(LINE_ID_HEADER, item.id), (RUN_HEADER, item.run)]
            while True:
                try:
                    producer.produce(
                        self._topic,
                        key=item.customer,
                        value=encode_line_item(item),
                        headers=headers,
                        on_delivery=partial(written, item.id),  # a report comes without its record's headers
                    )
                    break
                except BufferError:
                    producer.poll(1)
            producer.poll(0)
        producer.commit_transaction(ANSWER_TIMEOUT_S)
        return places

    def _found(self, sendings: Sequence[Sending]) -> dict[str, str]:
        """Which of these lines the topic has, and where."""
        if not sendings:
            return {}
        wanted = {one.delivery.key for one in sendings}
        first: dict[int, int] = {}
        for mark in {one.mark for one in sendings}:
            for partition, offset in orjson.loads(mark or "{}").items():
                first[int(partition)] = min(offset, first.get(int(partition), offset))
        consumer = self._consumer()
        try:
            return self._read_back(consumer, wanted, first)
        finally:
            consumer.close()

    def _read_back(self, consumer: Consumer, wanted: set[str], first: dict[int, int]) -> dict[str, str]:
        places: dict[str, str] = {}
        for one in self._partitions(consumer):
            end = consumer.get_watermark_offsets(one, timeout=ANSWER_TIMEOUT_S)[1]
            start = first.get(one.partition, OFFSET_BEGINNING)
            if start >= end:
                continue
            consumer.assign([TopicPartition(self._topic, one.partition, start)])
            reached = start
            while reached < end:
                message = consumer.poll(ANSWER_TIMEOUT_S)
                if message is None:
                    # Another transaction that was begun and not ended hides what comes after it.
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - a public code, named so
                problem = message.error()
                if problem is not None:
                    if problem.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - as above
                        raise KafkaException(problem)
                    reached = message.offset() or 0
                    continue
                reached = (message.offset() or 0) + 1
                line_id = _line_id(message)
                if line_id in wanted:
                    places[line_id] = f"{one.partition}/{message.offset()}"
        return places

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                **client_config(self._settings),
                "group.id": "metering-export-look-back",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )

    def _partitions(self, consumer: Consumer) -> list[TopicPartition]:
        topic = consumer.list_topics(self._topic, timeout=ANSWER_TIMEOUT_S).topics[self._topic]
        return [TopicPartition(self._topic, partition) for partition in sorted(topic.partitions)]

    def _away(self, error: KafkaException) -> KafkaUnavailableError:
        return KafkaUnavailableError(
            f"the lines were not committed ({error.args[0]})",
            where=f"{self._settings.kafka_bootstrap}, topic {self._topic}",
            fix="Nothing goes twice: run the same command again",
        )


def _line_id(message: Message) -> str:
    """The line id in a record's header; empty for a record of somebody else."""
    headers: Any = message.headers() or []
    for name, value in headers:
        if name == LINE_ID_HEADER:
            return value.decode() if isinstance(value, bytes) else str(value)
    return ""
