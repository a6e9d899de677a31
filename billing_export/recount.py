"""Counts usage anew from events, one at a time, in plain decimals: what verify holds the frozen lines against.

Shares the reading of an event and of its measurement with the pipeline, and nothing that the rollups go through.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from billing_export.readings import Ask, Event, Reading
from billing_export.stocks import is_stock
from metering.usage.question import changes_balance
from metering.usage.windows import from_us, plan_windows, to_us
from schemas.catalog import AppliedCatalog
from schemas.errors import EventRejectedError
from schemas.group_overflow import NO_OVERFLOWS, Overflows
from schemas.meter import Aggregation, EventReader, Measurement, Meter, MeterVersion, TimeUnit, measure, paths_of
from schemas.quantity import EXACT, ZERO, add
from schemas.rollup import DIGEST_MODULUS, average, time_weighted
from schemas.usage_event import UsageEvent
from schemas.usage_query import Cut, UsageQuery, UsageRow, Window
from schemas.zone import zone_of

_TOTALLED: Final = frozenset({Aggregation.SUM, Aggregation.AVG})
_MICROSECOND: Final = timedelta(microseconds=1)
BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Recounted(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it stands in the log: its place, and the digest of its bytes."""

    event: UsageEvent
    epoch: str
    partition: int
    offset: int
    digest: int

    @property
    def order(self) -> tuple[datetime, str, int, int]:
        return (self.event.time, self.epoch, self.partition, self.offset)


class _Value(msgspec.Struct, frozen=True, gc=False, order=True):
    """An event's value at its place in time and in the log."""

    at: tuple[datetime, str, int, int]
    value: Decimal
    digest: int


class _Tally:
    """What was seen for one line, or one window of it. Grows with the members of unique_count."""

    __slots__ = ("aggregation", "count", "digest", "greatest", "latest", "least", "members", "total")

    def __init__(self, aggregation: Aggregation) -> None:
        self.aggregation = aggregation
        self.count = 0
        self.digest = 0
        self.total = ZERO
        self.least: Decimal | None = None
        self.greatest: Decimal | None = None
        self.latest: _Value | None = None
        self.members: set[str] = set()

    def add(self, one: Recounted, measured: Measurement) -> None:
        self.count += 1
        self.digest = (self.digest + one.digest) % DIGEST_MODULUS
        aggregation, value = self.aggregation, measured.value
        if aggregation is Aggregation.UNIQUE_COUNT:
            self.members.add(measured.member)
        elif aggregation in _TOTALLED:
            self.total = add(self.total, value)
        elif aggregation is Aggregation.MIN:
            self.least = value if self.least is None else min(self.least, value)
        elif aggregation is Aggregation.MAX:
            self.greatest = value if self.greatest is None else max(self.greatest, value)
        elif aggregation is Aggregation.LATEST and (self.latest is None or one.order > self.latest.at):
            self.latest = _Value(one.order, value, one.digest)

    def quantity(self) -> Decimal:
        found: dict[Aggregation, Decimal | None] = {
            Aggregation.COUNT: Decimal(self.count),
            Aggregation.SUM: self.total,
            Aggregation.MIN: self.least,
            Aggregation.MAX: self.greatest,
            Aggregation.AVG: average(self.total, self.count),
            Aggregation.LATEST: self.latest.value if self.latest else None,
            Aggregation.UNIQUE_COUNT: Decimal(len(self.members)),
        }
        return found[self.aggregation] or ZERO


class _Answer:
    """What one question about one customer has come to so far: tallies by dimensions and window, or kept values."""

    __slots__ = ("edges", "is_kept", "is_stock", "reading", "tallies", "values")

    def __init__(self, reading: Reading, edges: tuple[int, ...] | None, *, is_stock: bool) -> None:
        self.reading = reading
        self.edges = edges
        self.is_stock = is_stock
        self.is_kept = is_stock or reading.ask is Ask.EVENTS
        self.tallies: dict[tuple[tuple[str, ...], int], _Tally] = {}
        self.values: dict[tuple[str, ...], list[_Value]] = {}

    def add(self, one: Recounted, meter: Meter, measured: Measurement) -> None:
        """Count an event if it lies in the time that is asked about, or before it where it changes a balance."""
        reading, time = self.reading, one.event.time
        is_before = time < reading.start
        if time >= reading.end or (is_before and not (self.is_stock and changes_balance(meter))):
            return
        dimensions: tuple[str, ...] = ()
        if reading.group_by:
            named = dict(zip(sorted(meter.group_by), measured.dimensions, strict=True))
            dimensions = tuple([named.get(name, "") for name in reading.group_by])
        if self.is_kept:
            self.values.setdefault(dimensions, []).append(_Value(one.order, measured.value, one.digest))
            return
        place = (dimensions, 0 if self.edges is None else bisect_right(self.edges, to_us(time)) - 1)
        tally = self.tallies.get(place)
        if tally is None:
            tally = self.tallies[place] = _Tally(meter.aggregation)
        tally.add(one, measured)


class _OfCatalog:
    """What one catalog version has to do with an event: who owns it, and which meters measure it."""

    def __init__(self, catalog: AppliedCatalog, asked: Mapping[Reading, Sequence[str]]) -> None:
        self.catalog = catalog
        self.asked: dict[tuple[str, str], list[Reading]] = {}
        for reading, customers in asked.items():
            for customer in customers:
                self.asked.setdefault((customer, reading.meter), []).append(reading)
        self.answers: dict[tuple[str, str], list[_Answer]] = {}
        self.versions: dict[str, list[MeterVersion]] = {}
        for name in sorted({reading.meter for reading in asked}):
            for version in catalog.versions_of(name):
                self.versions.setdefault(version.meter.event_type, []).append(version)
        self._readers = {
            event_type: EventReader(frozenset(path for one in versions for path in paths_of(one.meter)))
            for event_type, versions in self.versions.items()
        }

    def measured(self, one: Recounted, overflows: Overflows) -> Iterator[tuple[tuple[str, str], Meter, Measurement]]:
        """(customer and meter, the meter, its measurement); a value that cannot be read counts for nobody."""
        event, place = one.event, (one.epoch, one.partition, one.offset)
        versions = self.versions.get(event.type)
        customer = self.catalog.customer_of(event.subject)
        if versions is None or customer is None:
            return
        fields = self._readers[event.type].read(event)
        for version in versions:
            whose = (customer.id, version.meter.name)
            if whose not in self.asked or not _in_force(version, event.time):
                continue
            try:
                measured = measure(version.meter, fields)
            except EventRejectedError:
                continue
            if measured is not None:
                dimensions = overflows.dimensions(version, event, place, measured.dimensions)
                if dimensions is not measured.dimensions:
                    measured = msgspec.structs.replace(measured, dimensions=dimensions)
                yield whose, version.meter, measured


class Recount:
    """Answers questions from events. `add` events in any order, each once, then ask: the `UsageReader` of verify."""

    def __init__(self, load: Callable[[int], AppliedCatalog], asked: Mapping[Reading, Sequence[str]]) -> None:
        self.overflows = NO_OVERFLOWS
        """Which values are counted under `other`; to be set before the first event."""
        of_version: dict[int, dict[Reading, Sequence[str]]] = {}
        for reading, customers in asked.items():
            of_version.setdefault(reading.catalog_version, {})[reading] = customers
        self._catalogs = {version: _OfCatalog(load(version), some) for version, some in sorted(of_version.items())}
        self._edges = {one: _edges(one) for one in asked if one.ask in (Ask.HOUR, Ask.DAY)}
        self._stocks = {one for one in asked if is_stock(load(one.catalog_version).meters[one.meter])}
        self._asked = asked

    @property
    def event_types(self) -> tuple[str, ...]:
        """The types that any of the questions is about."""
        return tuple(sorted({name for one in self._catalogs.values() for name in one.versions}))

    @property
    def meters(self) -> tuple[str, ...]:
        """The meters that any of the questions is about."""
        return tuple(sorted({one.meter for one in self._asked}))

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        """The time that is asked about, all of the past where a balance is; None when nothing is asked."""
        if not self._asked:
            return None
        start = BEGINNING if self._stocks else min(one.start for one in self._asked)
        return start, max(one.end for one in self._asked)

    def add(self, one: Recounted) -> None:
        """Count an event wherever it belongs."""
        for of_catalog in self._catalogs.values():
            for whose, meter, measured in of_catalog.measured(one, self.overflows):
                answers = of_catalog.answers.get(whose)
                if answers is None:
                    answers = of_catalog.answers[whose] = [self._begin(each) for each in of_catalog.asked[whose]]
                for answer in answers:
                    answer.add(one, meter, measured)

    def _begin(self, reading: Reading) -> _Answer:
        return _Answer(reading, self._edges.get(reading), is_stock=reading in self._stocks)

    def _answer(self, customer: str, reading: Reading) -> _Answer:
        """What a question has come to; an empty one when the customer has no event for it."""
        answers = self._catalogs[reading.catalog_version].answers.get((customer, reading.meter), ())
        return next((one for one in answers if one.reading == reading), None) or self._begin(reading)

    def usage(self, catalog: AppliedCatalog, query: UsageQuery) -> Sequence[UsageRow]:
        """The rows for one of the questions."""
        reading = Reading(
            catalog_version=catalog.version,
            meter=query.meter,
            group_by=query.group_by,
            start=query.start,
            end=query.end,
            ask=Ask(query.window.value),
            timezone=query.timezone if query.window is not Window.TOTAL else "",
        )
        if reading not in self._asked:
            raise LookupError(f"nobody asked for {reading}")
        if reading in self._stocks:
            unit = catalog.meters[reading.meter].time_unit
            return [row for one in query.customers or () for row in self._stock_rows(one, reading, unit)]
        edges = self._edges.get(reading)
        rows: list[UsageRow] = []
        for customer in query.customers or ():
            tallies = self._answer(customer, reading).tallies
            for dimensions, window in sorted(tallies):
                tally = tallies[dimensions, window]
                rows.append(
                    UsageRow(
                        who=customer,
                        window_start=query.start if edges is None else from_us(edges[window]),
                        window_end=query.end if edges is None else from_us(edges[window + 1]),
                        dimensions=dict(zip(query.group_by, dimensions, strict=True)),
                        quantity=tally.quantity(),
                        events_count=tally.count,
                        digest=tally.digest,
                    )
                )
        return rows

    def events(self, catalog: AppliedCatalog, reading: Reading, customers: Sequence[str], cut: Cut) -> Iterable[Event]:
        """Each event's value in time order, the balance at the start first; counted as of the cut of all events."""
        if reading not in self._asked or catalog.version != reading.catalog_version or not cut.positions:
            raise LookupError(f"nobody asked for {reading}")
        for customer in customers:
            for dimensions, values in sorted(self._answer(customer, reading).values.items()):
                opening = ZERO
                for one in values:
                    if one.at[0] < reading.start:
                        opening = add(opening, one.value)
                if opening:
                    yield Event(customer, dimensions, reading.start, opening, 0, 0)
                for one in sorted(values):
                    if one.at[0] >= reading.start:
                        yield Event(customer, dimensions, one.at[0], one.value, 1, one.digest)

    def _stock_rows(self, customer: str, reading: Reading, unit: TimeUnit) -> Iterator[UsageRow]:
        """The integral of each balance: every change counts from its instant, or from the start, to the end."""
        for dimensions, values in sorted(self._answer(customer, reading).values.items()):
            inside = [one for one in values if one.at[0] >= reading.start]
            opening = unit_seconds = ZERO
            for one in values:
                if one.at[0] < reading.start:
                    opening = add(opening, one.value)
                lasts_us = (reading.end - max(one.at[0], reading.start)) // _MICROSECOND
                unit_seconds = EXACT.fma(one.value, EXACT.scaleb(Decimal(lasts_us), -6), unit_seconds)
            if inside or opening:
                yield UsageRow(
                    who=customer,
                    window_start=reading.start,
                    window_end=reading.end,
                    dimensions=dict(zip(reading.group_by, dimensions, strict=True)),
                    quantity=time_weighted(unit_seconds, unit),
                    events_count=len(inside),
                    digest=sum(one.digest for one in inside) % DIGEST_MODULUS,
                    integral=unit_seconds,
                )


def _edges(reading: Reading) -> tuple[int, ...]:
    """Where the windows of a question begin, and where the last ends, in microseconds since 1970."""
    return plan_windows(reading.start, reading.end, Window(reading.ask.value), zone_of(reading.timezone)).edges_us


def _in_force(version: MeterVersion, time: datetime) -> bool:
    return (version.start is None or version.start <= time) and (version.end is None or time < version.end)
