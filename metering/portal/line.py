"""One line of a bill, explained from its amount down to the events."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.params import FromQuery

from metering.dashboard.lines import EVENTS_SHOWN, counted_account, line_of
from metering.dashboard.pages import page_place
from metering.keys import NotFoundError
from metering.portal.links import PREFIX
from metering.portal.site import PortalSite, who_asks


def line_routes(site: PortalSite) -> list[Any]:
    """`GET /portal/line`."""
    accounts = site.held_by_name("portal account")

    @get(f"{PREFIX}/line", sync_to_thread=True)
    def line(request: Request[Any, Any, Any], id: FromQuery[str], events: FromQuery[int] = 0) -> Response[str]:  # noqa: A002 - in the address
        customer = who_asks(site, request).customer
        one = line_of(site.database, id)
        if one.customer != customer.id:
            raise NotFoundError
        wanted = max(0, events)
        account = accounts.get((customer.id, id, wanted), lambda: counted_account(site.database, id, wanted))
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
