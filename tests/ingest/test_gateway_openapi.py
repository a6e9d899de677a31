"""The OpenAPI document describes every route, and what it says of an event is what the gateway takes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from litestar import get

from ingest.gateway import create_gateway
from ingest.metrics import GatewayMetrics
from metering.config import Settings
from metering.keys import Scope, needs
from schemas.errors import InvariantViolationError, RequestError
from schemas.usage_event import REASONS


def test_every_route_is_in_the_document(gateway: Any) -> None:
    document = gateway.get("/openapi.json").json()
    app = create_gateway(Settings())
    routes = {route.path for route in app.routes if not route.path.startswith("/openapi.json")}

    assert set(document["paths"]) == routes == {"/v1/events", "/healthz", "/readyz", "/metrics"}
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["operationId"]


def test_the_document_names_every_content_type_answer_and_reason(gateway: Any) -> None:
    operation = gateway.get("/openapi.json").json()["paths"]["/v1/events"]["post"]

    assert set(operation["requestBody"]["content"]) == {
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
        "application/json",
    }
    assert set(operation["responses"]) == {
        *("200", "207", "400", "401", "403", "408", "413", "415", "422", "429", "503"),
    }
    assert operation["security"] == [{"key": []}]
    assert {parameter["name"] for parameter in operation["parameters"]} == {"partial", "positions"}
    problem = operation["responses"]["422"]["content"]["application/problem+json"]["schema"]
    assert problem["properties"]["errors"]["items"]["properties"]["reason"]["enum"] == sorted(REASONS)


def test_the_example_in_the_document_is_taken(gateway: Any) -> None:
    import json

    content = gateway.get("/openapi.json").json()["paths"]["/v1/events"]["post"]["requestBody"]["content"]
    for media_type in ("application/cloudevents+json", "application/cloudevents-batch+json"):
        for example in content[media_type]["examples"].values():
            body = json.dumps(example["value"]).encode()
            assert gateway.post(body, media_type).status_code == 200


def test_every_metric_is_shown_with_a_comment_on_when_to_worry(gateway: Any) -> None:
    import inspect

    shown = gateway.get("/metrics")
    names = re.findall(r'"(metering_gateway_[a-z_]+)"', inspect.getsource(GatewayMetrics))

    assert shown.headers["content-type"].startswith("text/plain")
    assert len(names) > 10
    assert [name for name in names if name not in shown.text] == []
    assert inspect.getsource(GatewayMetrics).count("# ") >= len(names) - 1


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestError("no such meter", where="meter", fix="see the catalog"), 400, "invalid_request"),
        (InvariantViolationError("secret detail"), 500, "internal_error"),
    ],
)
def test_routes_mounted_beside_share_the_error_answers(
    kafka_settings: Settings, error: Exception, status: int, code: str
) -> None:
    from litestar.testing import TestClient

    @get("/v1/other", sync_to_thread=False, opt=needs(Scope.QUERY))
    def other() -> None:
        raise error

    app = create_gateway(kafka_settings, catalog_source=lambda: None, route_handlers=[other])
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/v1/other")
        paths = client.get("/openapi.json").json()["paths"]

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "secret" not in answer.text
    assert "/v1/other" in paths
