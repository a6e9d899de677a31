"""Values that must never be shown are planted everywhere, everything is made to fail, and what was said is searched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog

from metering.config import Settings, secret_names, variable_of
from metering.embedded.ports import free_ports
from metering.keys import new_key
from metering.log import configure_logging
from metering.portal.tokens import Claim, Purpose, Tokens
from metering.testing import ClickHouseUnderTest, KafkaUnderTest

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0
CANARY = "canary"


def canaries() -> dict[str, str]:
    """A value for the variable of every secret setting."""
    return {variable_of(name): f"{CANARY}-{name.replace('_', '-')}".ljust(40, "x") for name in secret_names()}


def command(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "metering", *words],
        env={**os.environ, **canaries(), "METERING_LOG_LEVEL": "debug", **changes},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def test_every_secret_setting_has_a_canary() -> None:
    assert {"kafka_password", "clickhouse_password", "key_pepper", "api_key"} <= secret_names()
    assert all(value.startswith(CANARY) for value in canaries().values())


@pytest.mark.parametrize(
    "words",
    [
        ("migrate",),
        ("usage", "requests"),
        ("keys", "list"),
        ("keys", "create", "x", "--scope", "ingest"),
        ("dead-letters", "list"),
        ("apply", "examples/flights/catalog.yaml"),
        ("close", "--period", "2013-01"),
        ("ingest", "events.jsonl"),
    ],
)
def test_a_command_that_gets_nowhere_shows_no_secret(words: tuple[str, ...], tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text('{"specversion": "1.0"}\n')
    away = {
        "METERING_CLICKHOUSE_URL": "http://127.0.0.1:1",
        "METERING_KAFKA_SERVERS": "127.0.0.1:1",
        "METERING_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "METERING_KAFKA_USERNAME": "metering",
        "METERING_GATEWAY_URL": "ftp://127.0.0.1:1",
    }

    done = command(*[str(events) if word == "events.jsonl" else word for word in words], **away)

    assert done.returncode not in (0, None)
    assert done.stderr
    assert CANARY not in done.stdout + done.stderr


def test_a_wrong_password_is_refused_and_not_shown(clickhouse: ClickHouseUnderTest) -> None:
    done = command("usage", "requests", METERING_CLICKHOUSE_URL=clickhouse.url)

    assert done.returncode != 0
    assert "Authentication failed" in done.stderr
    assert CANARY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"METERING_KEY_PEPPER": CANARY},
        {"METERING_API_KEY": f"{CANARY} with blanks"},
        {"METERING_CLICKHOUSE_URL": f"http://ada:{CANARY}@127.0.0.1:1"},
        {"METERING_GATEWAY_URL": f"http://{CANARY}@127.0.0.1:1"},
        {"METERING_KAFKA_PASSWORD_FILE": f"/{CANARY[:3]}/absent"},
    ],
)
def test_a_setting_that_cannot_be_used_does_not_show_its_value(changes: dict[str, str]) -> None:
    done = command("usage", "requests", **changes)

    assert done.returncode == 2
    assert next(iter(changes)) in done.stderr
    assert CANARY not in done.stdout + done.stderr


def test_a_worker_without_kafka_shows_no_secret(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    environ = {
        **canaries(),
        "METERING_KAFKA_SERVERS": "127.0.0.1:1",
        "METERING_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "METERING_KAFKA_USERNAME": "metering",
        "METERING_CLICKHOUSE_URL": "http://127.0.0.1:1",
        "METERING_WORKER_METRICS_PORT": "0",
        "METERING_LOG_LEVEL": "debug",
    }
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "metering", "worker"],
            env={**os.environ, **environ},
            cwd=ROOT,
            stdout=said,
            stderr=said,
        )
    try:
        deadline_s = time.monotonic() + WAIT_S
        while not log.stat().st_size and process.poll() is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        time.sleep(2)
    finally:
        process.kill()
        process.wait()

    text = log.read_text(encoding="utf-8", errors="replace")
    assert text
    assert CANARY not in text


def test_a_gateway_in_trouble_shows_no_secret_and_no_key(kafka: KafkaUnderTest, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    _, key = new_key()
    key = f"{key[:-6]}{CANARY}"
    environ = {
        **canaries(),
        "METERING_KAFKA_SERVERS": kafka.bootstrap,
        "METERING_CLICKHOUSE_URL": "http://127.0.0.1:1",
        "METERING_GATEWAY_PORT": str(port),
        "METERING_LOG_LEVEL": "debug",
    }
    url, log = f"http://127.0.0.1:{port}", tmp_path / "gateway.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "metering", "gateway"],
            env={**os.environ, **environ},
            cwd=ROOT,
            stdout=said,
            stderr=said,
        )
    answers: list[httpx.Response] = []
    try:
        deadline_s = time.monotonic() + WAIT_S
        while not _is_alive(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        for scheme in ("Bearer", "Basic", "bearer  "):
            headers = {"Authorization": f"{scheme} {key}", "Content-Type": "application/cloudevents+json"}
            answers += [
                httpx.post(f"{url}/v1/events", content=b"{}", headers=headers),
                httpx.get(f"{url}/v1/usage?meter=x", headers=headers),
                httpx.get(f"{url}/metrics", headers=headers),
                httpx.get(f"{url}/nowhere", headers=headers),
            ]
        answers.append(httpx.get(f"{url}/openapi.json"))
    finally:
        process.terminate()
        process.wait(WAIT_S)

    # Keys cannot be read from a ClickHouse that is away; the rest is refused for what it is.
    assert {answer.status_code for answer in answers} == {200, 401, 404, 503}
    for answer in answers:
        assert CANARY not in answer.text + str(dict(answer.headers))
    text = log.read_text(encoding="utf-8", errors="replace")
    assert "keys_not_read" in text
    assert CANARY not in text


def test_a_portal_in_trouble_shows_no_secret_and_no_link(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    environ = {
        **canaries(),
        "METERING_CLICKHOUSE_URL": "http://127.0.0.1:1",
        "METERING_PORTAL_PORT": str(port),
        "METERING_LOG_LEVEL": "debug",
    }
    url, log = f"http://127.0.0.1:{port}", tmp_path / "portal.log"
    claim = Claim(customer=f"{CANARY}-customer", ends_at=datetime(2100, 1, 1, tzinfo=UTC))
    token = Tokens((canaries()["METERING_PORTAL_SECRET"],)).sign(claim, Purpose.LINK)
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "metering", "portal"],
            env={**os.environ, **environ},
            cwd=ROOT,
            stdout=said,
            stderr=said,
        )
    try:
        deadline_s = time.monotonic() + WAIT_S
        while not _is_alive(f"{url}/portal"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        with httpx.Client(follow_redirects=True) as browser:
            answers = [
                browser.get(f"{url}/portal/enter/{token}"),
                browser.get(f"{url}/portal/enter/{token}{CANARY}"),
                browser.post(f"{url}/portal/enter/{token}", content=token),
                browser.get(f"{url}/portal/{token}?token={token}", headers={"Authorization": f"Bearer {token}"}),
            ]
    finally:
        process.terminate()
        process.wait(WAIT_S)

    assert [answer.status_code for answer in answers] == [503, 404, 404, 404]
    for answer in answers:
        assert token not in answer.text
        assert CANARY not in answer.text
    text = log.read_text(encoding="utf-8", errors="replace")
    assert "portal_unavailable" in text
    assert CANARY not in text
    assert [part for part in token.split(".")[2:] if part in text] == []


def _is_alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_log_line_hides_what_is_named_like_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    try:
        configure_logging(Settings())
        log: Any = structlog.get_logger("canaries")
        log.warning(
            "seen", kafka_password=CANARY, key_pepper=CANARY, api_key=CANARY, authorization=CANARY, place="here"
        )
        log.warning("whole", settings=msgspec.structs.replace(Settings(), kafka_password=CANARY))
    finally:
        structlog.configure(**before)

    said = capsys.readouterr().err
    assert CANARY not in said
    assert json.loads(said.splitlines()[0])["place"] == "here"
