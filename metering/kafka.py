"""What every part needs of Kafka: connection settings, topics, and which log this is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from metering.config import Settings
from metering.tls import checked_file
from schemas.errors import KafkaUnavailableError, RequestError
from schemas.topics import TopicShape, topic_shapes

ANSWER_TIMEOUT_S: Final = 15.0
LEADER_PAUSE_S: Final = 0.2
DAY_MS: Final = 86_400_000
MOCK_CLUSTER_PREFIX: Final = "mockCluster"


def client_config(settings: Settings) -> dict[str, Any]:
    """The connection part of any librdkafka client's configuration; it holds the password, so never log it."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap,
        "security.protocol": settings.kafka_security_protocol,
        "log_level": 3,
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = settings.kafka_username
        config["sasl.password"] = settings.kafka_password
    for option, setting in _FILES.items():
        if path := checked_file(settings, setting):
            config[option] = path
    return config


_LEADERLESS: Final = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
"""What a broker answers for a partition that was just made, or whose leader was just lost: soon there is another."""

_FILES: Final = {
    "ssl.ca.location": "kafka_ca_file",
    "ssl.certificate.location": "kafka_cert_file",
    "ssl.key.location": "kafka_key_file",
}


def ensure_topics(settings: Settings, shapes: Sequence[TopicShape] = ()) -> list[str]:
    """Create the topics that are absent; returns their names. Existing topics are left as they are.

    Without `shapes` they are the topics that the pipeline needs.
    """
    admin = AdminClient(client_config(settings))
    shapes = shapes or topic_shapes(
        partitions=settings.kafka_partitions,
        retention_ms=settings.kafka_retention_days * DAY_MS,
        event_bytes_max=settings.event_bytes_max,
    )
    try:
        cluster = admin.list_topics(timeout=ANSWER_TIMEOUT_S)
        if _is_mock(cluster.cluster_id):
            return _name_topics(admin, [shape.name for shape in shapes if shape.name not in cluster.topics])
        existing = cluster.topics
        wanted = [
            NewTopic(
                shape.name,
                num_partitions=shape.partitions,
                replication_factor=settings.kafka_replication_factor,
                config=shape.config,
            )
            for shape in shapes
            if shape.name not in existing
        ]
        if not wanted:
            return []
        for future in admin.create_topics(wanted, operation_timeout=ANSWER_TIMEOUT_S).values():
            _created(future)
    except KafkaException as error:
        raise _unavailable(settings, error) from error
    return [topic.topic for topic in wanted]


def log_epoch(settings: Settings, topic: str) -> str:
    """Which log `topic` is: `cluster id/topic id`. A topic made anew, or another cluster, is another log.

    The mock cluster gives topics no id, but every start of it has a new cluster id, and topics cannot be deleted there.
    Raises KafkaUnavailableError, or RequestError when the topic is not there.
    """
    admin = AdminClient(client_config(settings))
    try:
        cluster_id = admin.list_topics(timeout=ANSWER_TIMEOUT_S).cluster_id
        if _is_mock(cluster_id):
            return f"{cluster_id}/{topic}"
        description = admin.describe_topics(TopicCollection([topic]), request_timeout=ANSWER_TIMEOUT_S)[topic].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise _absent(settings, topic) from error
        raise _unavailable(settings, error) from error
    if not description.partitions:
        raise _absent(settings, topic)
    return f"{cluster_id}/{description.topic_id}"


def log_ends(settings: Settings, topic: str) -> dict[int, tuple[int, int]]:
    """(first kept offset, next offset to be written) of every partition of `topic`.

    A partition whose leader is just being chosen is asked again. Raises KafkaUnavailableError.
    """
    consumer = Consumer({**client_config(settings), "group.id": "metering-log-ends", "enable.auto.commit": False})
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    try:
        while True:
            try:
                return _watermarks(consumer, topic)
            except KafkaException as error:
                if error.args[0].code() not in _LEADERLESS or time.monotonic() > deadline_s:
                    raise _unavailable(settings, error) from error
            time.sleep(LEADER_PAUSE_S)
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
    metadata = consumer.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
    return {
        partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_TIMEOUT_S)
        for partition in sorted(metadata.partitions)
    }


def _is_mock(cluster_id: str | None) -> bool:
    """Whether this is librdkafka's mock cluster, which creates no topics on demand and describes none."""
    return cluster_id is not None and cluster_id.startswith(MOCK_CLUSTER_PREFIX)


def _name_topics(admin: AdminClient, topics: list[str]) -> list[str]:
    """The mock cluster's way to create topics: asking about one makes it."""
    for topic in topics:
        admin.list_topics(topic, timeout=ANSWER_TIMEOUT_S)
    return topics


def _created(future: Any) -> None:
    """Wait for one topic; that another process made it meanwhile is as good."""
    try:
        future.result()
    except KafkaException as error:
        if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
            raise


def _absent(settings: Settings, topic: str) -> RequestError:
    return RequestError(f"topic {topic} does not exist", where=settings.kafka_bootstrap, fix="Run `metering migrate`")


def _unavailable(settings: Settings, error: KafkaException) -> KafkaUnavailableError:
    return KafkaUnavailableError(
        f"Kafka does not answer ({error.args[0]})",
        where=settings.kafka_bootstrap,
        fix="Start it with `metering up`, or set METERING_KAFKA_SERVERS",
    )
