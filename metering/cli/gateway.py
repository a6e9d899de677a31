"""`metering gateway`: take usage events over HTTP."""

from __future__ import annotations

import sys

from ingest.gateway import create_gateway
from ingest.server import bind, serve
from metering.clock import SystemClock
from metering.config import load_settings
from metering.entitlements.http import entitlement_routes
from metering.entitlements.service import EntitlementService
from metering.log import configure_logging
from metering.usage.http import usage_routes

SWITCH_INTERVAL_S = 0.0005
"""Answers come from one thread; beside one that reads what was used it would wait 5 ms at a time for its turn."""


def gateway() -> None:
    """Take usage events over HTTP, write them to Kafka and answer GET /v1/usage, until Ctrl-C or SIGTERM.

    Says besides what a customer may still use: GET /v1/customers/ID/entitlements/METER.

    Examples:
        metering gateway

        METERING_GATEWAY_PORT=8080 METERING_KAFKA_SERVERS=broker:9092 metering gateway
    """
    settings = load_settings()
    configure_logging(settings)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    listener = bind(settings)
    clock = SystemClock()
    entitlements = EntitlementService(settings, clock)
    routes = [*usage_routes(settings, clock=clock), *entitlement_routes(entitlements)]
    app = create_gateway(settings, clock=clock, route_handlers=routes, background=[entitlements])
    serve(app, settings, listener)
