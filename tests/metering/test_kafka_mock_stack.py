"""Without Kafka's jars the mock cluster has topics, an epoch of its own, and carries events all the way to rollups."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from metering import catalog_store
from metering.clickhouse import connect
from metering.clock import SystemClock
from metering.config import Settings
from metering.embedded.kafka_mock import MockKafka
from metering.kafka import client_config, ensure_topics, log_ends, log_epoch
from metering.migrate import migrate
from metering.testing import ClickHouseUnderTest
from schemas.catalog import Catalog
from schemas.meter import Aggregation, Meter
from schemas.topics import DEAD_LETTERS, USAGE_EVENTS
from tests.support.worker_process import WorkerProcess

CALLS = Catalog(meters=(Meter(name="calls", event_type="call", aggregation=Aggregation.COUNT),))
EVENT = b'{"specversion":"1.0","id":"%d","source":"s","type":"call","subject":"ann","time":"2013-01-01T00:00:00Z"}'
EVENTS = 200
WAIT_S = 60.0


@pytest.fixture
def mock_settings(tmp_path: Path, clickhouse: ClickHouseUnderTest, database: str) -> Iterator[Settings]:
    with MockKafka(tmp_path) as kafka:
        yield Settings(
            kafka_servers=kafka.bootstrap,
            clickhouse_url=clickhouse.url,
            clickhouse_username=clickhouse.username,
            clickhouse_password=clickhouse.password,
            clickhouse_database=database,
        )


def test_the_mock_cluster_gets_its_topics_and_has_an_epoch(mock_settings: Settings) -> None:
    assert ensure_topics(mock_settings) == [USAGE_EVENTS, DEAD_LETTERS]
    assert ensure_topics(mock_settings) == []
    assert log_epoch(mock_settings, USAGE_EVENTS).startswith("mockCluster")


def test_events_go_from_the_mock_cluster_to_rollups(mock_settings: Settings) -> None:
    ensure_topics(mock_settings)
    client = connect(mock_settings)
    migrate(client)
    catalog_store.apply(client, CALLS, clock=SystemClock(), applied_by="test")
    producer = Producer(client_config(mock_settings))
    for number in range(EVENTS):
        producer.produce(USAGE_EVENTS, value=EVENT % number, key=b"ann")
    assert producer.flush(WAIT_S) == 0
    assert sum(end for _, end in log_ends(mock_settings, USAGE_EVENTS).values()) == EVENTS

    worker = WorkerProcess(mock_settings)
    try:
        deadline_s = time.monotonic() + WAIT_S
        counted = "SELECT sum(events_count) FROM rollups FINAL WHERE meter = 'calls'"
        while client.query(counted).result_rows != [(EVENTS,)]:
            assert worker.returncode is None, worker.said
            assert time.monotonic() < deadline_s, worker.said
            time.sleep(0.2)
        assert worker.terminate() == 0
    finally:
        worker.close()
        client.close()
