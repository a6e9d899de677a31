"""What the meters saw of a batch, and its grouping by what is folded together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from aggregators.accepted import Accepted
from aggregators.state import DAY_S, EventsToFold, Group, Moment
from schemas.meter_columns import Seen, joined, seen_alone


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Events with what the meters saw of them: the rows of `seen` are places in the parallel columns."""

    subjects: Sequence[str]
    moments: Sequence[Moment]
    offsets: Sequence[int]
    digests: Sequence[int]
    seen: Sequence[Seen]


def usage_of(accepted: Iterable[Accepted]) -> Usage:
    """The usage of events that were put together one by one, ascending by offset."""
    events = list(accepted)
    found: dict[int, list[Seen]] = {}
    for row, one in enumerate(events):
        for version, measurement in one.measured:
            found.setdefault(id(version), []).append(seen_alone(version, row, measurement))
    return Usage(
        subjects=[one.event.subject for one in events],
        moments=[Moment(one.event.time) for one in events],
        offsets=[one.offset for one in events],
        digests=[one.digest for one in events],
        seen=[joined(several) for several in found.values()],
    )


def groups(usage: Usage) -> Iterator[tuple[Seen, list[Group]]]:
    """What each meter version saw, in groups that fold into one state each.

    Meters that count the same events by the same dimensions share their groups.
    """
    windows = [moment.window_s for moment in usage.moments]
    events = EventsToFold(usage.offsets, [moment.time_us for moment in usage.moments], usage.digests)
    shared: dict[tuple[int, int], list[Group]] = {}
    for seen in usage.seen:
        key = (id(seen.rows), id(seen.dimensions))
        found = shared.get(key)
        if found is None:
            found = shared[key] = _groups(usage.subjects, windows, events, seen)
        yield seen, found


def _groups(subjects: Sequence[str], windows: Sequence[int], events: EventsToFold, seen: Seen) -> list[Group]:
    is_whole = len(seen.rows) == len(subjects)
    if not is_whole:
        subjects = [subjects[row] for row in seen.rows]
        windows = [windows[row] for row in seen.rows]
    together: dict[tuple[str, int, tuple[str, ...]], list[int]] = {}
    for place, key in enumerate(zip(subjects, windows, seen.dimensions, strict=True)):
        places = together.get(key)
        if places is None:
            together[key] = [place]
        else:
            places.append(place)
    return [
        Group(
            (subject, window_s // DAY_S),
            window_s,
            dimensions,
            places if is_whole else [seen.rows[place] for place in places],
            places,
            events,
        )
        for (subject, window_s, dimensions), places in together.items()
    ]
