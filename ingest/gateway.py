"""The gateway: an ASGI application that takes usage events over HTTP and writes them to Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import structlog
from litestar import Litestar, Router
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from prometheus_client import CollectorRegistry

from ingest.access import Access, check_settings, undeclared_routes
from ingest.catalog_watch import CatalogSource, CatalogWatch, StoredCatalog
from ingest.http_events import EventsService, events_route
from ingest.http_health import health_routes
from ingest.kafka_watch import KafkaWatch
from ingest.key_watch import KeySource, KeyWatch, StoredKeys
from ingest.metrics import GatewayMetrics
from ingest.problems import EXCEPTION_HANDLERS
from ingest.producer import EventProducer
from metering.clock import Clock, SystemClock
from metering.config import Settings
from metering.keys import PUBLIC, needs
from schemas.errors import InvariantViolationError

API_VERSION: Final = "1.0.0"

_log = structlog.get_logger(__name__)


class Background(Protocol):
    """What works beside the routes for as long as the gateway runs."""

    async def start(self, registry: CollectorRegistry) -> None:
        """Begin; metrics that are put on `registry` are shown with the gateway's own."""
        ...

    async def stop(self) -> None:
        """End, and wait until that is done."""
        ...


def create_gateway(
    settings: Settings,
    *,
    clock: Clock | None = None,
    catalog_source: CatalogSource | None = None,
    key_source: KeySource | None = None,
    route_handlers: Sequence[Any] = (),
    background: Sequence[Background] = (),
) -> Litestar:
    """The ASGI application; it connects when it starts up and flushes when it shuts down.

    `catalog_source` is asked for the newest catalog and `key_source` for the API keys (ClickHouse, unless given).
    `route_handlers` are mounted beside the gateway's own and share its guard, its error answers and its OpenAPI
    document; what is in `background` starts and stops with it. Raises InvariantViolationError for a route that does
    not declare its scope, and SettingError for a gateway that could check no key.
    """
    check_settings(settings)
    clock = clock or SystemClock()
    metrics = GatewayMetrics()
    producer = EventProducer(settings)
    kafka = KafkaWatch(settings, producer, clock, metrics)
    catalog = CatalogWatch(catalog_source or StoredCatalog(settings), clock, metrics)
    keys = KeyWatch(key_source or StoredKeys(settings), settings, clock, metrics)
    access = Access(settings, keys, clock)
    events = EventsService(
        settings=settings,
        clock=clock,
        metrics=metrics,
        producer=producer,
        kafka=kafka,
        catalog=catalog,
        access=access,
    )

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        producer.start()
        begun = [one.start(metrics.registry) for one in background]
        await asyncio.gather(kafka.start(), catalog.start(), keys.start(), *begun)
        try:
            yield
        finally:
            ended = [one.stop() for one in background]
            await asyncio.gather(kafka.stop(), catalog.stop(), keys.stop(), *ended)
            left = await asyncio.to_thread(producer.close)
            _log.info("gateway_stopped", undecided_events=left)

    app = Litestar(
        route_handlers=[
            events_route(events, metrics),
            *health_routes(kafka=kafka, catalog=catalog, producer=producer, events=events, metrics=metrics),
            *route_handlers,
        ],
        guards=[access.guard],
        lifespan=[lifespan],
        exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=OpenAPIConfig(
            title="Usage metering",
            version=API_VERSION,
            description="Usage events in, exact usage out.",
            # The document says what there is, not what anybody used.
            openapi_router=Router("/openapi.json", route_handlers=[], include_in_schema=False, opt=needs(PUBLIC)),
            render_plugins=[JsonRenderPlugin(path="/")],
            components=Components(
                security_schemes={
                    "key": SecurityScheme(type="http", scheme="bearer", description="An API key; docs/security.md")
                }
            ),
        ),
        logging_config=None,
        debug=False,
    )
    undeclared = undeclared_routes(app)
    if undeclared:
        raise InvariantViolationError(
            f"{', '.join(undeclared)} do not say which scope they need", where="gateway", fix="Add opt=needs(…)"
        )
    return app
