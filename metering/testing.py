"""Which Kafka and which ClickHouse a test runs against; for our own tests and for those of whoever builds on this.

In this order: the servers the settings name, else containers where a Docker daemon answers, else the embedded
engines. A service that cannot be had is an error: a test is never skipped, and never green, for want of one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from metering.config import Settings
from metering.embedded.clickhouse import EmbeddedClickHouse, server_answers
from metering.embedded.kafka import EmbeddedKafka, broker_answers
from metering.embedded.ports import free_ports
from schemas.errors import EmbeddedError

KAFKA_IMAGE = "apache/kafka:4.1.0"
CLICKHOUSE_IMAGE = "clickhouse/clickhouse-server:26.9"
CONTAINERS_VARIABLE = "TEST_CONTAINERS"
KAFKA_INNER_PORT = 9092
CONTAINER_TIMEOUT_S = 90.0


class KafkaUnderTest(msgspec.Struct, frozen=True, kw_only=True):
    """A Kafka to test against: `bootstrap` is `host:port,…`, `kind` one of `settings`, `docker`, `embedded`."""

    bootstrap: str
    kind: str


class ClickHouseUnderTest(msgspec.Struct, frozen=True, kw_only=True):
    """A ClickHouse to test against: `url` is `http(s)://host:port`, `kind` one of `settings`, `docker`, `embedded`."""

    url: str
    kind: str
    username: str = "default"
    password: str = ""


@contextmanager
def kafka_under_test(settings: Settings, folder: Path) -> Iterator[KafkaUnderTest]:
    """Give a Kafka for the length of the block; an embedded one keeps its data in `folder`."""
    if settings.kafka_servers:
        yield KafkaUnderTest(bootstrap=settings.kafka_servers, kind="settings")
    elif docker_answers():
        with _kafka_container() as bootstrap:
            yield KafkaUnderTest(bootstrap=bootstrap, kind="docker")
    else:
        with EmbeddedKafka(folder) as server:
            yield KafkaUnderTest(bootstrap=server.bootstrap, kind="embedded")


@contextmanager
def clickhouse_under_test(settings: Settings, folder: Path) -> Iterator[ClickHouseUnderTest]:
    """Give a ClickHouse for the length of the block; an embedded one keeps its data in `folder`."""
    login = {"username": settings.clickhouse_username, "password": settings.clickhouse_password}
    if settings.clickhouse_url:
        yield ClickHouseUnderTest(url=settings.clickhouse_url, kind="settings", **login)
    elif docker_answers():
        with _clickhouse_container() as (url, password):
            yield ClickHouseUnderTest(url=url, kind="docker", username="default", password=password)
    else:
        with EmbeddedClickHouse(folder) as server:
            yield ClickHouseUnderTest(url=server.url, kind="embedded", **login)


def docker_answers() -> bool:
    """Whether containers can be started here; `TEST_CONTAINERS=0` says not to ask."""
    docker = shutil.which("docker")
    if docker is None or os.environ.get(CONTAINERS_VARIABLE) == "0":
        return False
    try:
        asked = subprocess.run([docker, "info"], capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


@contextmanager
def _kafka_container() -> Iterator[str]:
    # testcontainers' own KafkaContainer drives the scripts of another vendor's image.
    from testcontainers.core.container import DockerContainer

    (port,) = free_ports(1)
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(KAFKA_INNER_PORT, port)
    bootstrap = f"{container.get_docker_client().host()}:{port}"
    for name, value in _kafka_container_env(bootstrap).items():
        container.with_env(name, value)
    with container:
        _wait_for(lambda: broker_answers(bootstrap), f"{KAFKA_IMAGE} on {bootstrap}")
        yield bootstrap


def _kafka_container_env(bootstrap: str) -> dict[str, str]:
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"PLAINTEXT://0.0.0.0:{KAFKA_INNER_PORT},CONTROLLER://localhost:9093",
        # A broker tells its clients where to come back to: that has to be the port outside the container.
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{bootstrap}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }


@contextmanager
def _clickhouse_container() -> Iterator[tuple[str, str]]:
    from testcontainers.core.container import DockerContainer

    password = secrets.token_urlsafe(16)
    container = (
        DockerContainer(CLICKHOUSE_IMAGE)
        .with_exposed_ports(8123)
        .with_env("CLICKHOUSE_PASSWORD", password)
        .with_env("CLICKHOUSE_DEFAULT_ACCESS_MANAGEMENT", "1")
    )
    with container:
        host, port = container.get_container_host_ip(), int(container.get_exposed_port(8123))
        _wait_for(lambda: server_answers(port, host), f"{CLICKHOUSE_IMAGE} on {host}:{port}")
        yield f"http://{host}:{port}", password


def _wait_for(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + CONTAINER_TIMEOUT_S
    while not ready():
        if time.monotonic() > deadline:
            raise EmbeddedError(f"did not answer within {CONTAINER_TIMEOUT_S:.0f} s", where=what)
        time.sleep(0.1)
