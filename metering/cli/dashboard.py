"""`metering dashboard`: pages about usage, bills and the pipeline."""

from __future__ import annotations

import msgspec
from litestar.types import ASGIApp

from ingest.server import bind, serve
from metering.clock import SystemClock
from metering.config import load_settings
from metering.dashboard.app import create_dashboard
from metering.log import configure_logging
from metering.portal.app import beside, create_portal


def dashboard() -> None:
    """Show usage, customers, billing runs, dead letters and KPIs in a browser, until Ctrl-C or SIGTERM.

    On 127.0.0.1, where it listens unless told otherwise, nobody is asked who they are. Elsewhere an API key is asked
    for, and its scopes and its customer say what is shown. It speaks HTTPS where the gateway has a certificate. With
    METERING_PORTAL_SECRET the customer portal stands beside it, below /portal.

    Examples:
        metering dashboard

        METERING_DASHBOARD_PORT=8081 metering dashboard
    """
    settings = load_settings()
    configure_logging(settings)
    listener = bind(settings, part="dashboard")
    clock = SystemClock()
    app: ASGIApp = create_dashboard(settings, clock=clock)
    if settings.portal_secret:
        app = beside(app, create_portal(settings, clock=clock))
    # What serves is the gateway's own, on the dashboard's address.
    here = msgspec.structs.replace(settings, gateway_host=settings.dashboard_host, gateway_port=settings.dashboard_port)
    serve(app, here, listener)
