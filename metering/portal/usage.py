"""What the customer used, by day and dimension: chart, table and CSV."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, get
from litestar.params import FromQuery, QueryParameter

from metering.dashboard.held import Shown
from metering.dashboard.usage import Answered, shown
from metering.keys import NotFoundError
from metering.portal.links import PREFIX
from metering.portal.site import Asking, PortalSite, who_asks
from metering.usage.answer import answer
from metering.usage.parameters import UsageParameters, query_of
from metering.usage.present import to_csv
from schemas.catalog import AppliedCatalog, Customer
from schemas.charges import DynamicCharge, FlatCharge
from schemas.errors import RequestError
from schemas.meter import Meter
from schemas.subscription_life import overridden, tenures
from schemas.usage_query import By, Window

FRESH_S: Final = 5.0
"""How old an answer on a page may be: paging through it asks once."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the form says; days as they were written."""

    meter: str
    start: str
    end: str
    group_by: tuple[str, ...]

    def address_parts(self) -> dict[str, Any]:
        """The parameters of an address that asks the same."""
        return {"meter": self.meter, "from": self.start, "to": self.end, "group_by": list(self.group_by)}


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The answer; None for a question that cannot be answered as it was asked."""

    found: Answered | None


def usage_routes(site: PortalSite) -> list[Any]:
    """`GET /portal/usage` and `GET /portal/usage.csv`."""
    answers = site.held_by_name("portal usage", fresh_s=FRESH_S)

    def told(asking: Asking, asked: Asked) -> Told:
        try:
            return Told(found=answered(asking, asked))
        except RequestError:
            return Told(found=None)

    def answered(asking: Asking, asked: Asked) -> Answered:
        parameters = UsageParameters(
            meter=asked.meter,
            customers=(asking.customer.id,),
            start=asked.start or None,
            end=asked.end or None,
            window=Window.DAY,
            timezone=asking.customer.timezone,
            by=By.EVERYTHING,
            group_by=asked.group_by,
        )
        query = query_of(parameters, asking.catalog, site.clock.now())
        with site.database.client() as client:
            rows = answer(client, asking.catalog, query, rows_max=site.settings.query_rows_max)
        return Answered(catalog=asking.catalog, query=query, rows=rows)

    @get(f"{PREFIX}/usage", sync_to_thread=True)
    def usage(
        request: Request[Any, Any, Any],
        *,
        meter: FromQuery[str] = "",
        start: Annotated[str, QueryParameter(name="from")] = "",
        end: Annotated[str, QueryParameter(name="to")] = "",
        group_by: FromQuery[list[str] | None] = None,
        page: FromQuery[int] = 1,
    ) -> Response[str]:
        asking = who_asks(site, request)
        meters = meters_of(asking.catalog, asking.customer)
        asked = asked_of(meters, meter, start, end, group_by)
        held: Shown[Told] = Shown(value=Told(found=None))
        if asked is not None:
            held = answers.get((asking.customer.id, asked), lambda: told(asking, asked))
        found = None if held.value is None else held.value.found
        return site.page(
            request,
            "portal_usage.html",
            customer=asking.customer,
            meters=meters,
            asked=asked,
            dimensions=[] if asked is None else sorted(meters[asked.meter].group_by),
            held=held,
            found=found,
            **({} if found is None else shown(found, page)),
        )

    @get(f"{PREFIX}/usage.csv", sync_to_thread=True)
    def usage_csv(
        request: Request[Any, Any, Any],
        *,
        meter: FromQuery[str],
        start: Annotated[str, QueryParameter(name="from")] = "",
        end: Annotated[str, QueryParameter(name="to")] = "",
        group_by: FromQuery[list[str] | None] = None,
    ) -> Response[bytes]:
        asking = who_asks(site, request)
        asked = asked_of(meters_of(asking.catalog, asking.customer), meter, start, end, group_by)
        if asked is None:
            raise NotFoundError
        found = answered(asking, asked)
        return Response(
            to_csv(found.catalog, found.query, found.rows).encode(),
            media_type="text/csv",
            headers={"Content-Disposition": f'attachment; filename="usage-{asked.meter}.csv"'},
        )

    return [usage, usage_csv]


def asked_of(meters: dict[str, Meter], meter: str, start: str, end: str, group_by: list[str] | None) -> Asked | None:
    """The question of an address, about the first meter where none is named; None where the customer has no meter.

    Raises NotFoundError for another meter. Dimensions of another meter are left out, as the form then shows.
    """
    chosen = meter or next(iter(meters), "")
    if not chosen:
        return None
    if chosen not in meters:
        raise NotFoundError
    known = meters[chosen].group_by
    dimensions = tuple(dict.fromkeys(name for name in group_by or () if name in known))
    return Asked(meter=chosen, start=start.strip(), end=end.strip(), group_by=dimensions)


def meters_of(catalog: AppliedCatalog, customer: Customer) -> dict[str, Meter]:
    """The meters that the customer has been, is or will be charged by, in the catalog's order; others are not shown.

    Pure.
    """
    names = set()
    for subscription in catalog.subscriptions_of(customer.id):
        currency = catalog.currency_of(subscription)
        for tenure in tenures(catalog, subscription):
            for charge in overridden(catalog.price_list(tenure.plan, currency), subscription).charges:
                if isinstance(charge, FlatCharge):
                    continue
                names.add(charge.meter)
                if isinstance(charge, DynamicCharge):
                    names.add(charge.amount_meter)
    return {name: meter for name, meter in catalog.meters.items() if name in names}
