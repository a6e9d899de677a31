"""`metering gateway`: take usage events over HTTP."""

from __future__ import annotations

from ingest.gateway import create_gateway
from ingest.server import bind, serve
from metering.clock import SystemClock
from metering.config import load_settings
from metering.log import configure_logging
from metering.usage.http import usage_routes


def gateway() -> None:
    """Take usage events over HTTP, write them to Kafka and answer GET /v1/usage, until Ctrl-C or SIGTERM.

    Examples:
        metering gateway

        METERING_GATEWAY_PORT=8080 METERING_KAFKA_SERVERS=broker:9092 metering gateway
    """
    settings = load_settings()
    configure_logging(settings)
    listener = bind(settings)
    clock = SystemClock()
    app = create_gateway(settings, clock=clock, route_handlers=usage_routes(settings, clock=clock))
    serve(app, settings, listener)
