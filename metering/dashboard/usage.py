"""How much was used: a question, its answer as chart, table and CSV, and the SQL that it is read with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, get
from litestar.params import FromQuery, QueryParameter

from metering.dashboard.charts import POINTS_MAX, SERIES_MAX, Series, bar_chart, line_chart
from metering.dashboard.held import Shown
from metering.dashboard.pages import page_place
from metering.dashboard.site import Site
from metering.keys import NotFoundError, Principal, Scope, needs
from metering.principal import principal_of
from metering.usage.answer import answer
from metering.usage.parameters import UsageParameters, query_of
from metering.usage.present import local_text, to_csv
from metering.usage.question import check_question
from metering.usage.restricted import restricted
from metering.usage.statement_text import sql_text, statements_of
from metering.usage.windows import from_us, plan_windows
from schemas.catalog import AppliedCatalog
from schemas.errors import RequestError
from schemas.meter import Aggregation
from schemas.quantity import ZERO, add
from schemas.usage_query import By, UsageQuery, UsageRow, Window
from schemas.zone import zone_of

ROWS_SHOWN: Final = 100
FRESH_S: Final = 5.0
"""How old an answer on a page may be: paging through it asks once."""
NAMES_OFFERED: Final = 200
"""Most customers that a field offers; others can be written all the same."""
ADDITIVE: Final = frozenset({Aggregation.COUNT, Aggregation.SUM, Aggregation.TIME_WEIGHTED})
"""What can be stood on each other and added up over windows."""
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the form says; texts as they were written."""

    meter: str = ""
    customer: str = ""
    start: str = ""
    end: str = ""
    window: Window = Window.DAY
    timezone: str = ""
    by: By = By.CUSTOMER
    group_by: tuple[str, ...] = ()

    def address_parts(self) -> dict[str, Any]:
        """The parameters of an address that asks the same."""
        return {
            "meter": self.meter,
            "customer": self.customer,
            "from": self.start,
            "to": self.end,
            "window": self.window.value,
            "timezone": self.timezone,
            "by": self.by.value,
            "group_by": list(self.group_by),
        }


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A question as it was understood, with its rows."""

    catalog: AppliedCatalog
    query: UsageQuery
    rows: list[UsageRow]

    @property
    def aggregation(self) -> Aggregation:
        return self.catalog.meters[self.query.meter].aggregation

    @property
    def total(self) -> Decimal | None:
        """The sum of the rows, where they can be added up."""
        if self.aggregation not in ADDITIVE:
            return None
        total = ZERO
        for row in self.rows:
            total = add(total, row.quantity)
        return total


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a question: an answer, a `problem` with it, or that there is no such thing for who asks."""

    found: Answered | None = None
    problem: str = ""
    is_absent: bool = False


def usage_routes(site: Site) -> list[Any]:
    """`GET /usage` and `GET /usage.csv`."""
    answers = site.held_by_name("usage", fresh_s=FRESH_S)

    def told(asked: Asked, principal: Principal) -> Told:
        """The answer to show, or why there is none; what is not there for the principal is raised by the page."""
        try:
            return Told(found=answered(asked, principal))
        except NotFoundError:
            return Told(is_absent=True)
        except RequestError as error:
            return Told(problem=str(error))

    def answered(asked: Asked, principal: Principal) -> Answered:
        parameters = UsageParameters(
            meter=asked.meter,
            customers=(asked.customer,) if asked.customer else (),
            start=asked.start or None,
            end=asked.end or None,
            window=asked.window,
            timezone=asked.timezone or None,
            by=asked.by,
            group_by=asked.group_by,
        )
        with site.database.client() as client:
            catalog = site.database.catalog(client)
            if principal.customer:
                parameters = restricted(parameters, principal.customer, catalog)
            query = query_of(parameters, catalog, site.clock.now())
            rows = answer(client, catalog, query, rows_max=site.settings.query_rows_max)
        return Answered(catalog=catalog, query=query, rows=rows)

    @get("/usage", opt=needs(Scope.QUERY), sync_to_thread=True)
    def usage(
        request: Request[Any, Any, Any],
        *,
        meter: FromQuery[str] = "",
        customer: FromQuery[str] = "",
        start: Annotated[str, QueryParameter(name="from")] = "",
        end: Annotated[str, QueryParameter(name="to")] = "",
        window: FromQuery[Window] = Window.DAY,
        timezone: FromQuery[str] = "",
        by: FromQuery[By] = By.CUSTOMER,
        group_by: FromQuery[list[str] | None] = None,
        page: FromQuery[int] = 1,
    ) -> Response[str]:
        principal = principal_of(request)
        with site.database.client() as client:
            catalog = site.database.catalog(client)
        chosen = meter or next(iter(catalog.meters), "")
        known = catalog.meters[chosen].group_by if chosen in catalog.meters else {}
        asked = Asked(
            meter=chosen,
            customer=customer.strip(),
            start=start.strip(),
            end=end.strip(),
            window=window,
            timezone=timezone.strip(),
            by=by,
            # Another meter has other dimensions; the form that is shown has those that are left.
            group_by=tuple(name for name in group_by or () if name in known),
        )
        check_customer(asked, principal, catalog)
        held: Shown[Told] = Shown(value=Told())
        if chosen:
            held = answers.get((principal.customer, asked), lambda: told(asked, principal))
        answer_told = held.value or Told()
        if answer_told.is_absent:
            raise NotFoundError
        found = answer_told.found
        return site.pages.page(
            request,
            "usage.html",
            principal=principal,
            asked=asked,
            parts_of_address=asked.address_parts(),
            meters=list(catalog.meters.values()),
            dimensions=sorted(known),
            customers=[] if principal.customer else [one.id for one in catalog.catalog.customers[:NAMES_OFFERED]],
            windows=list(Window),
            who=[By.CUSTOMER, By.SUBJECT, By.EVERYTHING],
            date_type={
                name: "date" if not text or _DAY.fullmatch(text) else "text"
                for name, text in (("from", asked.start), ("to", asked.end))
            },
            held=held,
            found=found,
            problem=answer_told.problem,
            **({} if found is None else shown(found, page)),
        )

    @get("/usage.csv", opt=needs(Scope.QUERY), sync_to_thread=True)
    def usage_csv(
        request: Request[Any, Any, Any],
        *,
        meter: FromQuery[str],
        customer: FromQuery[str] = "",
        start: Annotated[str, QueryParameter(name="from")] = "",
        end: Annotated[str, QueryParameter(name="to")] = "",
        window: FromQuery[Window] = Window.DAY,
        timezone: FromQuery[str] = "",
        by: FromQuery[By] = By.CUSTOMER,
        group_by: FromQuery[list[str] | None] = None,
    ) -> Response[bytes]:
        asked = Asked(
            meter=meter, customer=customer, start=start, end=end, window=window, timezone=timezone, by=by,
            group_by=tuple(group_by or ()),
        )  # fmt: skip
        found = answered(asked, principal_of(request))
        return Response(
            to_csv(found.catalog, found.query, found.rows).encode(),
            media_type="text/csv",
            headers={"Content-Disposition": f'attachment; filename="usage-{found.query.meter}.csv"'},
        )

    return [usage, usage_csv]


def check_customer(asked: Asked, principal: Principal, catalog: AppliedCatalog) -> None:
    """Raise NotFoundError at once, not when it was counted, where one customer's key asks about another, or nobody."""
    if principal.customer:
        named = UsageParameters(meter=asked.meter, customers=(asked.customer,) if asked.customer else ())
        restricted(named, principal.customer, catalog)


def shown(found: Answered, page: int) -> dict[str, Any]:
    """What the page says of an answer: a part of its rows, a chart, the statements. Pure."""
    query = found.query
    place = page_place(page, len(found.rows), ROWS_SHOWN)
    labels, series, series_count = chart_data(found)
    return {
        "meter": found.catalog.meters[query.meter],
        "place": place,
        "rows": [
            (window_text(query, row), row.who, list(row.dimensions.values()), row.quantity, row.events_count)
            for row in found.rows[place.first : place.last]
        ],
        "total": found.total,
        "events_total": sum(row.events_count for row in found.rows),
        "chart": drawn(found, labels, series) if labels and series else None,
        "series": [one.name for one in series],
        "series_count": series_count,
        "points_max": POINTS_MAX,
        "start": local_text(query, query.start),
        "end": local_text(query, query.end),
        "statements": [sql_text(one) for one in statements_of(check_question(found.catalog, query))],
    }


def chart_data(found: Answered) -> tuple[list[str], list[Series], int]:
    """Labels and the largest series of an answer, and how many series there are; nothing for too many windows. Pure."""
    query, totals = found.query, dict[str, Decimal]()
    values: dict[str, dict[str, Decimal]] = {}
    labels = window_labels(query)
    for row in found.rows:
        parts = [row.who, *row.dimensions.values()] if query.by is not By.EVERYTHING else [*row.dimensions.values()]
        name, label = ", ".join(parts) or found.query.meter, window_text(query, row)
        if query.window is Window.TOTAL:
            # One bar for each, in one colour.
            name, label = found.query.meter, name
        totals[name] = add(totals.get(name, ZERO), abs(row.quantity))
        values.setdefault(name, {})[label] = row.quantity
    if query.window is Window.TOTAL:
        bars = values.get(found.query.meter, {})
        labels = sorted(bars, key=lambda label: (-bars[label], label))[: POINTS_MAX // 4]
    names = sorted(values, key=lambda name: (-totals[name], name))
    if len(labels) > POINTS_MAX:
        return [], [], len(names)
    empty = ZERO if found.aggregation in ADDITIVE else None
    series = [
        Series(name=name, values=tuple(values[name].get(label, empty) for label in labels))
        for name in names[:SERIES_MAX]
    ]
    return labels, series, len(names)


def drawn(found: Answered, labels: Sequence[str], series: Sequence[Series]) -> Any:
    """The chart: bars of what adds up, lines of the rest."""
    is_bars = found.aggregation in ADDITIVE or found.query.window is Window.TOTAL
    unit = found.catalog.meters[found.query.meter].unit
    title = f"{found.query.meter}{f' in {unit}' if unit else ''}, by {found.query.window.value}"
    return (bar_chart if is_bars else line_chart)(title, labels, series)


def window_labels(query: UsageQuery) -> list[str]:
    """The names of all windows of a question, those without usage too."""
    if query.window is Window.TOTAL:
        return []
    edges = plan_windows(query.start, query.end, query.window, zone_of(query.timezone)).edges_us
    return [_window_text(query, from_us(edge)) for edge in edges[:-1]]


def window_text(query: UsageQuery, row: UsageRow) -> str:
    """The name of a row's window; empty for the whole range."""
    return "" if query.window is Window.TOTAL else _window_text(query, row.window_start)


def _window_text(query: UsageQuery, start: Any) -> str:
    local = start.astimezone(zone_of(query.timezone))
    match query.window:
        case Window.MONTH:
            return f"{local:%Y-%m}"
        case Window.DAY:
            return f"{local:%Y-%m-%d}"
        case _:
            return f"{local:%Y-%m-%d %H:%M%z}"
