"""The gateway: an ASGI application that takes usage events over HTTP and writes them to Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from litestar import Litestar
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from ingest.catalog_watch import CatalogSource, CatalogWatch, StoredCatalog
from ingest.http_events import EventsService, events_route
from ingest.http_health import health_routes
from ingest.kafka_watch import KafkaWatch
from ingest.metrics import GatewayMetrics
from ingest.problems import EXCEPTION_HANDLERS
from ingest.producer import EventProducer
from metering.clock import Clock, SystemClock
from metering.config import Settings

API_VERSION: Final = "1.0.0"

_log = structlog.get_logger(__name__)


def create_gateway(
    settings: Settings,
    *,
    clock: Clock | None = None,
    catalog_source: CatalogSource | None = None,
    route_handlers: Sequence[Any] = (),
) -> Litestar:
    """The ASGI application; it connects when it starts up and flushes when it shuts down.

    `catalog_source` is asked for the newest catalog (ClickHouse, unless given). `route_handlers` are mounted beside
    the gateway's own and share its error answers and its OpenAPI document.
    """
    clock = clock or SystemClock()
    metrics = GatewayMetrics()
    producer = EventProducer(settings)
    kafka = KafkaWatch(settings, producer, clock, metrics)
    catalog = CatalogWatch(catalog_source or StoredCatalog(settings), clock, metrics)
    events = EventsService(
        settings=settings, clock=clock, metrics=metrics, producer=producer, kafka=kafka, catalog=catalog
    )

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        producer.start()
        await asyncio.gather(kafka.start(), catalog.start())
        try:
            yield
        finally:
            await asyncio.gather(kafka.stop(), catalog.stop())
            left = await asyncio.to_thread(producer.close)
            _log.info("gateway_stopped", undecided_events=left)

    return Litestar(
        route_handlers=[
            events_route(events, metrics),
            *health_routes(kafka=kafka, catalog=catalog, producer=producer, events=events, metrics=metrics),
            *route_handlers,
        ],
        lifespan=[lifespan],
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=OpenAPIConfig(
            title="Usage metering",
            version=API_VERSION,
            description="Usage events in, exact usage out.",
            path="/openapi.json",
            render_plugins=[JsonRenderPlugin(path="/")],
        ),
        logging_config=None,
        debug=False,
    )
