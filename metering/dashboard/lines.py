"""One frozen line, explained from its amount down to the events."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from litestar import Request, Response, get
from litestar.params import FromQuery

from billing_export.explain import Explainer
from billing_export.explain_find import find_line
from billing_export.explain_records import EventPage, Explanation
from billing_export.usage_reader import RollupReader
from metering.dashboard.database import Database
from metering.dashboard.pages import page_place
from metering.dashboard.site import Site
from metering.keys import NotFoundError, Scope, needs
from metering.principal import principal_of
from schemas.errors import RequestError, RunError
from schemas.line_item import LineItem
from schemas.usage_query import Window

EVENTS_SHOWN: Final = 50
_LINE_ID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """How a line came about, and a page of its events where one was asked for."""

    found: Explanation
    listed: EventPage | None


def line_of(database: Database, line_id: str) -> LineItem:
    """The frozen line with this id. Raises NotFoundError."""
    if not _LINE_ID.fullmatch(line_id):
        raise NotFoundError
    with database.client() as client:
        try:
            return find_line(client, line_id)
        except (RequestError, RunError) as error:
            raise NotFoundError from error


def counted_account(database: Database, line_id: str, events: int) -> Account:
    """How a line came about, with the page `events` of its events; 0 is none."""
    with database.own_client() as client:
        explainer = Explainer(client, line_id, RollupReader(client))
        found = explainer.explain(Window.DAY)
        listed = None
        if events and found.meter is not None:
            pages = max(1, -(-found.line.events_count // EVENTS_SHOWN))
            listed = explainer.events(page=min(events, pages), page_size=EVENTS_SHOWN)
        return Account(found=found, listed=listed)


def line_routes(site: Site) -> list[Any]:
    """`GET /line`."""
    accounts = site.held_by_name("account")

    @get("/line", opt=needs(Scope.QUERY), sync_to_thread=True)
    def line(request: Request[Any, Any, Any], id: FromQuery[str], events: FromQuery[int] = 0) -> Response[str]:  # noqa: A002 - in the address
        principal = principal_of(request)
        one = line_of(site.database, id)
        if principal.customer not in ("", one.customer):
            raise NotFoundError
        wanted = max(0, events)
        account = accounts.get((id, wanted), lambda: counted_account(site.database, id, wanted))
        listed = None if account.value is None else account.value.listed
        return site.pages.page(
            request,
            "line.html",
            principal=principal,
            account=account,
            found=None if account.value is None else account.value.found,
            line=one,
            listed=listed,
            place=None if listed is None else page_place(listed.page, listed.events_count, EVENTS_SHOWN),
        )

    return [line]
