"""Billing runs: what was billed, corrected and sent out, and the proof of it."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response, get, post
from litestar.params import FromQuery
from litestar.response import Redirect

from billing_export import runs as run_store
from billing_export.line_pages import (
    Total,
    WhichLines,
    deliveries_of,
    line_page,
    runs_of_customer,
    totals_by_customer,
    totals_by_run,
)
from billing_export.run import Run
from metering import audit_log
from metering.audit_log import Action
from metering.dashboard.checks import Checks
from metering.dashboard.pages import address, page_place
from metering.dashboard.site import Site, only_customer, who_sees_everybody
from metering.keys import NotFoundError, Principal, Scope, needs
from metering.principal import principal_of
from schemas.errors import RunError

CUSTOMERS_SHOWN: Final = 50


def run_routes(site: Site) -> list[Any]:
    """`GET /runs`, `GET /run` and `POST /run/verify`."""
    checks = Checks(site.database, site.clock)

    @get("/runs", opt=needs(Scope.QUERY), sync_to_thread=True)
    def runs(request: Request[Any, Any, Any], page: FromQuery[int] = 1) -> Response[str]:
        principal = principal_of(request)
        with site.database.client() as client:
            found = run_store.listed(client)[::-1]
            if principal.customer:
                billed = {one.run for one in runs_of_customer(client, principal.customer)}
                found = [one for one in found if one.id in billed]
            place = page_place(page, len(found))
            listed = found[place.first : place.last]
            totals: dict[str, list[Total]] = {}
            for one in totals_by_run(client, [each.id for each in listed], customer=principal.customer):
                totals.setdefault(one.run, []).append(one)
        return site.pages.page(request, "runs.html", principal=principal, runs=listed, totals=totals, place=place)

    @get("/run", opt=needs(Scope.QUERY), sync_to_thread=True)
    def run(
        request: Request[Any, Any, Any],
        id: FromQuery[str],  # noqa: A002 - what the address says
        customer: FromQuery[str] = "",
        which: FromQuery[WhichLines] = WhichLines.ALL,
        page: FromQuery[int] = 1,
    ) -> Response[str]:
        principal = principal_of(request)
        only = only_customer(principal, customer.strip())
        with site.database.client() as client:
            one = _run(client, id)
            place = page_place(page, line_page(client, one.id, customer=only, which=which, count=0).lines_count)
            lines = line_page(client, one.id, customer=only, which=which, first=place.first, count=place.size).lines
            totals = totals_by_run(client, [one.id], customer=only)
            if principal.customer and not totals:
                raise NotFoundError
            is_whole = not only
            return site.pages.page(
                request,
                "run.html",
                principal=principal,
                run=one,
                only=only,
                which=which,
                choices=list(WhichLines),
                place=place,
                lines=lines,
                totals=totals,
                by_customer=totals_by_customer(client, one.id, count=CUSTOMERS_SHOWN) if is_whole else [],
                deliveries=[] if principal.customer else deliveries_of(client, one.id),
                exports=[] if principal.customer else audit_log.entries(client, action=Action.RUN_EXPORTED, of=one.id),
                closed_at=run_store.closed_at(client, one),
                check=None if principal.customer else checks.last(one.id),
                may_verify=may_verify(principal) and one.is_frozen,
            )

    @post("/run/verify", opt=needs(Scope.EXPORT), status_code=303)
    async def verify(request: Request[Any, Any, Any]) -> Redirect:
        who_sees_everybody(request)
        name = (await site.guard.checked_form(request)).get("id", "")
        await site.in_thread(lambda: _begin(name))
        return Redirect(address("/run", id=name) + "#proof", status_code=303)

    def _begin(name: str) -> None:
        with site.database.client() as client:
            one = _run(client, name)
        if not one.is_frozen:
            raise RunError(f"run {one.id} is not frozen yet", where="verify", fix="Finish its close first")
        checks.begin(one.id)

    return [runs, run, verify]


def may_verify(principal: Principal) -> bool:
    """Whether a principal may have a run proved, which reads every event of it."""
    return Scope.EXPORT in principal.scopes and not principal.customer


def _run(client: Any, name: str) -> Run:
    try:
        return run_store.by_id(client, name)
    except RunError as error:
        raise NotFoundError from error
