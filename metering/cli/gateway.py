"""`metering gateway`: take usage events over HTTP."""

from __future__ import annotations

from ingest.gateway import create_gateway
from ingest.server import bind, serve
from metering.clock import SystemClock
from metering.config import load_settings
from metering.entitlements.http import entitlement_routes
from metering.entitlements.service import EntitlementService
from metering.log import configure_logging
from metering.usage.http import usage_routes


def gateway() -> None:
    """Take usage events over HTTP, write them to Kafka and answer GET /v1/usage, until Ctrl-C or SIGTERM.

    Says besides what a customer may still use: GET /v1/customers/ID/entitlements/METER.

    Examples:
        metering gateway

        METERING_GATEWAY_PORT=8080 METERING_KAFKA_SERVERS=broker:9092 metering gateway
    """
    settings = load_settings()
    configure_logging(settings)
    listener = bind(settings)
    clock = SystemClock()
    entitlements = EntitlementService(settings, clock)
    routes = [*usage_routes(settings, clock=clock), *entitlement_routes(entitlements)]
    app = create_gateway(settings, clock=clock, route_handlers=routes, background=[entitlements])
    serve(app, settings, listener)
