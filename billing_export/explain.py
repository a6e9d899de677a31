"""Explains a frozen line: what was used, how it was priced, what reduces and corrects it, and whether it holds today.

All as of the run's cut and with its catalog: the line is made again from the same inputs, whatever came since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.assemble import Assembly, CustomerWork, answer_all
from billing_export.catalogs import Catalogs
from billing_export.explain_basis import based_on
from billing_export.explain_events import Counting, Tallied, event_page
from billing_export.explain_find import chain_of, find_line, reductions_of
from billing_export.explain_place import Place, place_of, promise_of
from billing_export.explain_records import (
    EventPage,
    Explanation,
    FromRun,
    Measured,
    Rating,
    Recomputed,
    WindowSum,
    relation_of,
    sum_of,
)
from billing_export.explain_steps import promise_rating, rating_of
from billing_export.explain_stock import BalanceShown, StockSoFar, balance_shown
from billing_export.lines import local_text
from billing_export.money import as_quantity, format_amount
from billing_export.readings import Answers, Reading, UsageReader, by_customers
from billing_export.run import Run
from billing_export.stocks import is_stock
from metering.usage.event_values import EventValuesQuery, opening_balances
from metering.usage.question import Question
from schemas.catalog import AppliedCatalog
from schemas.charges import FlatCharge
from schemas.errors import RequestError
from schemas.line_item import LineItem, LineKind
from schemas.meter import MeterVersion
from schemas.quantity import ZERO, add, format_quantity
from schemas.usage_query import By, UsageQuery, Window


class Explainer:
    """A line with its run and all that its customer's bill was made from, read once."""

    def __init__(self, client: Client, text: str, read_usage: UsageReader) -> None:
        self._client = client
        self._read_usage = read_usage
        self.line = find_line(client, text)
        self.run: Run = runs.by_id(client, self.line.run)
        # The lines of one customer do not depend on who else is in the run.
        narrowed = msgspec.structs.replace(self.run, customers=(self.line.customer,))
        self._assembly = Assembly(client, narrowed, Catalogs(client))
        self._part = self._assembly.part(0)
        questions = by_customers(question for work in self._part for question in work.questions())
        self._answers: Answers = answer_all(self._assembly, questions, read_usage)

    @property
    def _work(self) -> CustomerWork:
        return self._part[0]

    def place(self) -> Place | None:
        """Where the line comes from, when it is the line of a charge that is still called for."""
        if self.line.kind not in (LineKind.USAGE, LineKind.FLAT):
            return None
        return place_of(self._assembly, self._work, self._answers, self.line)

    def explain(self, window: Window = Window.DAY) -> Explanation:
        """The whole account, with what was used by `window`."""
        line = self.line
        chain = chain_of(self._client, line)
        before = [one for one in chain if one.revision < line.revision]
        reductions = reductions_of(self._client, line)
        place = self.place()
        rating: Rating | None = None
        based = based_on(self._client, self.run, self._assembly.catalogs, line)
        if place is not None:
            rating = rating_of(place, self._answers, line, before)
        elif line.kind is LineKind.TRUE_UP:
            promise = promise_of(self._assembly, self._work, self._answers, line)
            if promise is not None:
                rating = promise_rating(promise, line, before)
                based = msgspec.structs.replace(
                    based, bases=(based.of_lines("lines that count for it", [one.item for one in promise.counted]),)
                )
        net = add(Decimal(line.amount), sum_of(reductions))
        return Explanation(
            line=line,
            run=FromRun(
                id=self.run.id,
                sequence=self.run.sequence,
                at=runs.closed_at(self._client, self.run),
                cut=self.run.cut,
                catalog_version=self.run.catalog_version,
                code_version=self.run.code_version,
            ),
            notes=(*_notes(line, is_called_for=rating is not None), *based.notes),
            meter=None if place is None else self._measured(place, window),
            amounts=None if place is None else self._amounts(place, window),
            rating=rating,
            based_on=based.bases,
            reductions=tuple(relation_of(one) for one in reductions),
            net_amount=format_amount(net),
            chain=tuple(relation_of(one) for one in chain),
            recomputed=recomputed(line, self._assembly.lines(self._part, self._answers)),
        )

    def events(self, *, page: int, page_size: int, of_amounts: bool = False) -> EventPage:
        """A page of the events behind the line, counted from 1; or of those that say what a dynamic charge costs.

        For a line that corrects another these are the events of the whole, as of this run's cut.
        Raises RequestError for a line that has none.
        """
        place = self.place()
        needs = None if place is None else place.priceable.needs
        if place is None or needs is None:
            raise RequestError(
                f"line {self.line.id} is a {self.line.kind.value.replace('_', ' ')} line, which has no events",
                where="--events",
                fix="Look at the lines it follows from, without --events",
            )
        asked = needs.amounts if of_amounts else needs.usage
        if asked is None:
            raise RequestError(
                f"line {self.line.id} is not of a dynamic charge: its events say no amounts",
                where="--amounts",
                fix="List the events of its quantity with --events",
            )
        query = self.query_of(asked, Window(asked.ask.value))
        segment, meter = place.priceable.segment, place.catalog.meters[query.meter]
        counting: Callable[[Question], Counting] = Tallied
        opening: Decimal | None = None
        charge = segment.charge
        if is_stock(meter) and not isinstance(charge, FlatCharge):
            opening = self._opening(place.catalog, query)
            stock = StockSoFar(segment, charge, meter, opening)
            counting = lambda _: stock  # noqa: E731 - one of two ways to count
        return event_page(
            self._client,
            place.catalog,
            query,
            self.line.dimensions,
            counting=counting,
            page=page,
            page_size=page_size,
            opening=opening,
        )

    def _opening(self, catalog: AppliedCatalog, query: UsageQuery) -> Decimal:
        """The balance with which the time of the line began."""
        asked = EventValuesQuery(
            meter=query.meter,
            start=query.start,
            end=query.end,
            customers=query.customers,
            group_by=query.group_by,
            cut=query.cut,
        )
        values = tuple(self.line.dimensions[name] for name in query.group_by)
        found = opening_balances(self._client, catalog, asked)
        return next((one.balance for one in found if one.dimensions == values), ZERO)

    def query_of(self, asked: Reading, window: Window) -> UsageQuery:
        """What was asked of the usage for a line, by `window`."""
        return UsageQuery(
            meter=asked.meter,
            start=asked.start,
            end=asked.end,
            window=window,
            timezone=self.line.timezone,
            by=By.CUSTOMER,
            customers=(self.line.customer,),
            group_by=asked.group_by,
            cut=self.run.cut,
        )

    def _measured(self, place: Place, window: Window) -> Measured | None:
        needs = place.priceable.needs
        if needs is None:
            return None
        segment, meter = place.priceable.segment, place.catalog.meters[needs.usage.meter]
        charge, balance = segment.charge, None
        if is_stock(meter) and not isinstance(charge, FlatCharge):
            balance = balance_shown(segment, charge, meter)
        return self._windows(place.catalog, needs.usage, window, place.priced.measure.quantity, balance)

    def _amounts(self, place: Place, window: Window) -> Measured | None:
        needs = place.priceable.needs
        if needs is None or needs.amounts is None:
            return None
        return self._windows(place.catalog, needs.amounts, window, as_quantity(place.priced.usage.amount or ZERO))

    def _windows(
        self,
        catalog: AppliedCatalog,
        asked: Reading,
        window: Window,
        total: Decimal,
        balance: BalanceShown | None = None,
    ) -> Measured:
        """What a meter says of the line, by `window`."""
        query = self.query_of(asked, window)
        meter = catalog.meters[query.meter]
        rows = [one for one in self._read_usage.usage(catalog, query) if one.dimensions == self.line.dimensions]
        return Measured(
            name=meter.name,
            unit=meter.unit,
            versions=_in_force(catalog.versions_of(meter.name), query.start, query.end),
            dimensions=self.line.dimensions,
            start=query.start,
            end=query.end,
            timezone=query.timezone,
            catalog_version=catalog.version,
            window=window.value,
            windows=tuple(
                WindowSum(
                    start=one.window_start,
                    end=one.window_end,
                    local=local_text(one.window_start, query.timezone),
                    quantity=format_quantity(
                        one.quantity if balance is None else balance.quantity(one.integral or ZERO)
                    ),
                    events_count=one.events_count,
                )
                for one in rows
            ),
            quantity=format_quantity(total),
            time_unit="" if balance is None else balance.time_unit,
            note="" if balance is None else balance.note,
        )


def explain(client: Client, text: str, read_usage: UsageReader, *, window: Window = Window.DAY) -> Explanation:
    """How the line with this id (or the only one that begins like it) came about.

    Raises RequestError where there is no such line or more than one, RunError where it is not frozen.
    """
    return Explainer(client, text, read_usage).explain(window)


def recomputed(line: LineItem, made: Sequence[LineItem]) -> Recomputed:
    """A frozen line against the line of its id among those made again. Pure."""
    again = next((one for one in made if one.id == line.id), None)
    if again is None:
        return Recomputed(
            quantity=None, amount_unrounded=None, amount=None, differences=("nothing calls for this line any more",)
        )
    return Recomputed(
        quantity=again.quantity,
        amount_unrounded=again.amount_unrounded,
        amount=again.amount,
        differences=tuple(
            f"{name} is frozen as {getattr(line, name)!s}, computed again it is {getattr(again, name)!s}"
            for name in LineItem.__struct_fields__
            if getattr(line, name) != getattr(again, name)
        ),
    )


def _in_force(versions: Sequence[MeterVersion], start: datetime, end: datetime) -> tuple[MeterVersion, ...]:
    return tuple(
        one for one in versions if (one.start is None or one.start < end) and (one.end is None or one.end > start)
    )


def _notes(line: LineItem, *, is_called_for: bool) -> list[str]:
    """What the reader has to know to read the rest."""
    notes: list[str] = []
    adjustment = line.adjustment
    if adjustment is not None:
        what = f"corrects line {line.corrects}" if line.corrects else "bills what no line was there for"
        notes.append(
            f"It {what} ({adjustment.reason.replace('_', ' ')}): the whole was rated again, quantity "
            f"{adjustment.quantity_before} became {adjustment.quantity_after}, amount {adjustment.amount_before} "
            f"became {adjustment.amount_after} {line.currency}."
        )
        if not is_called_for and line.kind in (LineKind.USAGE, LineKind.FLAT, LineKind.TRUE_UP):
            notes.append("Nothing calls for what it corrects any more, so all that was billed for it is taken back.")
    if (line.service_start, line.service_end) != (line.period_start, line.period_end):
        notes.append(
            f"It is for a part of the period, {local_text(line.service_start, line.timezone)} to "
            f"{local_text(line.service_end, line.timezone)}."
        )
    return notes
