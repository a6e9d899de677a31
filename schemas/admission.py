"""Admission: may this event be billed on, given the catalog? The gateway and the worker ask the same code.

Pure. Built once for each catalog version; an event costs one decode of the fields its meters read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, TypeVar

import msgspec

from schemas.corrections import VOIDED, within_data
from schemas.errors import EventRejectedError
from schemas.event_fields import EventReader
from schemas.meter import Measurement, MeterReading, MeterVersion, measure_by, paths_of, reading_of
from schemas.meter_columns import ColumnReader, Seen, joined, seen_alone
from schemas.usage_event import EventColumns, UsageEvent

_Key = TypeVar("_Key", bound=Hashable)

_SHOWN_TYPE_MAX: Final = 80


class _Span(msgspec.Struct, frozen=True, gc=False):
    """The meter versions in force during one stretch of time, and the one reader of all their fields."""

    read: EventReader
    read_columns: ColumnReader
    versions: tuple[tuple[MeterVersion, MeterReading], ...]


class _Timeline(msgspec.Struct, frozen=True, gc=False):
    """`spans[i]` holds from `starts[i - 1]` (inclusive) to `starts[i]`; the first and the last are unbounded."""

    starts: tuple[datetime, ...]
    spans: tuple[_Span, ...]


class Measured(msgspec.Struct, frozen=True, gc=False):
    """What the meters see of many events, by meter version, and why some are rejected, by row."""

    seen: list[Seen]
    rejections: dict[int, EventRejectedError]


class Admission:
    """Decides with one catalog: which types are known, which meter versions measure an event, and what they see."""

    def __init__(self, meter_versions: Iterable[MeterVersion], known_types: Iterable[str]) -> None:
        """`meter_versions`: all versions of all meters; `known_types`: accepted even if nothing measures them."""
        self.meter_versions = tuple(meter_versions)
        by_type: dict[str, list[MeterVersion]] = {VOIDED: [], **{one: [] for one in known_types}}
        for version in self.meter_versions:
            by_type.setdefault(version.meter.event_type, []).append(version)
        self._timelines = {event_type: _timeline(versions) for event_type, versions in by_type.items()}

    @property
    def known_types(self) -> frozenset[str]:
        """The types that are accepted."""
        return frozenset(self._timelines)

    def admit(self, event: UsageEvent) -> None:
        """Raise EventRejectedError unless the type is known and every metered value can be read."""
        self.measurements(event)

    def measurements(self, event: UsageEvent) -> list[tuple[MeterVersion, Measurement]]:
        """What each meter version in force at the event's time sees of it; empty when none counts it.

        Raises EventRejectedError: `unknown_type`, or what `measure` finds wrong with a value. One bad value rejects
        the event for every meter, so that no event is half counted. Of a replacement the fields stand in its `data`.
        """
        if event.corrects is None:
            return self._measurements(event)
        try:
            return self._measurements(event)
        except EventRejectedError as error:
            raise within_data(error) from error

    def _measurements(self, event: UsageEvent) -> list[tuple[MeterVersion, Measurement]]:
        timeline = self._timelines.get(event.type)
        if timeline is None:
            shown = event.type if len(event.type) <= _SHOWN_TYPE_MAX else event.type[:_SHOWN_TYPE_MAX] + "…"
            raise EventRejectedError(
                "unknown_type", "type", f"no meter reads the type {shown!r} and event_types does not list it"
            )
        starts = timeline.starts
        span = timeline.spans[bisect_right(starts, event.time) if starts else 0]
        if not span.versions:
            return []
        fields = span.read.read(event)
        measured: list[tuple[MeterVersion, Measurement]] = []
        for version, reading in span.versions:
            one = measure_by(reading, fields)
            if one is not None:
                measured.append((version, one))
        return measured

    def measure(self, events: EventColumns, rows: Sequence[int]) -> Measured:
        """`measurements` of many events, the rows ascending; cheap where they share a type and meter versions."""
        found: dict[int, list[Seen]] = {}
        rejections: dict[int, EventRejectedError] = {}
        for span, within in self._by_span(events, rows):
            seen, doubtful = span.read_columns.see(events, within) if span is not None else ([], set(within))
            for one in seen:
                found.setdefault(id(one.version), []).append(one)
            for row in sorted(doubtful):
                try:
                    for version, measurement in self.measurements(events.at(row)):
                        found.setdefault(id(version), []).append(seen_alone(version, row, measurement))
                except EventRejectedError as rejection:
                    rejections[row] = rejection
        return Measured([joined(several) for several in found.values()], rejections)

    def _by_span(self, events: EventColumns, rows: Sequence[int]) -> Iterator[tuple[_Span | None, Sequence[int]]]:
        """The rows that share their meter versions; None with those whose type is unknown."""
        types, times = events.types, events.times
        types_of_rows = types if len(rows) == len(types) else [types[row] for row in rows]
        for event_type, within in _grouped(rows, types_of_rows).items():
            timeline = self._timelines.get(event_type)
            if timeline is None:
                yield None, within
            elif not timeline.starts:
                yield timeline.spans[0], within
            else:
                places = [bisect_right(timeline.starts, times[row]) for row in within]
                for place, together in _grouped(within, places).items():
                    yield timeline.spans[place], together

    def with_readable(self, seen: Sequence[Seen], events: EventColumns, rows: Sequence[int]) -> list[Seen]:
        """`seen` and these rows, accepted by an earlier catalog: versions that cannot read one do not count it."""
        found: dict[int, list[Seen]] = {id(one.version): [one] for one in seen}
        for row in rows:
            for version, one in self.readable(events.at(row)):
                found.setdefault(id(version), []).append(seen_alone(version, row, one))
        return [joined(several) for several in found.values()]

    def readable(self, event: UsageEvent) -> list[tuple[MeterVersion, Measurement]]:
        """`measurements` of an event that was accepted before: versions that cannot read it do not count it."""
        timeline = self._timelines.get(event.type)
        if timeline is None:
            return []
        span = timeline.spans[bisect_right(timeline.starts, event.time)]
        fields = span.read.read(event)
        measured: list[tuple[MeterVersion, Measurement]] = []
        for version, reading in span.versions:
            with suppress(EventRejectedError):
                one = measure_by(reading, fields)
                if one is not None:
                    measured.append((version, one))
        return measured


def check_time(event: UsageEvent, logged_at: datetime, *, ahead_s_max: int, age_s_max: int) -> None:
    """Raise EventRejectedError (`time_ahead`, `time_too_old`) when the event's time is too far from `logged_at`.

    `logged_at` is when Kafka wrote the record down; the gateway, which comes before that, gives its own clock.
    An `age_s_max` of 0 accepts any age.
    """
    field = "time" if event.corrects is None or event.type == VOIDED else "data.time"
    if event.time > logged_at and event.time - logged_at > timedelta(seconds=ahead_s_max):
        raise EventRejectedError(
            "time_ahead", field, f"{field} {event.time.isoformat()} is more than {ahead_s_max} s ahead of the log"
        )
    if age_s_max and logged_at - event.time > timedelta(seconds=age_s_max):
        raise EventRejectedError(
            "time_too_old", field, f"{field} {event.time.isoformat()} is more than {age_s_max} s behind the log"
        )


def _grouped(rows: Sequence[int], keys: Sequence[_Key]) -> dict[_Key, Sequence[int]]:
    """The rows by their keys, in order."""
    if rows and keys.count(keys[0]) == len(keys):
        return {keys[0]: rows}
    groups: dict[_Key, list[int]] = {}
    for row, key in zip(rows, keys, strict=True):
        groups.setdefault(key, []).append(row)
    return dict(groups)


def _timeline(versions: list[MeterVersion]) -> _Timeline:
    """Cut time at every start and end, so that one binary search finds all versions in force."""
    edges = sorted({edge for one in versions for edge in (one.start, one.end) if edge is not None})
    lows: list[datetime | None] = [None, *edges]
    return _Timeline(tuple(edges), tuple(_span([one for one in versions if _in_force(one, low)]) for low in lows))


def _in_force(version: MeterVersion, low: datetime | None) -> bool:
    """Whether the version covers the span that begins at `low` (None: the beginning of time)."""
    if low is None:
        return version.start is None
    return (version.start is None or version.start <= low) and (version.end is None or low < version.end)


def _span(versions: list[MeterVersion]) -> _Span:
    paths = frozenset(path for one in versions for path in paths_of(one.meter))
    reader = EventReader(paths)
    readings = tuple((one, reading_of(one.meter)) for one in versions)
    return _Span(reader, ColumnReader(readings, reader), readings)
