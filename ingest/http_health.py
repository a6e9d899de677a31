"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from litestar import Request, Response, get
from litestar.datastructures import ResponseHeader
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ingest.catalog_watch import CatalogWatch
from ingest.http_events import EventsService
from ingest.kafka_watch import KafkaWatch
from ingest.metrics import GatewayMetrics
from ingest.problems import KEY_SECURITY, RETRY_AFTER_S, ProblemError, not_found
from ingest.producer import EventProducer
from metering.keys import PUBLIC, Scope, needs
from metering.principal import principal_of

_NO_STORE: Final = [ResponseHeader(name="Cache-Control", value="no-store")]


def health_routes(
    *,
    kafka: KafkaWatch,
    catalog: CatalogWatch,
    producer: EventProducer,
    events: EventsService,
    metrics: GatewayMetrics,
) -> list[Any]:
    """The three routes."""

    @get(
        "/healthz",
        operation_id="isAlive",
        summary="Whether the process is alive",
        tags=["health"],
        opt=needs(PUBLIC),
        response_headers=_NO_STORE,
    )
    async def is_alive() -> dict[str, str]:
        return {"status": "alive"}

    @get(
        "/readyz",
        operation_id="isReady",
        summary="Whether events can be taken",
        tags=["health"],
        opt=needs(PUBLIC),
        response_headers=_NO_STORE,
    )
    async def is_ready() -> dict[str, str | int]:
        """Kafka answers and the topics exist; otherwise 503 says what is wrong. The catalog is told, not required."""
        state = kafka.state
        if state.problem:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "not_ready",
                state.problem,
                fix=state.fix,
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        return {"status": "ready", "epoch": state.epoch, "catalog_version": catalog.version}

    @get(
        "/metrics",
        operation_id="readMetrics",
        summary="Prometheus metrics",
        tags=["health"],
        opt=needs(Scope.QUERY),
        security=KEY_SECURITY,
        media_type="text/plain",
    )
    async def read_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        """What all customers together do, so not for a key that is bound to one."""
        if principal_of(request).customer:
            raise not_found()
        metrics.queued_events.set(producer.queued_events)
        metrics.queued_bytes.set(producer.queued_bytes)
        metrics.body_bytes.set(events.budget.held_bytes)
        metrics.kafka_ready.set(0 if kafka.state.problem else 1)
        return Response(generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [is_alive, is_ready, read_metrics]
