"""One line of a bill, explained from its amount down to the events."""

from __future__ import annotations

import re
from typing import Any, Final

from litestar import Request, Response, get
from litestar.params import FromQuery

from billing_export.explain import Explainer
from billing_export.explain_find import find_line
from billing_export.usage_reader import RollupReader
from metering.dashboard.lines import EVENTS_SHOWN, Account
from metering.dashboard.pages import page_place
from metering.keys import NotFoundError
from metering.portal.links import PREFIX
from metering.portal.site import PortalSite, who_asks
from schemas.errors import RequestError, RunError
from schemas.usage_query import Window

_LINE_ID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def line_routes(site: PortalSite) -> list[Any]:
    """`GET /portal/line`."""
    accounts = site.held_by_name("portal account")

    def count(name: str, events: int) -> Account:
        with site.database.own_client() as client:
            explainer = Explainer(client, name, RollupReader(client))
            found = explainer.explain(Window.DAY)
            listed = None
            if events and found.meter is not None:
                pages = max(1, -(-found.line.events_count // EVENTS_SHOWN))
                listed = explainer.events(page=min(events, pages), page_size=EVENTS_SHOWN)
            return Account(found=found, listed=listed)

    @get(f"{PREFIX}/line", sync_to_thread=True)
    def line(request: Request[Any, Any, Any], id: FromQuery[str], events: FromQuery[int] = 0) -> Response[str]:  # noqa: A002 - in the address
        customer = who_asks(site, request).customer
        if not _LINE_ID.fullmatch(id):
            raise NotFoundError
        with site.database.client() as client:
            try:
                one = find_line(client, id)
            except (RequestError, RunError) as error:
                raise NotFoundError from error
        if one.customer != customer.id:
            raise NotFoundError
        wanted = max(0, events)
        account = accounts.get((customer.id, id, wanted), lambda: count(id, wanted))
        listed = None if account.value is None else account.value.listed
        return site.page(
            request,
            "portal_line.html",
            customer=customer,
            account=account,
            found=None if account.value is None else account.value.found,
            line=one,
            listed=listed,
            place=None if listed is None else page_place(listed.page, listed.events_count, EVENTS_SHOWN),
        )

    return [line]
