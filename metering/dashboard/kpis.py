"""KPIs by month, drawn beside their numbers, and how they stand against their goals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import msgspec
from litestar import Request, Response, get

from metering.dashboard.charts import Series, line_chart
from metering.dashboard.site import Site, who_sees_everybody
from metering.keys import Scope, needs
from metering.kpi_values import GoalState, KpiValue, goal_states, kpi_values
from schemas.kpi import Kpi

MONTHS_SHOWN: Final = 12
NAMES: Final[dict[str, str]] = {
    Kpi.MRR.value: "Monthly recurring revenue",
    Kpi.ARR.value: "Annual recurring revenue",
    Kpi.ARPU.value: "Revenue per user",
    Kpi.CLV.value: "Customer lifetime value",
    Kpi.CAC.value: "Customer acquisition cost",
    Kpi.CLV_TO_CAC.value: "Lifetime value to acquisition cost",
    Kpi.PAYBACK_MONTHS.value: "Months to pay back",
    Kpi.NPS.value: "Net promoter score",
    Kpi.PQL_TO_PAID_RATE.value: "Qualified leads that pay",
}
MONEY: Final = frozenset({Kpi.MRR, Kpi.ARR, Kpi.USAGE_REVENUE, Kpi.ARPU, Kpi.CLV, Kpi.CAC})
PERCENT: Final = frozenset(one for one in Kpi if one.value.endswith("_rate") or one.value.endswith("_retention"))


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One KPI in one currency: its months, oldest first, and its chart."""

    kpi: str
    currency: str
    name: str
    unit: str
    values: tuple[KpiValue, ...]
    chart: Any


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """All KPIs, and the newest state of each goal that has one, with its months before."""

    kpis: tuple[Shown, ...]
    goals: tuple[GoalState, ...]


def kpi_routes(site: Site) -> list[Any]:
    """`GET /kpis`."""

    def count_board() -> Board:
        since = months_before(site.clock.now().date(), MONTHS_SHOWN - 1)
        with site.database.own_client() as client:
            return board(kpi_values(client, since=since), goal_states(client, since=since), site.clock.now().date())

    held = site.held("kpis", count_board)

    @get("/kpis", opt=needs(Scope.QUERY), sync_to_thread=True)
    def kpis(request: Request[Any, Any, Any]) -> Response[str]:
        principal = who_sees_everybody(request)
        return site.pages.page(request, "kpis.html", principal=principal, board=held.get())

    return [kpis]


def months_before(day: date, count: int) -> date:
    """The first day of the month `count` months before that of `day`."""
    months = day.year * 12 + day.month - 1 - count
    return date(months // 12, months % 12 + 1, 1)


def board(values: Sequence[KpiValue], goals: Sequence[GoalState], today: date) -> Board:
    """What the page shows of what the views say, without months to come. Pure."""
    by_kpi: dict[tuple[str, str], list[KpiValue]] = {}
    for one in values:
        if one.month <= today:
            by_kpi.setdefault((one.kpi, one.currency), []).append(one)
    order = {one.value: place for place, one in enumerate(Kpi)}
    newest: dict[str, GoalState] = {}
    for goal in goals:
        if goal.month <= today:
            newest[goal.goal] = goal
    return Board(
        kpis=tuple(
            _shown(kpi, currency, by_kpi[kpi, currency])
            for kpi, currency in sorted(by_kpi, key=lambda key: (order.get(key[0], len(order)), key))
        ),
        goals=tuple(newest.values()),
    )


def _shown(kpi: str, currency: str, values: Sequence[KpiValue]) -> Shown:
    name = NAMES.get(kpi, kpi.replace("_", " ").capitalize())
    is_known = any(one.value is not None for one in values)
    return Shown(
        kpi=kpi,
        currency=currency,
        name=name,
        unit=unit_of(kpi, currency),
        values=tuple(values),
        chart=line_chart(
            f"{name} by month{f' in {currency}' if currency else ''}",
            [f"{one.month:%Y-%m}" for one in values],
            [Series(name=name, values=tuple(one.value for one in values))],
        )
        if is_known
        else None,
    )


def unit_of(kpi: str, currency: str) -> str:
    """What a KPI is counted in."""
    known = next((one for one in Kpi if one.value == kpi), None)
    if known in MONEY:
        return currency
    return "%" if known in PERCENT else ""
