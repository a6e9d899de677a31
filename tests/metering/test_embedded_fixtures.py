"""The services every other test stands on."""

from __future__ import annotations

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from metering.config import Settings
from metering.testing import KafkaUnderTest


def test_a_record_sent_to_the_kafka_of_the_tests_is_acknowledged(kafka: KafkaUnderTest, topic_prefix: str) -> None:
    topic = f"{topic_prefix}.events"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic(topic, 1)])[topic].result()
    errors: list[object] = []

    producer = Producer({"bootstrap.servers": kafka.bootstrap, "acks": "all"})
    producer.produce(topic, b"one", on_delivery=lambda error, _: errors.append(error))

    assert producer.flush(10) == 0
    assert errors == [None]


def test_each_test_has_a_database_of_its_own(clickhouse_client: Client, database: str) -> None:
    clickhouse_client.command(f"CREATE TABLE {database}.t (a UInt8) ENGINE = MergeTree ORDER BY a")

    tables = clickhouse_client.query(
        "SELECT name FROM system.tables WHERE database = {name:String}", parameters={"name": database}
    ).result_rows

    assert tables == [("t",)]


def test_the_settings_of_a_test_lead_to_its_services(service_settings: Settings, database: str) -> None:
    host, _, port = service_settings.clickhouse_address.removeprefix("http://").partition(":")
    client = clickhouse_connect.get_client(
        host=host,
        port=int(port),
        username=service_settings.clickhouse_username,
        password=service_settings.clickhouse_password,
        database=service_settings.clickhouse_database,
    )

    assert client.command("SELECT currentDatabase()") == database
