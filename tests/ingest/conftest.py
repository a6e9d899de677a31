from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
from confluent_kafka import Consumer, TopicPartition
from litestar import Litestar

from ingest.gateway import create_gateway
from metering.clock import Clock, FixedClock
from metering.config import Settings, load_settings
from metering.kafka import ensure_topics, log_ends
from metering.keys import ApiKey
from metering.testing import KafkaUnderTest
from schemas.catalog import AppliedCatalog, Catalog, applied
from schemas.meter import Aggregation, Meter, MeterVersion
from schemas.topics import USAGE_EVENTS

NOW = datetime(2013, 6, 1, 12, 0, tzinfo=UTC)

START_TIMEOUT_S = 30.0


def catalog_of(version: int, *meters: Meter, event_types: tuple[str, ...] = ()) -> AppliedCatalog:
    versions = tuple(
        MeterVersion(meter=meter, version=1, introduced_in=version, start=None, end=None) for meter in meters
    )
    return applied(version, Catalog(meters=meters, event_types=event_types), versions)


MILES = Meter(
    name="miles", event_type="flight", aggregation=Aggregation.SUM, value="distance", group_by={"origin": "origin"}
)


class CatalogHolder:
    """A catalog source that a test can change."""

    def __init__(self, catalog: AppliedCatalog | None) -> None:
        self.catalog = catalog
        self.error: Exception | None = None

    def __call__(self) -> AppliedCatalog | None:
        if self.error is not None:
            raise self.error
        return self.catalog


class KeyHolder:
    """A key source that a test can change; `uses` is what was noted."""

    def __init__(self, *keys: ApiKey) -> None:
        self.keys = list(keys)
        self.error: Exception | None = None
        self.uses: dict[str, datetime] = {}

    def load(self) -> list[ApiKey] | None:
        if self.error is not None:
            raise self.error
        return list(self.keys)

    def note_uses(self, uses: Mapping[str, datetime]) -> None:
        if self.error is not None:
            raise self.error
        self.uses.update(uses)


class Running:
    """A gateway on a port of its own."""

    def __init__(self, url: str, source: CatalogHolder, keys: KeyHolder) -> None:
        self.url = url
        self.keys = keys
        self._source = source

    def use_catalog(self, catalog: AppliedCatalog | None) -> None:
        """What the catalog's source says from now on."""
        self._source.catalog = catalog

    def fail_catalog(self, error: Exception) -> None:
        """What asking the catalog's source raises from now on."""
        self._source.error = error

    def post(self, content: bytes | Iterator[bytes], content_type: str = "", **more: Any) -> httpx.Response:
        headers = {**({"Content-Type": content_type} if content_type else {}), **more.pop("headers", {})}
        return httpx.post(f"{self.url}/v1/events", content=content, headers=headers, timeout=60, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=60, **more)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an ASGI application from a thread; gives its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def running_gateway(
    settings: Settings,
    *,
    catalog: AppliedCatalog | None = None,
    clock: Clock | None = None,
    keys: KeyHolder | None = None,
    **more: Any,
) -> Iterator[Running]:
    holder, keys = CatalogHolder(catalog), keys or KeyHolder()
    app = create_gateway(settings, clock=clock or FixedClock(NOW), catalog_source=holder, key_source=keys, **more)
    with served(app) as url:
        yield Running(url, holder, keys)


@pytest.fixture(scope="session")
def kafka_settings(kafka: KafkaUnderTest) -> Settings:
    settings = msgspec.structs.replace(
        load_settings(),
        kafka_servers=kafka.bootstrap,
        body_bytes_max=64_000,
        body_inflated_bytes_max=200_000,
        batch_events_max=100,
        event_bytes_max=4_000,
    )
    ensure_topics(settings)
    return settings


@pytest.fixture(scope="session")
def gateway(kafka_settings: Settings) -> Iterator[Running]:
    """A gateway that knows one meter, and the listed type `ping`. Its clock stands at NOW."""
    with running_gateway(kafka_settings, catalog=catalog_of(1, MILES, event_types=("ping",))) as running:
        yield running


@pytest.fixture
def keys() -> KeyHolder:
    """A key source without a key."""
    return KeyHolder()


@pytest.fixture
def source() -> str:
    """An event source that no other test has."""
    return f"urn:test:{uuid.uuid4().hex}"


Event = Callable[..., dict[str, Any]]


@pytest.fixture
def event(source: str) -> Event:
    """Makes a good event; keyword arguments replace members, None removes one."""

    def make(**members: Any) -> dict[str, Any]:
        base = {
            "specversion": "1.0",
            "id": uuid.uuid4().hex,
            "source": source,
            "type": "flight",
            "subject": "UA",
            "time": "2013-06-01T11:00:00Z",
            "data": {"origin": "JFK", "distance": 1400},
        }
        return {name: value for name, value in {**base, **members}.items() if value is not None}

    return make


class LogReader:
    """Reads back what was written to the log since the reader was made."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._begins = {partition: end for partition, (_, end) in log_ends(settings, USAGE_EVENTS).items()}

    def records(self) -> list[tuple[int, int, bytes | None, bytes | None]]:
        """(partition, offset, key, value) of every record written since."""
        ends = {partition: end for partition, (_, end) in log_ends(self._settings, USAGE_EVENTS).items()}
        left = sum(ends[partition] - self._begins[partition] for partition in ends)
        consumer = Consumer(
            {"bootstrap.servers": self._settings.kafka_bootstrap, "group.id": "read-back", "enable.auto.commit": False}
        )
        consumer.assign([TopicPartition(USAGE_EVENTS, partition, begin) for partition, begin in self._begins.items()])
        found: list[tuple[int, int, bytes | None, bytes | None]] = []
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while len(found) < left:
            assert time.monotonic() < deadline_s
            message = consumer.poll(1.0)
            if message is not None:
                assert message.error() is None
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                found.append((partition, offset, message.key(), message.value()))
        consumer.close()
        return sorted(found, key=lambda record: record[:2])


@pytest.fixture
def log(kafka_settings: Settings) -> LogReader:
    return LogReader(kafka_settings)


@pytest.fixture
def running_gateway_of() -> Any:
    """Starts a gateway with other settings, a catalog or a clock; a context manager."""
    return running_gateway


@pytest.fixture
def served_app() -> Any:
    """Serves routes in place of the gateway; a context manager that gives the URL."""

    @contextmanager
    def serve_routes(*routes: Any) -> Iterator[str]:
        with served(Litestar(list(routes), openapi_config=None)) as url:
            yield url

    return serve_routes
