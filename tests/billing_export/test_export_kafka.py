"""The Kafka topic billing.line_items.v1: each line once for a reader, whatever happens to the exporter."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, Message, TopicPartition

from billing_export import runs
from billing_export.deliver import Delivered
from billing_export.delivery_kafka import LINE_ID_HEADER, KafkaTopic
from billing_export.run import Run, RunState
from metering.config import Settings
from metering.kafka import client_config
from metering.testing import KafkaUnderTest
from schemas.errors import KafkaUnavailableError
from schemas.line_item import decode_line_item, encode_line_item
from schemas.topics import BILLING_LINE_ITEMS
from tests.support.deliver_process import run_process
from tests.support.made_lines import EVERY_KIND, made_run, many_lines, store_run
from tests.support.made_usage import UsageTables


@pytest.fixture
def settings(module_world: UsageTables, kafka: KafkaUnderTest) -> Settings:
    for table in ("runs", "line_items", "deliveries", "delivery_claims"):
        module_world.client.command(f"TRUNCATE TABLE {table}")
    return msgspec.structs.replace(module_world.settings, kafka_servers=kafka.bootstrap, kafka_partitions=3)


def read_back(settings: Settings, run: str) -> list[Message]:
    """Every committed record of a run, partition by partition."""
    consumer = Consumer(
        {
            **client_config(settings),
            "group.id": "test-line-items",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    partitions = sorted(consumer.list_topics(BILLING_LINE_ITEMS, timeout=15).topics[BILLING_LINE_ITEMS].partitions)
    found, ended = [], 0
    consumer.assign([TopicPartition(BILLING_LINE_ITEMS, partition, 0) for partition in partitions])
    while ended < len(partitions):
        message = consumer.poll(30)
        assert message is not None
        if message.error() is not None:
            ended += 1
        elif dict(message.headers() or [])["run"] == run.encode():
            found.append(message)
    consumer.close()
    return found


def line_id(message: Message) -> str:
    value = dict(message.headers() or [])[LINE_ID_HEADER]
    assert isinstance(value, bytes)
    return value.decode()


def stored(client: Client, settings: Settings, run: str, count: int) -> Run:
    """A run with an id of its own, because all tests share the topic."""
    del settings
    items = [msgspec.structs.replace(one, run=run) for one in many_lines(count)]
    return store_run(client, items, made_run(items, id=run))


def test_a_record_is_a_line_keyed_by_its_customer(settings: Settings, module_world: UsageTables) -> None:
    items = [msgspec.structs.replace(one, run="2013-01.91") for one in EVERY_KIND]
    run = store_run(module_world.client, items, made_run(items, id="2013-01.91"))

    done = run_process(settings, run.id, "kafka")

    assert done.returncode == 0, done.stderr
    records = read_back(settings, run.id)
    assert sorted(record.value() or b"" for record in records) == sorted(encode_line_item(one) for one in items)
    for record in records:
        item = decode_line_item(record.value() or b"")
        assert (record.key(), line_id(record)) == (item.customer.encode(), item.id)
    assert runs.by_id(module_world.client, run.id).state is RunState.EXPORTED


def test_the_lines_of_a_customer_stand_in_the_order_of_the_run(settings: Settings, module_world: UsageTables) -> None:
    run = stored(module_world.client, settings, "2013-01.92", 40)

    run_process(settings, run.id, "kafka", group_max=7)

    charges: dict[bytes, list[str]] = {}
    for record in read_back(settings, run.id):
        charges.setdefault(record.key() or b"", []).append(decode_line_item(record.value() or b"").charge)
    assert len(charges) == 8
    assert set(map(tuple, charges.values())) == {("charge-0", "charge-1", "charge-2", "charge-3", "charge-4")}


@pytest.mark.parametrize(
    ("number", "step", "occurrence"),
    [
        (1, "sent_written", 2),
        (2, "answered", 1),
        (3, "answered", 15),
        (4, "answers_written", 2),
    ],
)
def test_a_reader_sees_each_line_once_after_a_kill_in_the_middle(
    settings: Settings, module_world: UsageTables, number: int, step: str, occurrence: int
) -> None:
    """`answered` comes after the transaction was committed and before the ledger knows: the topic is read back."""
    client = module_world.client
    run = stored(client, settings, f"2013-02.{number}", 30)

    killed = run_process(settings, run.id, "kafka", group_max=10, die_at=step, die_after=occurrence)
    resumed = run_process(settings, run.id, "kafka", group_max=10)

    assert (killed.returncode, resumed.returncode) == (-9, 0), killed.stderr + resumed.stderr
    done = msgspec.json.decode(resumed.stdout, type=Delivered)
    assert done.accepted + done.accepted_before == 30
    seen = Counter(line_id(record) for record in read_back(settings, run.id))
    assert (len(seen), set(seen.values())) == (30, {1})
    places = {line_id(one): f"{one.partition()}/{one.offset()}" for one in read_back(settings, run.id)}
    rows = client.query(
        "SELECT key, foreign_id FROM deliveries WHERE state = 'accepted' AND run = {run:String}", {"run": run.id}
    ).result_rows
    assert sorted(tuple(row) for row in rows) == sorted(places.items())


def test_an_older_exporter_is_shut_out_by_a_newer_one(settings: Settings, module_world: UsageTables) -> None:
    """A paused exporter that comes back cannot add to what its successor has already settled."""
    from datetime import UTC, datetime

    from billing_export.delivery import Sending

    run = stored(module_world.client, settings, "2013-03.1", 2)
    older, newer = (KafkaTopic(settings, run=run.id) for _ in range(2))
    deliveries = list(older.deliveries([msgspec.structs.replace(one, run=run.id) for one in many_lines(2)]))
    older.mark()
    newer.mark()

    sendings = [Sending(delivery=one, attempt=1, first_at=datetime(2013, 3, 1, tzinfo=UTC)) for one in deliveries]
    with pytest.raises(KafkaUnavailableError, match="the lines were not committed"):
        list(older.send(sendings))
    assert len(list(newer.send(sendings))) == 2

    assert Counter(line_id(record) for record in read_back(settings, run.id)) == Counter(one.key for one in deliveries)
    older.close()
    newer.close()
