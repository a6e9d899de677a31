"""The SDK and `metering ingest` show the key that the settings have, and come back when they are told to."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from ingest.client import MeteringClient
from ingest.files.events import FileEvent
from ingest.loader import load
from metering.config import Settings
from metering.keys import ApiKey, Scope, fingerprint, hmac_of, new_key
from schemas.errors import RequestError

PEPPER = "p" * 32


def test_the_key_comes_from_the_settings_or_from_the_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown: list[str] = []

    def gateway(request: httpx.Request) -> httpx.Response:
        shown.append(request.headers.get("authorization", "none"))
        return httpx.Response(200, json={"accepted": len(json.loads(request.content))})

    def send(**more: Any) -> None:
        with MeteringClient("http://g", source="urn:a", transport=httpx.MockTransport(gateway), **more) as client:
            client.record(type="t", subject="s")

    secret = tmp_path / "key"
    secret.write_text("mk_file\n")
    send()
    monkeypatch.setenv("METERING_API_KEY_FILE", str(secret))
    send()
    send(api_key="mk_given")
    send(api_key="")

    assert shown == ["none", "Bearer mk_file", "Bearer mk_given", "none"]


def test_a_client_that_goes_too_fast_comes_back_with_the_same_events() -> None:
    asked: list[list[str]] = []

    def gateway(request: httpx.Request) -> httpx.Response:
        asked.append([one["id"] for one in json.loads(request.content)])
        if len(asked) < 3:
            return httpx.Response(429, headers={"Retry-After": "1"}, json={"code": "too_fast"})
        return httpx.Response(200, json={"accepted": 1})

    with MeteringClient("http://g", source="urn:a", api_key="", transport=httpx.MockTransport(gateway)) as client:
        client.record(type="t", subject="s", id="1")

    assert asked == [["1"], ["1"], ["1"]]


def test_a_load_shows_its_key_and_says_why_it_is_refused(
    kafka_settings: Settings, running_gateway_of: Any, event: Any, keys: Any
) -> None:
    name, text = new_key()
    keys.keys.append(
        ApiKey(
            key=name,
            name="loader",
            hmac=hmac_of(PEPPER, text),
            pepper=fingerprint(PEPPER),
            scopes=frozenset({Scope.INGEST}),
            at=datetime(2013, 1, 1, tzinfo=UTC),
            by="test",
        )
    )
    rows = [FileEvent(file="f", line=line, event=json.dumps(event()).encode()) for line in range(10)]
    settings = msgspec.structs.replace(kafka_settings, key_pepper=PEPPER)

    with running_gateway_of(settings, keys=keys) as gateway:
        loaded = load(rows, gateway_url=gateway.url, api_key=text)
        with pytest.raises(RequestError) as caught:
            load(rows, gateway_url=gateway.url, api_key=text + "x")
        with pytest.raises(RequestError, match="no API key"):
            load(rows, gateway_url=gateway.url)

    assert loaded.acknowledged == 10
    assert "not known here" in str(caught.value)
    assert text not in str(caught.value)
