"""One frozen line, explained from its amount down to the events."""

from __future__ import annotations

import re
from typing import Any, Final

from litestar import Request, Response, get
from litestar.params import FromQuery

from billing_export.explain import Explainer
from billing_export.usage_reader import RollupReader
from metering.dashboard.pages import page_place
from metering.dashboard.site import Site
from metering.keys import NotFoundError, Scope, needs
from metering.principal import principal_of
from schemas.errors import RequestError, RunError
from schemas.usage_query import Window

EVENTS_SHOWN: Final = 50
_LINE_ID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def line_routes(site: Site) -> list[Any]:
    """`GET /line`."""

    @get("/line", opt=needs(Scope.QUERY), sync_to_thread=True)
    def line(request: Request[Any, Any, Any], id: FromQuery[str], events: FromQuery[int] = 0) -> Response[str]:  # noqa: A002 - in the address
        principal = principal_of(request)
        if not _LINE_ID.fullmatch(id):
            raise NotFoundError
        with site.database.client() as client:
            try:
                explainer = Explainer(client, id, RollupReader(client))
            except (RequestError, RunError) as error:
                raise NotFoundError from error
            if principal.customer not in ("", explainer.line.customer):
                raise NotFoundError
            found = explainer.explain(Window.DAY)
            listed = None
            if events and found.meter is not None:
                listed = explainer.events(page=events, page_size=EVENTS_SHOWN)
        return site.pages.page(
            request,
            "line.html",
            principal=principal,
            found=found,
            line=found.line,
            listed=listed,
            place=None if listed is None else page_place(listed.page, listed.events_count, EVENTS_SHOWN),
        )

    return [line]
