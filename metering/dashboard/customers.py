"""Customers: who there is, and of one what it used, has, will be charged and was charged, and how it fares."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client
from litestar import Request, Response, get
from litestar.params import FromQuery

from billing_export.line_pages import runs_of_customer
from billing_export.preview import Preview, preview
from billing_export.usage_reader import RollupReader
from metering.customer_health import CustomerHealth, health_of_customer
from metering.dashboard.pages import page_place
from metering.dashboard.site import Site, only_customer
from metering.keys import NotFoundError, Scope, needs
from metering.principal import principal_of
from metering.subscription_history import events_of_customer
from metering.usage.answer import answer
from metering.usage.parameters import UsageParameters, query_of
from schemas.catalog import AppliedCatalog, Customer
from schemas.errors import MeteringError
from schemas.subscription import Subscription
from schemas.subscription_life import tenures
from schemas.usage_query import Window
from schemas.zone import zone_of

METERS_SHOWN: Final = 12
"""Most meters whose usage a customer's page shows; the page of usage has them all."""

HEALTH_MONTHS: Final = 6
"""Months whose health a customer's page shows."""
PART_WORDS: Final[dict[str, tuple[str, str]]] = {
    "trend": ("Events a day, of the month before", "%"),
    "breadth": ("Meters used, of the catalog's", "%"),
    "recency": ("Since the last event", "days"),
    "limits": ("Quotas used up", ""),
    "engagement": ("Days with events", "%"),
    "nps": ("Mean answer within a year, 0 to 10", ""),
    "contacts": ("Support asked", "times"),
}
"""What a part of the health is called on the page, and its unit."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a customer stands now: the running bills, or the `problem` with them, and what was used this month."""

    bills: tuple[Preview, ...]
    problem: str
    used: tuple[MeterUse, ...]


class MeterUse(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a meter a customer used this month; None where that cannot be said, and why."""

    meter: str
    unit: str
    quantity: Decimal | None
    events_count: int
    problem: str = ""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription with the plan it has now (empty before and after), by the customer's clock."""

    subscription: Subscription
    plan: str
    plan_name: str
    plan_version: int
    state: str
    currency: str


def customer_routes(site: Site) -> list[Any]:
    """`GET /customers` and `GET /customer`."""
    standings = site.held_by_name("standing")
    healths = site.held_by_name("health")

    def count_health(name: str) -> list[CustomerHealth]:
        with site.database.own_client() as client:
            return health_of_customer(client, name, until=site.clock.now().date(), count=HEALTH_MONTHS)

    def count_standing(name: str) -> Standing:
        now = site.clock.now()
        with site.database.own_client() as client:
            catalog = site.database.catalog(client)
            bills, problem = _bills(client, name, now)
            return Standing(bills=bills, problem=problem, used=used_by(client, catalog, catalog.customers[name], now))

    @get("/customers", opt=needs(Scope.QUERY), sync_to_thread=True)
    def customers(
        request: Request[Any, Any, Any], search: FromQuery[str] = "", page: FromQuery[int] = 1
    ) -> Response[str]:
        principal = principal_of(request)
        with site.database.client() as client:
            catalog = site.database.catalog(client)
        found = found_customers(catalog, search.strip(), principal.customer)
        place = page_place(page, len(found))
        today = site.clock.now()
        return site.pages.page(
            request,
            "customers.html",
            principal=principal,
            search=search.strip(),
            place=place,
            rows=[(one, held_by(catalog, one, today)) for one in found[place.first : place.last]],
        )

    @get("/customer", opt=needs(Scope.QUERY), sync_to_thread=True)
    def customer(request: Request[Any, Any, Any], id: FromQuery[str]) -> Response[str]:  # noqa: A002 - what the address says
        principal = principal_of(request)
        name = only_customer(principal, id)
        now = site.clock.now()
        with site.database.client() as client:
            catalog = site.database.catalog(client)
            one = catalog.customers.get(name)
            if one is None:
                raise NotFoundError
            standings.begin(name, lambda: count_standing(name))
            # What is thought of a customer is not for the customer.
            shows_health = not principal.customer
            if shows_health:
                healths.begin(name, lambda: count_health(name))
            return site.pages.page(
                request,
                "customer.html",
                principal=principal,
                customer=one,
                held=held_by(catalog, one, now),
                standing=standings.get(name, lambda: count_standing(name)),
                health=healths.get(name, lambda: count_health(name)) if shows_health else None,
                part_words=PART_WORDS,
                meters_left=max(0, len(catalog.meters) - METERS_SHOWN),
                month=f"{now.astimezone(zone_of(one.timezone)):%Y-%m}",
                changes=events_of_customer(client, name),
                today=now.astimezone(zone_of(one.timezone)).date(),
                billed=runs_of_customer(client, name),
            )

    return [customers, customer]


def found_customers(catalog: AppliedCatalog, search: str, only: str) -> list[Customer]:
    """The customers whose id, name or subject has the searched text in it, by id. Pure."""
    wanted = search.casefold()
    return sorted(
        (
            one
            for one in catalog.catalog.customers
            if only in ("", one.id) and any(wanted in text.casefold() for text in (one.id, one.name, *one.subjects))
        ),
        key=lambda one: one.id,
    )


def held_by(catalog: AppliedCatalog, customer: Customer, now: datetime) -> list[Held]:
    """The customer's subscriptions, each with what it is now. Pure."""
    today = now.astimezone(zone_of(customer.timezone)).date()
    found = []
    for one in catalog.subscriptions_of(customer.id):
        tenure = next(
            (each for each in tenures(catalog, one) if each.start <= today and (each.end is None or today < each.end)),
            None,
        )
        state = "running" if tenure is not None else "ended" if one.start <= today else "not begun"
        if any(rest.start <= today and (rest.end is None or today < rest.end) for rest in one.pauses) and tenure:
            state = "paused"
        found.append(
            Held(
                subscription=one,
                plan=one.plan if tenure is None else tenure.plan.id,
                plan_name="" if tenure is None else tenure.plan.name,
                plan_version=0 if tenure is None else tenure.plan.version,
                state=state,
                currency=catalog.currency_of(one),
            )
        )
    return found


def used_by(client: Client, catalog: AppliedCatalog, customer: Customer, now: datetime) -> tuple[MeterUse, ...]:
    """What a customer used of each meter since its month began."""
    found = []
    for meter in list(catalog.meters.values())[:METERS_SHOWN]:
        parameters = UsageParameters(meter=meter.name, customers=(customer.id,), window=Window.TOTAL)
        try:
            rows = answer(client, catalog, query_of(parameters, catalog, now))
        except MeteringError as error:
            found.append(MeterUse(meter=meter.name, unit=meter.unit, quantity=None, events_count=0, problem=str(error)))
            continue
        found.append(
            MeterUse(
                meter=meter.name,
                unit=meter.unit,
                quantity=rows[0].quantity if rows else Decimal(0),
                events_count=rows[0].events_count if rows else 0,
            )
        )
    return tuple(found)


def _bills(client: Client, customer: str, now: datetime) -> tuple[tuple[Preview, ...], str]:
    """The running bills, or why there are none."""
    try:
        return tuple(preview(client, customer, RollupReader(client), now=now)), ""
    except MeteringError as error:
        return (), str(error)
