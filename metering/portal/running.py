"""The first page: what the running periods come to so far, what is included and left, and how each charge is priced."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from clickhouse_connect.driver.client import Client
from litestar import Request, Response, get

from billing_export import runs as run_store
from billing_export.preview import Preview, previewed
from billing_export.running_account import ChargeAccount, accounts_of
from billing_export.usage_reader import RollupReader
from metering.portal.links import PREFIX
from metering.portal.site import PortalSite, who_asks
from schemas.errors import RunError


class RunningBill(msgspec.Struct, frozen=True, kw_only=True):
    """A running bill, and the account of each charge that is billed when its period is over."""

    bill: Preview
    accounts: tuple[ChargeAccount, ...]


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """The running bills; `is_held_up` where there is one that cannot be told while others are being made."""

    bills: tuple[RunningBill, ...]
    is_held_up: bool = False


def running_routes(site: PortalSite) -> list[Any]:
    """`GET /portal`."""
    bills = site.held_by_name("running bill")

    def count(name: str) -> Running:
        with site.database.own_client() as client:
            return running(client, name, now=site.clock.now())

    @get(PREFIX, sync_to_thread=True)
    def first(request: Request[Any, Any, Any]) -> Response[str]:
        asking = who_asks(site, request)
        name = asking.customer.id
        held = bills.get(name, lambda: count(name))
        return site.page(request, "running.html", customer=asking.customer, held=held)

    return [first]


def running(client: Client, customer: str, *, now: datetime) -> Running:
    """The bills of a customer as they stand now; none where nothing runs, and while a run is being closed."""
    try:
        found = previewed(client, customer, RollupReader(client), now=now)
    except RunError:
        # Its words are for who runs the pipeline. A customer is told whether to come back later.
        return Running(bills=(), is_held_up=bool(run_store.unfinished(client)))
    return Running(bills=tuple(RunningBill(bill=one.bill, accounts=tuple(accounts_of(one))) for one in found))
