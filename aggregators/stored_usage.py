"""What meters see of stored events, for a rebuild: they were accepted long ago, by whatever meters there were. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from aggregators.state import Version, moments_of
from aggregators.usage import Usage
from schemas.admission import Admission
from schemas.errors import EventRejectedError
from schemas.meter import Measurement, MeterVersion
from schemas.meter_columns import Seen, taken
from schemas.usage_event import EventColumns, UsageEvent, columns_of, decode_event, decode_events


class StoredReader:
    """Measures stored events for some meter versions.

    A version that cannot read an event does not count it; the others do.
    """

    def __init__(self, versions: Sequence[MeterVersion]) -> None:
        self._together = Admission(versions, ())
        self._alone = [Admission((one,), ()) for one in versions]
        self._types = [one.meter.event_type for one in versions]

    def usage(self, offsets: Sequence[int], digests: Sequence[int], raws: Sequence[bytes]) -> tuple[Usage, int]:
        """(what the versions see of records ascending by offset, how many times a version cannot read one)."""
        events = decode_events(raws) or columns_of([decode_event(raw) for raw in raws])
        seen, unreadable = self._see(events)
        moments = moments_of(events.times)
        return Usage(subjects=events.subjects, moments=moments, offsets=offsets, digests=digests, seen=seen), unreadable

    def read(self, event: UsageEvent) -> list[tuple[MeterVersion, Measurement]]:
        """What each version sees of one event."""
        measured: list[tuple[MeterVersion, Measurement]] = []
        for event_type, admission in zip(self._types, self._alone, strict=True):
            if event_type == event.type:
                with suppress(EventRejectedError):
                    measured += admission.measurements(event)
        return measured

    def _see(self, events: EventColumns) -> tuple[list[Seen], int]:
        """(what each version sees, how many times a version cannot read an event); all types are those of versions."""
        measured = self._together.measure(events, range(len(events.ids)))
        if not measured.rejections:
            return measured.seen, 0
        seen: list[Seen] = []
        unreadable = 0
        for event_type, admission in zip(self._types, self._alone, strict=True):
            measured = admission.measure(events, [row for row, one in enumerate(events.types) if one == event_type])
            seen += measured.seen
            unreadable += len(measured.rejections)
        return seen, unreadable


def chosen(usage: Usage, first_of: Mapping[Version, int], *, is_live: bool) -> Usage:
    """What the live series saw (or the fill, which covers the offsets before)."""
    parts: list[Seen] = []
    for seen in usage.seen:
        begin = bisect_left(
            seen.rows, first_of[seen.version.meter.name, seen.version.version], key=usage.offsets.__getitem__
        )
        places = range(begin, len(seen.rows)) if is_live else range(begin)
        if len(places) == len(seen.rows):
            parts.append(seen)
        elif places:
            parts.append(taken(seen, places))
    return msgspec.structs.replace(usage, seen=[one for one in parts if one.rows])
