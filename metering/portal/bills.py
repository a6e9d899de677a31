"""What was billed: the customer's bills, the lines of one, the same as CSV."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client
from litestar import Request, Response, get
from litestar.params import FromQuery

from billing_export import runs as run_store
from billing_export.export_csv import text_cell
from billing_export.line_pages import Total, line_page, runs_of_customer
from billing_export.run import Run
from metering.dashboard.pages import page_place
from metering.keys import NotFoundError
from metering.portal.links import PREFIX
from metering.portal.site import PortalSite, who_asks
from schemas.errors import RunError
from schemas.line_item import LineItem

CSV_LINES_MAX: Final = 100_000
CSV_COLUMNS: Final = (
    "id", "run", "period", "service_start", "service_end", "subscription", "charge", "description", "kind", "reason",
    "corrects", "dimensions", "quantity", "unit", "unit_amount", "amount_unrounded", "amount", "currency",
)  # fmt: skip


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen run that has lines of the customer, and what these come to by currency."""

    run: Run
    totals: tuple[Total, ...]


def bill_routes(site: PortalSite) -> list[Any]:
    """`GET /portal/bills`, `GET /portal/bill` and `GET /portal/bill.csv`."""

    @get(f"{PREFIX}/bills", sync_to_thread=True)
    def bills(request: Request[Any, Any, Any], page: FromQuery[int] = 1) -> Response[str]:
        customer = who_asks(site, request).customer
        with site.database.client() as client:
            found = bills_of(client, customer.id)
        place = page_place(page, len(found))
        shown = found[place.first : place.last]
        return site.page(request, "bills.html", customer=customer, bills=shown, place=place)

    @get(f"{PREFIX}/bill", sync_to_thread=True)
    def bill(request: Request[Any, Any, Any], run: FromQuery[str], page: FromQuery[int] = 1) -> Response[str]:
        customer = who_asks(site, request).customer
        with site.database.client() as client:
            one = bill_of(client, customer.id, run)
            place = page_place(page, sum(total.lines_count for total in one.totals))
            lines = line_page(client, one.run.id, customer=customer.id, first=place.first, count=place.size).lines
            at = run_store.closed_at(client, one.run)
        return site.page(request, "bill.html", customer=customer, bill=one, lines=lines, place=place, frozen_at=at)

    @get(f"{PREFIX}/bill.csv", sync_to_thread=True)
    def bill_csv(request: Request[Any, Any, Any], run: FromQuery[str]) -> Response[bytes]:
        customer = who_asks(site, request).customer
        with site.database.client() as client:
            one = bill_of(client, customer.id, run)
            lines = line_page(client, one.run.id, customer=customer.id, count=CSV_LINES_MAX).lines
        return Response(
            lines_csv(lines).encode(),
            media_type="text/csv",
            headers={"Content-Disposition": f'attachment; filename="bill-{one.run.id}.csv"'},
        )

    return [bills, bill, bill_csv]


def bills_of(client: Client, customer: str) -> list[Bill]:
    """The bills of a customer that are frozen, newest first."""
    totals: dict[str, list[Total]] = {}
    for total in runs_of_customer(client, customer):
        totals.setdefault(total.run, []).append(total)
    return [
        Bill(run=one, totals=tuple(totals[one.id]))
        for one in reversed(run_store.listed(client))
        if one.id in totals and one.is_frozen
    ]


def bill_of(client: Client, customer: str, run: str) -> Bill:
    """One bill. Raises NotFoundError for a run that is none, is not frozen, or has nothing of the customer."""
    try:
        one = run_store.by_id(client, run)
    except RunError as error:
        raise NotFoundError from error
    totals = tuple(total for total in runs_of_customer(client, customer) if total.run == one.id)
    if not totals or not one.is_frozen:
        raise NotFoundError
    return Bill(run=one, totals=totals)


def lines_csv(lines: Iterable[LineItem]) -> str:
    """What a customer needs of the lines, RFC 4180 with line feeds, harmless in a spreadsheet. Pure."""
    rows = [",".join(CSV_COLUMNS)]
    for line in lines:
        adjustment = line.adjustment
        texts = {
            "service_start": f"{line.service_start:%Y-%m-%dT%H:%M:%SZ}",
            "service_end": f"{line.service_end:%Y-%m-%dT%H:%M:%SZ}",
            "kind": line.kind.value,
            "reason": "" if adjustment is None else adjustment.reason,
            "dimensions": "; ".join(f"{name}={value}" for name, value in line.dimensions.items()),
        }
        cells = []
        for name in CSV_COLUMNS:
            if name in ("quantity", "unit_amount", "amount_unrounded", "amount"):
                cells.append(getattr(line, name) or "")
            else:
                cells.append(text_cell(texts[name] if name in texts else getattr(line, name) or ""))
        rows.append(",".join(cells))
    return "\n".join(rows) + "\n"
