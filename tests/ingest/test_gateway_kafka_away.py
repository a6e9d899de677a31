"""Kafka away: a 503 that says when to come again and what became of each event; Kafka back: as if nothing was."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from ingest.content import BATCH, EVENT
from metering.config import load_settings
from metering.embedded.kafka import EmbeddedKafka
from metering.kafka import ensure_topics

RECOVERY_TIMEOUT_S = 60.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path / "kafka") as server:
        yield server


def until_ready(gateway: Any, status: int) -> httpx.Response:
    deadline_s = time.monotonic() + RECOVERY_TIMEOUT_S
    while True:
        answer: httpx.Response = gateway.get("/readyz")
        if answer.status_code == status:
            return answer
        assert time.monotonic() < deadline_s, answer.text
        time.sleep(0.1)


def test_a_killed_broker_is_told_and_a_restarted_one_is_taken_up(
    broker: EmbeddedKafka, event: Any, running_gateway_of: Any
) -> None:
    settings = msgspec.structs.replace(load_settings(), kafka_servers=broker.bootstrap, kafka_delivery_timeout_s=2.0)
    ensure_topics(settings)
    with running_gateway_of(settings) as gateway:
        assert until_ready(gateway, 200).json()["status"] == "ready"
        body = json.dumps([event(), event()]).encode()
        assert gateway.post(body, BATCH).json() == {"accepted": 2}

        broker.kill()
        answer = gateway.post(body, BATCH)

        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert int(answer.headers["retry-after"]) > 0
        problem = answer.json()
        told = [*problem.get("acknowledged", []), *problem.get("failed", []), *problem.get("unknown", [])]
        assert "nothing was accepted" in problem["detail"] or sorted(told) == [0, 1]

        not_ready = until_ready(gateway, 503)
        assert not_ready.json()["code"] == "not_ready"
        assert "Kafka does not answer" in not_ready.json()["detail"]
        assert gateway.get("/healthz").status_code == 200
        at_once = gateway.post(body, BATCH)
        assert (at_once.status_code, at_once.json()["code"]) == (503, "kafka_unavailable")
        assert "nothing was accepted" in at_once.json()["detail"]

        broker.start()
        until_ready(gateway, 200)
        assert gateway.post(body, BATCH).json() == {"accepted": 2}


def test_without_its_topics_the_gateway_says_which_and_what_to_do(
    broker: EmbeddedKafka, event: Any, running_gateway_of: Any
) -> None:
    settings = msgspec.structs.replace(load_settings(), kafka_servers=broker.bootstrap)
    with running_gateway_of(settings) as gateway:
        answer = gateway.post(json.dumps(event()).encode(), EVENT)

        assert (answer.status_code, answer.json()["code"]) == (503, "kafka_unavailable")
        assert "no topic usage.events.v1" in answer.json()["detail"]
        assert "metering migrate" in gateway.get("/readyz").json()["fix"]

        ensure_topics(settings)
        until_ready(gateway, 200)
        assert gateway.post(json.dumps(event()).encode(), EVENT).status_code == 200


def test_a_gateway_that_starts_before_kafka_answers_503_and_lives(event: Any, running_gateway_of: Any) -> None:
    settings = msgspec.structs.replace(load_settings(), kafka_servers="127.0.0.1:9", kafka_delivery_timeout_s=1.0)
    with running_gateway_of(settings) as gateway:
        answer = gateway.post(json.dumps(event()).encode(), EVENT)

        assert (answer.status_code, gateway.get("/healthz").status_code) == (503, 200)


def test_stopping_waits_for_what_is_in_flight(kafka_settings: Any, event: Any, running_gateway_of: Any) -> None:
    answers: list[int] = []
    with running_gateway_of(kafka_settings) as gateway:
        begun = threading.Event()

        def slow_body() -> Iterator[bytes]:
            yield b"["
            begun.set()
            time.sleep(0.5)
            yield json.dumps(event()).encode() + b"]"

        sender = threading.Thread(target=lambda: answers.append(gateway.post(slow_body(), BATCH).status_code))
        sender.start()
        begun.wait()
    sender.join()

    assert answers == [200]
