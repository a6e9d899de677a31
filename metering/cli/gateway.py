"""`metering gateway`: take usage events over HTTP."""

from __future__ import annotations

from ingest.gateway import create_gateway
from ingest.server import bind, serve
from metering.clock import SystemClock
from metering.config import load_settings


def gateway() -> None:
    """Take usage events over HTTP and write them to Kafka, until Ctrl-C or SIGTERM.

    Examples:
        metering gateway

        METERING_GATEWAY_PORT=8080 METERING_KAFKA_SERVERS=broker:9092 metering gateway
    """
    settings = load_settings()
    listener = bind(settings)
    serve(create_gateway(settings, clock=SystemClock()), settings, listener)
