"""Counts usage anew from events, one at a time, in plain decimals: what verify holds the frozen lines against.

Shares the reading of an event and of its measurement with the pipeline, and nothing that the rollups go through.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from billing_export.lines import Reading, Service, reading_of
from schemas.catalog import AppliedCatalog
from schemas.errors import EventRejectedError
from schemas.meter import Aggregation, EventReader, MeterVersion, measure, paths_of
from schemas.quantity import ZERO, add
from schemas.rollup import DIGEST_MODULUS, average
from schemas.usage_event import UsageEvent
from schemas.usage_query import UsageQuery, UsageRow


class Recounted(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it stands in the log: its place, and the digest of its bytes."""

    event: UsageEvent
    epoch: str
    partition: int
    offset: int
    digest: int


class _Tally:
    """What was seen for one line so far. Grows only with the members of unique_count."""

    __slots__ = ("aggregation", "count", "digest", "greatest", "latest", "latest_at", "least", "members", "total")

    def __init__(self, aggregation: Aggregation) -> None:
        self.aggregation = aggregation
        self.count = 0
        self.digest = 0
        self.total = ZERO
        self.least: Decimal | None = None
        self.greatest: Decimal | None = None
        self.latest = ZERO
        self.latest_at: tuple[datetime, str, int, int] | None = None
        self.members: set[str] = set()

    def add(self, one: Recounted, value: Decimal, member: str) -> None:
        self.count += 1
        self.digest = (self.digest + one.digest) % DIGEST_MODULUS
        if self.aggregation is Aggregation.UNIQUE_COUNT:
            self.members.add(member)
            return
        self.total = add(self.total, value)
        self.least = value if self.least is None else min(self.least, value)
        self.greatest = value if self.greatest is None else max(self.greatest, value)
        at = (one.event.time, one.epoch, one.partition, one.offset)
        if self.latest_at is None or at > self.latest_at:
            self.latest, self.latest_at = value, at

    def quantity(self) -> Decimal:
        found: dict[Aggregation, Decimal | None] = {
            Aggregation.COUNT: Decimal(self.count),
            Aggregation.SUM: self.total,
            Aggregation.MIN: self.least,
            Aggregation.MAX: self.greatest,
            Aggregation.AVG: average(self.total, self.count),
            Aggregation.LATEST: self.latest,
            Aggregation.UNIQUE_COUNT: Decimal(len(self.members)),
        }
        return found[self.aggregation] or ZERO


class Recount:
    """Tallies for every reading that the services ask for. `add` events in any order, then `answer` their questions."""

    def __init__(self, catalog: AppliedCatalog, subscribed: Iterable[Service]) -> None:
        self._catalog = catalog
        self._asked: dict[tuple[str, str], dict[Reading, None]] = {}
        self._tallies: dict[tuple[str, Reading], dict[tuple[str, ...], _Tally]] = {}
        meters: set[str] = set()
        for service in subscribed:
            for charge in service.plan.charges:
                reading = reading_of(service, charge)
                if reading is not None:
                    self._asked.setdefault((service.customer.id, reading.meter), {})[reading] = None
                    meters.add(reading.meter)
        self._versions: dict[str, list[MeterVersion]] = {}
        for name in sorted(meters):
            for version in catalog.versions_of(name):
                self._versions.setdefault(version.meter.event_type, []).append(version)
        self._readers = {
            event_type: EventReader(frozenset(path for one in versions for path in paths_of(one.meter)))
            for event_type, versions in self._versions.items()
        }

    @property
    def event_types(self) -> tuple[str, ...]:
        """The types that any of the questions is about."""
        return tuple(sorted(self._versions))

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        """The time from the first start to the last end that is asked about; None when nothing is."""
        readings = [reading for asked in self._asked.values() for reading in asked]
        if not readings:
            return None
        return min(one.start for one in readings), max(one.end for one in readings)

    def add(self, one: Recounted) -> None:
        """Count an event wherever it belongs. A value that cannot be read counts for no meter that reads it."""
        versions = self._versions.get(one.event.type)
        customer = self._catalog.customer_of(one.event.subject)
        if versions is None or customer is None:
            return
        fields = self._readers[one.event.type].read(one.event)
        for version in versions:
            asked = self._asked.get((customer.id, version.meter.name))
            if asked is None or not _in_force(version, one.event.time):
                continue
            try:
                measured = measure(version.meter, fields)
            except EventRejectedError:
                continue
            if measured is None:
                continue
            values = dict(zip(sorted(version.meter.group_by), measured.dimensions, strict=True))
            for reading in asked:
                if reading.start <= one.event.time < reading.end:
                    dimensions = tuple(values.get(name, "") for name in reading.group_by)
                    tallies = self._tallies.setdefault((customer.id, reading), {})
                    tally = tallies.setdefault(dimensions, _Tally(version.meter.aggregation))
                    tally.add(one, measured.value, measured.member)

    def answer(self, catalog: AppliedCatalog, query: UsageQuery) -> Sequence[UsageRow]:
        """The rows for a question that one of the services asks; the `UsageReader` of verify."""
        if catalog.version != self._catalog.version:
            raise ValueError(f"counted with catalog {self._catalog.version}, asked with {catalog.version}")
        reading = Reading(meter=query.meter, group_by=query.group_by, start=query.start, end=query.end)
        return [
            UsageRow(
                who=customer,
                window_start=query.start,
                window_end=query.end,
                dimensions=dict(zip(query.group_by, dimensions, strict=True)),
                quantity=tally.quantity(),
                events_count=tally.count,
                digest=tally.digest,
            )
            for customer in query.customers or ()
            for dimensions, tally in self._tallies.get((customer, reading), {}).items()
        ]


def _in_force(version: MeterVersion, time: datetime) -> bool:
    return (version.start is None or version.start <= time) and (version.end is None or time < version.end)
