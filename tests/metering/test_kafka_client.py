"""Which log this is, how far it goes, and what is said when Kafka is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from metering.config import Settings
from metering.embedded.ports import free_ports
from metering.kafka import client_config, ensure_topics, log_ends, log_epoch
from metering.testing import KafkaUnderTest
from schemas.errors import KafkaUnavailableError, RequestError
from schemas.topics import DEAD_LETTERS, USAGE_EVENTS


@pytest.fixture
def settings(kafka: KafkaUnderTest) -> Settings:
    return Settings(kafka_servers=kafka.bootstrap, kafka_partitions=3, event_bytes_max=1000)


def make(settings: Settings, topic: str, partitions: int = 1) -> AdminClient:
    admin = AdminClient(client_config(settings))
    for future in admin.create_topics([NewTopic(topic, partitions, 1)], operation_timeout=15).values():
        future.result()
    return admin


def test_a_topic_made_anew_is_another_log(settings: Settings, topic_prefix: str) -> None:
    admin = make(settings, f"{topic_prefix}-anew")
    before = log_epoch(settings, f"{topic_prefix}-anew")
    same = log_epoch(settings, f"{topic_prefix}-anew")
    admin.delete_topics([f"{topic_prefix}-anew"], operation_timeout=15)[f"{topic_prefix}-anew"].result()

    make(settings, f"{topic_prefix}-anew")

    assert before == same
    assert log_epoch(settings, f"{topic_prefix}-anew") != before
    assert log_epoch(settings, f"{topic_prefix}-anew").partition("/")[0] == before.partition("/")[0]


def test_a_topic_that_is_not_there_is_not_mistaken_for_a_kafka_that_is_away(
    settings: Settings, topic_prefix: str
) -> None:
    with pytest.raises(RequestError, match="does not exist") as caught:
        log_epoch(settings, f"{topic_prefix}-never-made")

    assert "metering migrate" in caught.value.fix


def test_the_ends_of_a_log_are_its_first_kept_and_its_next_offset(settings: Settings, topic_prefix: str) -> None:
    make(settings, f"{topic_prefix}-ends", partitions=3)
    producer = Producer(client_config(settings))
    for partition, count in ((0, 5), (2, 1)):
        for _ in range(count):
            producer.produce(f"{topic_prefix}-ends", value=b"x", partition=partition)
    assert producer.flush(30) == 0

    assert log_ends(settings, f"{topic_prefix}-ends") == {0: (0, 5), 1: (0, 0), 2: (0, 1)}


@pytest.mark.parametrize("code", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE])
def test_a_partition_whose_leader_is_being_chosen_is_asked_again(
    settings: Settings, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    make(settings, f"{topic_prefix}-leaderless{code}", partitions=2)
    answers = [KafkaException(KafkaError(code)), KafkaException(KafkaError(code))]

    class Leaderless(Consumer):
        def get_watermark_offsets(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
            if answers:
                raise answers.pop()
            return super().get_watermark_offsets(*args, **kwargs)

    monkeypatch.setattr("metering.kafka.Consumer", Leaderless)

    assert log_ends(settings, f"{topic_prefix}-leaderless{code}") == {0: (0, 0), 1: (0, 0)}
    assert answers == []


def test_topics_are_made_once_with_what_the_ledger_counts_on(settings: Settings) -> None:
    """No compaction, the broker's own time, and room for an event and its headers."""
    admin = AdminClient(client_config(settings))
    if USAGE_EVENTS not in admin.list_topics(timeout=15).topics:
        assert USAGE_EVENTS in ensure_topics(settings)

    assert ensure_topics(settings) == []
    for topic in (USAGE_EVENTS, DEAD_LETTERS):
        resource = ConfigResource(ResourceType.TOPIC, topic)
        config = admin.describe_configs([resource])[resource].result()
        assert config["cleanup.policy"].value == "delete"
        assert config["message.timestamp.type"].value == "LogAppendTime"


def test_no_kafka_is_said_with_its_address_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metering.kafka.ANSWER_TIMEOUT_S", 1.0)
    settings = Settings(kafka_servers=f"127.0.0.1:{free_ports(1)[0]}")

    for ask in (lambda: log_epoch(settings, "any"), lambda: log_ends(settings, "any"), lambda: ensure_topics(settings)):
        with pytest.raises(KafkaUnavailableError) as caught:
            ask()
        assert settings.kafka_servers in str(caught.value)
        assert "METERING_KAFKA_SERVERS" in str(caught.value)


def test_connection_settings_are_handed_to_the_client_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("read by librdkafka alone")
    settings = Settings(
        kafka_servers="a:1,b:2",
        kafka_security_protocol="SASL_SSL",
        kafka_username="me",
        kafka_password="hush",
        kafka_ca_file=str(tmp_path / "ca.pem"),
    )

    assert client_config(settings) == {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": "hush",
        "ssl.ca.location": str(tmp_path / "ca.pem"),
        "log_level": 3,
    }
    assert "sasl.password" not in client_config(msgspec.structs.replace(settings, kafka_security_protocol="SSL"))
