"""The Kafka record format of docs/events.md: any producer that keeps to it agrees with the gateway on the partition."""

from __future__ import annotations

import json
from typing import Any

from confluent_kafka import Producer

from ingest.content import BATCH
from ingest.producer import producer_config
from metering.config import Settings
from metering.kafka import log_ends
from schemas.topics import USAGE_EVENTS

SUBJECTS = ["UA", "customer-7", "a" * 100, "€", "U A", "0", "zürich/haus 1"]


def murmur2(data: bytes) -> int:
    """Kafka's hash of a key, written out from its description: 32-bit Murmur2 with seed 0x9747b28c."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


def partition_of(subject: str, partitions: int) -> int:
    return (murmur2(subject.encode()) & 0x7FFFFFFF) % partitions


def test_the_gateways_partition_is_that_of_the_java_client(
    gateway: Any, event: Any, log: Any, kafka_settings: Settings
) -> None:
    events = [event(subject=subject) for subject in SUBJECTS]

    answer = gateway.post(json.dumps(events).encode(), BATCH, params={"positions": "true"})

    partitions = len(log_ends(kafka_settings, USAGE_EVENTS))  # a topic keeps those it was made with
    expected = [partition_of(subject, partitions) for subject in SUBJECTS]
    assert [place[0] for place in answer.json()["positions"]] == expected
    assert {key.decode(): partition for partition, _, key, _ in log.records()} == dict(
        zip(SUBJECTS, expected, strict=True)
    )


def test_a_producer_set_up_by_hand_agrees_with_the_gateway(
    gateway: Any, event: Any, log: Any, kafka_settings: Settings
) -> None:
    producer = Producer(
        {
            "bootstrap.servers": kafka_settings.kafka_bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
        }
    )
    by_hand = {subject: json.dumps(event(subject=subject), ensure_ascii=False).encode() for subject in SUBJECTS}
    for subject, value in by_hand.items():
        producer.produce(USAGE_EVENTS, key=subject.encode(), value=value)
    assert producer.flush(30) == 0
    producer.close()

    gateway.post(json.dumps([event(subject=subject) for subject in SUBJECTS]).encode(), BATCH)

    partitions: dict[str, set[int]] = {}
    for partition, _, key, _ in log.records():
        partitions.setdefault(key.decode(), set()).add(partition)
    assert {subject: len(found) for subject, found in partitions.items()} == dict.fromkeys(SUBJECTS, 1)


def test_the_producer_waits_for_all_copies_and_never_reorders() -> None:
    config = producer_config(Settings(kafka_delivery_timeout_s=7))

    assert (config["acks"], config["enable.idempotence"], config["partitioner"]) == ("all", True, "murmur2_random")
    assert config["delivery.timeout.ms"] == 7_000
