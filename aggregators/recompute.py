"""What rollups must say where corrections took events out: counted again from all events of the windows. Pure.

The state of a key is that of the events which are left. Its position is the last offset that was folded into it or took
something out of it, so that a cut before a correction finds the row to have gone on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from aggregators.dedupe import Identity
from aggregators.facts import Place
from aggregators.fold import Fold
from aggregators.state import DayKey, MemberRow, Moment, Series, State, StateKey
from schemas.group_overflow import NO_OVERFLOWS, Overflows
from schemas.meter import Measurement, MeterVersion
from schemas.usage_event import UsageEvent


class WindowEvent(msgspec.Struct, frozen=True):
    """An accepted event of a window, and the places of what takes it out."""

    event: UsageEvent
    epoch: str
    partition: int
    offset: int
    digest: int
    outs: Sequence[Place]

    @property
    def identity(self) -> Identity:
        return self.event.subject, self.event.source, self.event.id


class Recomputed(msgspec.Struct, frozen=True):
    """The rows of one key of one series; `place` is (epoch, partition)."""

    place: tuple[str, int]
    series: Series
    day: DayKey
    key: StateKey
    state: State
    members: list[MemberRow]


Measure = Callable[[UsageEvent], Sequence[tuple[MeterVersion, Measurement]]]
FirstOf = Callable[[str, int, MeterVersion], int]
"""(epoch, partition, meter version) → the offset from which the worker folded it there."""


class _Seen(NamedTuple):
    one: WindowEvent
    moment: Moment
    measurement: Measurement


def recompute(
    events: Iterable[WindowEvent], measure: Measure, first_of: FirstOf, overflows: Overflows = NO_OVERFLOWS
) -> list[Recomputed]:
    """The rows of every key that something was taken out of. `events` are all events of some windows, in any order.

    A key may have two series on a partition: what the worker folded, and what was filled in from before that.
    """
    keys: dict[tuple[str, int, int, DayKey, StateKey], tuple[Series, list[_Seen]]] = {}
    for one in events:
        moment = Moment(one.event.time)
        day = (one.event.subject, moment.day)
        for version, measurement in measure(one.event):
            first = first_of(one.epoch, one.partition, version)
            begin = first if one.offset >= first else 0
            place = (one.epoch, one.partition, one.offset)
            dimensions = overflows.dimensions(version, one.event, place, measurement.dimensions)
            if dimensions is not measurement.dimensions:
                measurement = msgspec.structs.replace(measurement, dimensions=dimensions)  # noqa: PLW2901 - the same event
            key = (version.meter.name, version.version, moment.window_s, dimensions)
            held = keys.get((one.epoch, one.partition, begin, day, key))
            if held is None:
                held = keys[one.epoch, one.partition, begin, day, key] = (Series(version, begin), [])
            held[1].append(_Seen(one, moment, measurement))
    return [
        _recomputed((epoch, partition), series, day, key, sorted(seen, key=lambda each: each.one.offset))
        for (epoch, partition, _, day, key), (series, seen) in keys.items()
        if any(each.one.outs for each in seen)
    ]


def _recomputed(here: tuple[str, int], series: Series, day: DayKey, key: StateKey, seen: Sequence[_Seen]) -> Recomputed:
    fold = Fold()
    fold.put_day(day, {})
    for each in seen:
        if not each.one.outs:
            fold.add(day, each.moment, each.one.offset, each.one.digest, [(series, each.measurement)])
    states = [one for rows in fold.take_dirty().states.values() for _, _, one in rows]
    state = states[0] if states else State()
    places = [place for each in seen for place in ((*here, each.one.offset), *each.one.outs)]
    state.position = max(offset for *partition_of, offset in places if tuple(partition_of) == here)
    rows: list[MemberRow] = []
    if series.folds_members:
        brought: dict[str, list[WindowEvent]] = {}
        for each in seen:
            brought.setdefault(each.measurement.member, []).append(each.one)
        state.members = {}
        gone: set[str] = set()
        for member, events in brought.items():
            changes = _changes(here, events)
            if changes and changes[-1].gone:
                gone.add(member)
            elif changes:
                state.members[member] = changes[-1].position
            if any(one.outs for one in events):
                rows += [(day, key, member, *change) for change in changes]
        state.gone = frozenset(gone)
    return Recomputed(here, series, day, key, state, rows)


_COMES: Final = 0
_GOES: Final = 1
_HAS_GONE: Final = 2


class _Change(NamedTuple):
    position: int
    since: int
    gone: int


def _changes(here: tuple[str, int], events: Iterable[WindowEvent]) -> list[_Change]:
    """When a member came and went: it is there while any of the events that brought it counts.

    What takes an event out from another log or partition has no offset in this one: its event counts for no time. If
    it had gone before that, the row that said so stays true and stays.
    """
    steps: list[tuple[int, int]] = []
    for one in events:
        ends = [offset for epoch, partition, offset in one.outs if (epoch, partition) == here]
        if ends and min(ends) <= one.offset:
            continue  # taken out before it came
        is_foreign = len(ends) < len(one.outs)
        steps.append((one.offset, _COMES))
        if is_foreign:
            steps.append((one.offset, _GOES))
        if ends:
            steps.append((min(ends), _HAS_GONE if is_foreign else _GOES))
    changes: list[_Change] = []
    held = 0
    # At one offset what comes is before what goes: a replacement that brings the member again is no change.
    for position, step in sorted(steps):
        before, held = held, held + {_COMES: 1, _GOES: -1, _HAS_GONE: 0}[step]
        if bool(before) == bool(held) and (step != _HAS_GONE or held):
            continue
        if changes and changes[-1].since == position + 1:
            changes.pop()
        changes.append(_Change(position, position + 1 if changes or not held else 0, int(not held)))
    return changes
