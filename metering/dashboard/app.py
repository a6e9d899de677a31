"""The dashboard: an ASGI application of pages that are made here, whole, for every request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from litestar import Litestar

from ingest.access import check_settings, undeclared_routes
from ingest.key_watch import KeySource, KeyWatch, StoredKeys
from ingest.metrics import GatewayMetrics
from metering.clock import Clock, SystemClock
from metering.config import Settings
from metering.dashboard.answers import exception_handlers, with_headers
from metering.dashboard.customers import customer_routes
from metering.dashboard.dead_letters import dead_letter_routes
from metering.dashboard.guard import Guard
from metering.dashboard.held import PATIENCE_S
from metering.dashboard.kpis import kpi_routes
from metering.dashboard.lines import line_routes
from metering.dashboard.overview import overview_routes
from metering.dashboard.runs import run_routes
from metering.dashboard.sign_in import sign_in_routes
from metering.dashboard.site import Site
from metering.dashboard.usage import usage_routes
from schemas.errors import InvariantViolationError

FORM_BYTES_MAX: Final = 64 * 1024


def create_dashboard(
    settings: Settings,
    *,
    clock: Clock | None = None,
    key_source: KeySource | None = None,
    patience_s: float = PATIENCE_S,
) -> Litestar:
    """The ASGI application. `key_source` is asked for the API keys (ClickHouse, unless given).

    Raises InvariantViolationError for a route that does not declare its scope, and SettingError for a dashboard that
    would have to ask for keys and could check none.
    """
    check_settings(settings, part="dashboard")
    clock = clock or SystemClock()
    keys = KeyWatch(key_source or StoredKeys(settings), settings, clock, GatewayMetrics())
    guard = Guard(settings, keys, clock)
    site = Site(settings, clock, guard, patience_s=patience_s)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        if not guard.asks_for_keys:
            yield
            return
        await keys.start()
        try:
            yield
        finally:
            await keys.stop()

    app = Litestar(
        route_handlers=[
            *sign_in_routes(site),
            *overview_routes(site),
            *usage_routes(site),
            *customer_routes(site),
            *run_routes(site),
            *line_routes(site),
            *dead_letter_routes(site),
            *kpi_routes(site),
        ],
        guards=[guard],
        lifespan=[lifespan],
        after_request=with_headers,
        exception_handlers=exception_handlers(site),
        openapi_config=None,
        logging_config=None,
        request_max_body_size=FORM_BYTES_MAX,
        debug=False,
    )
    undeclared = undeclared_routes(app)
    if undeclared:
        raise InvariantViolationError(
            f"{', '.join(undeclared)} do not say which scope they need", where="dashboard", fix="Add opt=needs(…)"
        )
    return app
