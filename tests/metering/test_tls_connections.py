"""TLS and SASL against the real parts: who has the wrong certificate or password gets nowhere, and hears no secret."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from ingest.client import MeteringClient
from ingest.files.events import FileEvent
from ingest.loader import load
from ingest.server import bind
from metering.clickhouse import connect
from metering.config import Settings, variable_of
from metering.embedded.ports import free_ports
from metering.kafka import client_config, ensure_topics, log_epoch
from metering.testing import ClickHouseUnderTest, KafkaUnderTest
from metering.tls import client_context
from schemas.errors import ClickHouseUnavailableError, GatewayUnavailableError, KafkaUnavailableError, SettingError
from schemas.topics import USAGE_EVENTS
from tests.support.plain_log import Made
from tests.support.secure_kafka import SecureKafka
from tests.support.tls_certificates import Certificates, make_certificates
from tests.support.tls_proxy import tls_proxy
from tests.support.worker_process import stack_of

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0
CERT_VARIABLE = "METERING_GATEWAY_TLS_CERT_FILE"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def password() -> str:
    return f"canary-{secrets.token_hex(8)}"


@pytest.fixture(scope="module")
def secure_kafka(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, password: str
) -> Iterator[SecureKafka]:
    with SecureKafka(tmp_path_factory.mktemp("secure-kafka"), certificates, password) as broker:
        yield broker


@pytest.mark.parametrize(
    ("door", "changes"),
    [
        ("SSL", {}),
        ("MUTUAL", {}),
        ("SASLSSL", {}),
        ("SASLSSL", {"kafka_sasl_mechanism": "PLAIN"}),
        ("SASLPLAIN", {"kafka_sasl_mechanism": "SCRAM-SHA-256"}),
    ],
)
def test_kafka_is_reached_through_every_kind_of_door(
    secure_kafka: SecureKafka, door: str, changes: dict[str, Any]
) -> None:
    settings = secure_kafka.settings(door, **changes)

    ensure_topics(settings)

    assert ensure_topics(settings) == []
    assert log_epoch(settings, USAGE_EVENTS).startswith(f"{secure_kafka.cluster_id}/")


@pytest.mark.parametrize(
    ("door", "changes"),
    [
        ("SSL", {"kafka_ca_file": "stranger"}),
        ("MUTUAL", {"kafka_cert_file": "", "kafka_key_file": ""}),
        ("SASLSSL", {"kafka_password": "canary-wrong"}),
        ("SASLPLAIN", {"kafka_username": "canary-nobody"}),
        ("SASLSSL", {"kafka_security_protocol": "PLAINTEXT"}),
    ],
)
def test_kafka_is_not_reached_with_what_is_wrong_and_the_error_shows_no_secret(
    *,
    secure_kafka: SecureKafka,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    password: str,
    door: str,
    changes: dict[str, Any],
) -> None:
    changes = {name: str(certificates.stranger) if value == "stranger" else value for name, value in changes.items()}
    monkeypatch.setattr("metering.kafka.ANSWER_TIMEOUT_S", 3.0)

    with pytest.raises(KafkaUnavailableError) as caught:
        ensure_topics(secure_kafka.settings(door, **changes))

    said = str(caught.value) + "".join(capfd.readouterr())
    assert password not in said
    assert "canary-wrong" not in said


def test_a_worker_folds_what_comes_over_tls_with_a_password(
    secure_kafka: SecureKafka, service_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure = secure_kafka.settings("SASLSSL")
    names = [name for name in Settings.__struct_fields__ if name.startswith("kafka_")]
    settings = msgspec.structs.replace(service_settings, **{name: getattr(secure, name) for name in names})
    for name in ("kafka_security_protocol", "kafka_username", "kafka_password", "kafka_ca_file"):
        monkeypatch.setenv(variable_of(name), getattr(settings, name))

    with stack_of(settings) as stack:
        worker = stack.start()
        stack.produce(Made(partition=0, offset=number, id=str(number)) for number in range(50))
        stack.wait_folded(50, worker)
        stored = stack.client.query("SELECT count() FROM events FINAL").result_rows
        said = worker.said

    assert stored == [(50,)]
    assert settings.kafka_password not in said


def test_clickhouse_is_reached_over_tls_by_those_who_trust_its_certificate(
    clickhouse: ClickHouseUnderTest, certificates: Certificates
) -> None:
    with tls_proxy(urlsplit(clickhouse.url).port or 0, certificates.server) as port:
        settings = msgspec.structs.replace(
            Settings(),
            clickhouse_url=f"https://127.0.0.1:{port}",
            clickhouse_database="default",
            clickhouse_username=clickhouse.username,
            clickhouse_password=clickhouse.password,
            clickhouse_ca_file=str(certificates.authority),
        )
        client = connect(settings)
        rows = client.query("SELECT sum(number) FROM numbers(1000)").result_rows
        client.close()
        for ca_file in ("", str(certificates.stranger)):
            with pytest.raises(ClickHouseUnavailableError, match="certificate"):
                connect(msgspec.structs.replace(settings, clickhouse_ca_file=ca_file))

    assert rows == [(499_500,)]


def test_the_gateway_takes_events_over_tls_alone(
    kafka: KafkaUnderTest, certificates: Certificates, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    ensure_topics(msgspec.structs.replace(Settings(), kafka_servers=kafka.bootstrap))
    environ = {
        "METERING_KAFKA_SERVERS": kafka.bootstrap,
        "METERING_CLICKHOUSE_URL": "http://127.0.0.1:1",
        "METERING_GATEWAY_PORT": str(port),
        "METERING_GATEWAY_TLS_CERT_FILE": str(certificates.server.cert),
        "METERING_GATEWAY_TLS_KEY_FILE": str(certificates.server.key),
    }
    url, authority = f"https://127.0.0.1:{port}", str(certificates.authority)
    trusted = client_context(Settings(gateway_ca_file=authority), "gateway_ca_file")
    with (tmp_path / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "metering", "gateway"],
            env={**os.environ, **environ},
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    try:
        deadline_s = time.monotonic() + WAIT_S
        while not _is_ready(url, trusted):
            assert process.poll() is None, (tmp_path / "gateway.log").read_text()
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        with MeteringClient(url, source="urn:tls", api_key="", ca_file=authority) as client:
            client.record(type="t", subject="s", data={"n": 1})
            client.flush()
        event = {"specversion": "1.0", "id": "1", "source": "urn:tls", "type": "t", "subject": "s"}
        row = FileEvent(file="f", line=1, event=json.dumps({**event, "time": "2013-01-01T00:00:00Z"}).encode())
        loaded = load([row], gateway_url=url, trusted=trusted)
        with pytest.raises(GatewayUnavailableError, match="certificate"):
            load([row], gateway_url=url, retry_timeout_s=0.5)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/healthz")
    finally:
        process.terminate()
        process.wait(WAIT_S)

    assert loaded.acknowledged == 1


def _is_ready(url: str, trusted: Any) -> bool:
    try:
        return httpx.get(f"{url}/readyz", verify=trusted).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"gateway_tls_cert_file": "server.pem"}, "METERING_GATEWAY_TLS_KEY_FILE"),
        ({"gateway_tls_key_file": "server.key"}, CERT_VARIABLE),
        ({"gateway_tls_cert_file": "absent", "gateway_tls_key_file": "server.key"}, CERT_VARIABLE),
        (
            {"gateway_tls_cert_file": "server.pem", "gateway_tls_key_file": "client.key"},
            "METERING_GATEWAY_TLS_CERT_FILE",
        ),
        (
            {"gateway_tls_cert_file": "server.key", "gateway_tls_key_file": "server.key"},
            "METERING_GATEWAY_TLS_CERT_FILE",
        ),
    ],
)
def test_a_certificate_that_cannot_be_used_is_an_error_before_the_gateway_listens(
    certificates: Certificates, changes: dict[str, str], where: str
) -> None:
    folder = certificates.authority.parent
    settings = msgspec.structs.replace(
        Settings(gateway_port=free_ports(1)[0]), **{name: str(folder / value) for name, value in changes.items()}
    )

    with pytest.raises(SettingError) as caught:
        bind(settings)

    assert caught.value.where == where


@pytest.mark.parametrize("setting", ["kafka_ca_file", "kafka_cert_file", "kafka_key_file"])
def test_a_file_for_kafka_that_is_not_there_is_an_error_that_names_its_variable(setting: str) -> None:
    with pytest.raises(SettingError) as caught:
        client_config(msgspec.structs.replace(Settings(), **{setting: "/absent.pem"}))

    assert caught.value.where == variable_of(setting)
