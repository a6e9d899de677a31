"""What a benchmark runs on: embedded engines in a folder that is thrown away, a log full of events, child processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path

import msgspec
from confluent_kafka import Producer

from metering import catalog_store
from metering.clickhouse import connect, ensure_database
from metering.clock import SystemClock
from metering.config import Settings, variable_of
from metering.embedded.clickhouse import EmbeddedClickHouse
from metering.embedded.kafka import EmbeddedKafka
from metering.kafka import client_config, ensure_topics
from metering.migrate import migrate
from schemas.catalog import Catalog
from schemas.meter import Aggregation, Meter
from schemas.topics import USAGE_EVENTS

EVENT_TYPE = "api.call"
SUBJECTS = 50
REGIONS = 3
EVENTS_A_SECOND = 10
"""How many events share a second of event time."""
POLL_S = 0.5
"""Each look asks ClickHouse, which has other things to do."""
FLUSH_TIMEOUT_S = 60.0

CATALOG = Catalog(
    meters=(
        Meter(name="calls", event_type=EVENT_TYPE, aggregation=Aggregation.COUNT, group_by={"region": "region"}),
        Meter(
            name="bytes",
            event_type=EVENT_TYPE,
            aggregation=Aggregation.SUM,
            value="bytes",
            group_by={"region": "region"},
        ),
    )
)


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What both sides of a comparison must agree on."""

    events: int
    bytes: Decimal


def event(number: int) -> bytes:
    """One event of about 210 bytes, as a producer would write it; a day's worth of times, fractional quantities."""
    second = number // EVENTS_A_SECOND % 86_400
    return (
        b'{"specversion":"1.0","id":"%08d","source":"bench","type":"api.call","subject":"customer-%02d",'
        b'"time":"2026-01-15T%02d:%02d:%02dZ","data":{"region":"eu-%d","bytes":%d.25}}'
        % (
            number,
            number % SUBJECTS,
            second // 3600,
            second // 60 % 60,
            second % 60,
            number % REGIONS,
            number,
        )
    )


def expected_totals(count: int) -> Totals:
    """The totals of events 0 to count - 1, by plain arithmetic."""
    return Totals(events=count, bytes=Decimal(count * (count - 1) // 2) + Decimal("0.25") * count)


def check(found: Totals, expected: Totals) -> None:
    """End a benchmark whose side came to other totals: its time says nothing."""
    if found != expected:
        raise AssertionError(f"totals differ: {found} instead of {expected}")


@contextmanager
def engines() -> Iterator[Settings]:
    """Embedded Kafka and ClickHouse, with the topics; settings that point at them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="metering-bench-")))
        kafka = stack.enter_context(EmbeddedKafka(folder / "kafka"))
        clickhouse = stack.enter_context(EmbeddedClickHouse(folder / "clickhouse"))
        settings = Settings(
            data_dir=folder, kafka_servers=kafka.bootstrap, clickhouse_url=clickhouse.url, kafka_partitions=2
        )
        ensure_topics(settings)
        yield settings


def fresh_database(settings: Settings, name: str) -> Settings:
    """The settings with a new, migrated database that has the benchmark's catalog."""
    settings = msgspec.structs.replace(settings, clickhouse_database=name)
    ensure_database(settings)
    client = connect(settings)
    migrate(client)
    catalog_store.apply(client, CATALOG, clock=SystemClock(), applied_by="benchmarks")
    client.close()
    return settings


def fill_log(settings: Settings, count: int, *, first: int = 0) -> None:
    """Write events `first` to `first` + `count` - 1 into the log, one record each."""
    producer = Producer(
        {
            **client_config(settings),
            "acks": "all",
            "linger.ms": 20,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "queue.buffering.max.messages": min(count + 1, 1_000_000),
        }
    )
    for number in range(first, first + count):
        try:
            producer.produce(USAGE_EVENTS, value=event(number), key=b"customer-%02d" % (number % SUBJECTS))
        except BufferError:
            producer.flush(FLUSH_TIMEOUT_S)
            producer.produce(USAGE_EVENTS, value=event(number), key=b"customer-%02d" % (number % SUBJECTS))
        if number % 10_000 == 0:
            producer.poll(0)
    if producer.flush(FLUSH_TIMEOUT_S):
        raise RuntimeError("Kafka did not take every event")


@contextmanager
def python_process(settings: Settings, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A child of the same interpreter with these settings in its environment; ended with the block."""
    environment = {**os.environ, "METERING_LOG_LEVEL": "warning", "METERING_WORKER_METRICS_PORT": "0"}
    for name in ("data_dir", "kafka_servers", "clickhouse_url", "clickhouse_database", "gateway_port"):
        environment[variable_of(name)] = str(getattr(settings, name))
    process = subprocess.Popen([sys.executable, *arguments], env=environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(process: subprocess.Popen[bytes], is_done: Callable[[], bool], timeout_s: float) -> None:
    """Poll `is_done()` until it is true; a process that ends before is an error."""
    deadline_s = time.monotonic() + timeout_s
    while not is_done():
        if process.poll() is not None:
            raise RuntimeError(f"the process ended with {process.returncode}")
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not done after {timeout_s:.0f} s")
        time.sleep(POLL_S)
