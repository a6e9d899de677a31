"""The client does not block, keeps its ids over every retry, and loses nothing without saying so."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from ingest.client import BufferFullError, MeteringClient, RejectedEvent
from metering.clock import FixedClock
from schemas.errors import EventRejectedError, GatewayUnavailableError, RequestError

AT = datetime(2013, 6, 1, 11, 0, tzinfo=UTC)


class Gateway:
    """Answers what a test says and keeps what was sent."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.bodies: list[list[dict[str, Any]]] = []
        self.raw: list[bytes] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.open.wait()
        self.raw.append(request.content)
        events = json.loads(request.content)
        self.bodies.append(events)
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 0:
            raise httpx.ConnectError("refused")
        if status != 200:
            return httpx.Response(status, json={"detail": "away"})
        errors = [
            {"index": index, "reason": "unknown_type", "field": "type", "detail": "no"}
            for index, event in enumerate(events)
            if event["type"] == "bad"
        ]
        return httpx.Response(207 if errors else 200, json={"accepted": len(events) - len(errors), "errors": errors})


def client_of(gateway: Gateway, **options: Any) -> MeteringClient:
    return MeteringClient(
        "http://gateway", source="urn:app", clock=FixedClock(AT), transport=httpx.MockTransport(gateway), **options
    )


def test_a_correction_names_what_it_corrects_and_says_exactly_what_it_should_have_been() -> None:
    gateway = Gateway()

    with client_of(gateway) as client:
        voided = client.void(subject="ada", id="r-1")
        client.replace(
            subject="ada", id="r-2", source="urn:other", type="request", time=AT, data={"cost": Decimal("0.10")},
            correction_id="c-2",
        )  # fmt: skip

    [[void, _]] = gateway.bodies
    assert (void["type"], void["subject"], void["id"]) == ("metering.event.voided", "ada", voided)
    assert void["data"] == {"source": "urn:app", "id": "r-1"}
    assert gateway.raw[0].endswith(
        b'{"specversion":"1.0","id":"c-2","source":"urn:app","type":"metering.event.replaced","subject":"ada",'
        b'"time":"2013-06-01T11:00:00Z","data":{"source":"urn:other","id":"r-2","type":"request",'
        b'"time":"2013-06-01T11:00:00Z","data":{"cost":0.10}}}]'
    )


def test_a_correction_that_could_not_hold_is_refused_at_once() -> None:
    with client_of(Gateway()) as client:
        with pytest.raises(EventRejectedError, match="the correction names itself"):
            client.void(subject="ada", id="r-1", correction_id="r-1")
        with pytest.raises(EventRejectedError, match="cannot be put in the place of an event"):
            client.replace(subject="ada", id="r-1", type="metering.event.voided", time=AT)
        with pytest.raises(EventRejectedError, match="no zone"):
            client.replace(subject="ada", id="r-1", type="request", time=datetime(2013, 6, 1))  # noqa: DTZ001


def test_an_event_is_sent_in_the_background_with_exact_numbers() -> None:
    gateway = Gateway()

    with client_of(gateway) as client:
        client.record(type="request", subject="ada", id="r-1", data={"cost": Decimal("0.10"), "big": 10**17})

    assert gateway.raw == [
        (
            b'[{"specversion":"1.0","id":"r-1","source":"urn:app","type":"request","subject":"ada",'
            b'"time":"2013-06-01T11:00:00Z","data":{"cost":0.10,"big":100000000000000000}}]'
        )
    ]


def test_every_retry_carries_the_same_ids() -> None:
    gateway = Gateway(503, 0, 500, 404)

    with client_of(gateway) as client:
        ids = [client.record(type="request", subject="ada") for _ in range(3)]
        client.flush()

    assert len(gateway.bodies) == 5
    assert [event["id"] for event in gateway.bodies[-1]] == ids
    assert len(set(ids)) == 3


def test_an_answer_that_does_not_count_every_event_settles_nothing() -> None:
    strange = iter([httpx.Response(200, text="<html>"), httpx.Response(200, json={"accepted": 7})])
    gateway = Gateway()

    with MeteringClient(
        "http://gateway",
        source="urn:app",
        transport=httpx.MockTransport(lambda request: next(strange, None) or gateway(request)),
    ) as client:
        client.record(type="request", subject="ada")

    assert len(gateway.bodies) == 1


def test_a_refused_event_goes_to_the_callback_and_the_others_are_in() -> None:
    refused: list[RejectedEvent] = []

    with client_of(Gateway(), on_rejected=refused.append) as client:
        for type_ in ("request", "bad", "request"):
            client.record(type=type_, subject="ada", id=type_)

    assert [(one.reason, json.loads(one.event)["id"]) for one in refused] == [("unknown_type", "bad")]


def test_a_callback_that_fails_does_not_end_the_sending() -> None:
    gateway = Gateway()

    def fail(_: RejectedEvent) -> None:
        raise ZeroDivisionError

    with client_of(gateway, on_rejected=fail) as client:
        client.record(type="bad", subject="ada")
        client.flush()
        client.record(type="request", subject="ada")

    assert len(gateway.bodies) == 2


def test_a_full_buffer_is_told_and_takes_nothing() -> None:
    gateway = Gateway()
    gateway.open.clear()
    client = client_of(gateway, buffer_events_max=2)
    client.record(type="request", subject="ada", id="1")
    client.record(type="request", subject="ada", id="2")

    with pytest.raises(BufferFullError):
        client.record(type="request", subject="ada", id="3")

    gateway.open.set()
    client.close()
    assert [event["id"] for body in gateway.bodies for event in body] == ["1", "2"]


def test_what_is_left_at_the_end_is_told_one_by_one() -> None:
    left: list[RejectedEvent] = []
    client = client_of(Gateway(*[503] * 1_000), on_rejected=left.append)
    client.record(type="request", subject="ada", id="1")

    with pytest.raises(GatewayUnavailableError, match="not delivered within"):
        client.flush(0.2)
    with pytest.raises(GatewayUnavailableError, match="1 events were not delivered"):
        client.close(0.2)

    assert [(one.reason, json.loads(one.event)["id"]) for one in left] == [("undelivered", "1")]
    client.close()


def test_a_closed_client_refuses() -> None:
    client = client_of(Gateway())
    client.close()

    with pytest.raises(RequestError):
        client.record(type="request", subject="ada")


@pytest.mark.parametrize(
    "members",
    [
        {"subject": ""},
        {"time": datetime(2013, 1, 1)},  # noqa: DTZ001 - that is what is refused
        {"data": {"x": float("nan")}},
        {"data": {"x": [Decimal("Infinity")]}},
        {"data": {"x": object()}},
        {"subject": "\ud800"},
    ],
)
def test_an_event_that_cannot_be_billed_on_is_refused_at_once(members: dict[str, Any]) -> None:
    gateway = Gateway()

    with client_of(gateway) as client, pytest.raises((EventRejectedError, RequestError)):
        client.record(**{"type": "request", "subject": "ada", **members})

    assert gateway.bodies == []


def test_many_threads_may_record_at_once(gateway: Any, log: Any) -> None:
    with MeteringClient(gateway.url, source="urn:threads", clock=FixedClock(AT)) as client:
        threads = [
            threading.Thread(
                target=lambda name=name: [client.record(type="ping", subject=f"s{name}") for _ in range(200)]
            )
            for name in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(log.records()) == 1_000


def test_a_program_that_ends_without_closing_still_sends(gateway: Any, log: Any) -> None:
    program = (
        "from datetime import UTC, datetime\n"
        "from ingest.client import MeteringClient\n"
        f"client = MeteringClient({gateway.url!r}, source='urn:exit')\n"
        "client.record(type='ping', subject='ada', id='last', time=datetime(2013, 6, 1, tzinfo=UTC))\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

    assert [json.loads(value)["id"] for *_, value in log.records()] == ["last"]
