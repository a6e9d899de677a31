"""The customer portal: an ASGI application of pages about one customer, for whoever has a link.

It stands beside the dashboard and shares its templates, styles and charts, and none of its keys or sessions: neither
opens anything of the other.
"""

from __future__ import annotations

from typing import Any, Final

from litestar import Litestar
from litestar.types import ASGIApp, Receive, Scope, Send

from metering.clock import Clock, SystemClock
from metering.config import Settings
from metering.dashboard.held import PATIENCE_S
from metering.portal.answers import exception_handlers, with_headers
from metering.portal.bills import bill_routes
from metering.portal.entry import entry_routes
from metering.portal.guard import PortalGuard
from metering.portal.line import line_routes
from metering.portal.links import PREFIX, check_secret
from metering.portal.running import running_routes
from metering.portal.site import PortalSite
from metering.portal.usage import usage_routes

BODY_BYTES_MAX: Final = 1_024
"""Nothing is ever sent to the portal but questions."""


def create_portal(settings: Settings, *, clock: Clock | None = None, patience_s: float = PATIENCE_S) -> Litestar:
    """The ASGI application. Raises SettingError where there is no secret to check links with."""
    check_secret(settings)
    clock = clock or SystemClock()
    guard = PortalGuard(settings, clock)
    site = PortalSite(settings, clock, patience_s=patience_s)
    routes: list[Any] = [
        *entry_routes(guard),
        *running_routes(site),
        *usage_routes(site),
        *bill_routes(site),
        *line_routes(site),
    ]
    return Litestar(
        route_handlers=routes,
        guards=[guard],
        after_request=with_headers,
        exception_handlers=exception_handlers(site),
        openapi_config=None,
        logging_config=None,
        request_max_body_size=BODY_BYTES_MAX,
        debug=False,
    )


def beside(app: ASGIApp, portal: ASGIApp) -> ASGIApp:
    """One application of two: what is below `/portal` is the portal's and never reaches the other, nor its guard."""

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", ""))
        is_portal = path == PREFIX or path.startswith(f"{PREFIX}/")
        await (portal if is_portal else app)(scope, receive, send)

    return either
