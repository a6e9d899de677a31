"""How many values of a dimension a subject's day tells apart: those that come first in the log, the others are `other`.

Pure. What is decided depends on the log alone: a day's values are read off its states, whoever folded them, so a life
that begins anywhere goes on where the one before stopped. Costs an event nothing until a day has more states than its
meter takes values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import pyarrow as pa

from aggregators import arrays
from aggregators.fold import Fold
from aggregators.state import DayKey, Group, Series, State, StateKey
from schemas.meter import OTHER

TABLE: Final = "group_overflows"
POSITION_END: Final = (1 << 64) - 1
"""Where a series ends that still goes on; also the greatest rank."""


class Full(msgspec.Struct, frozen=True, gc=False):
    """A dimension of a day that keeps no more values; `position` is the first offset that brought one too many."""

    day: DayKey
    series: tuple[str, int]
    dimension: str
    position: int
    kept: tuple[str, ...]


class _Day:
    """The values that a day keeps of each dimension, and which dimensions were said to be full."""

    __slots__ = ("full", "states", "values")

    def __init__(self, series: Series, states: dict[StateKey, State]) -> None:
        self.states = states
        self.full: set[int] = set()
        self.values: list[set[str]] = [{OTHER} for _ in series.dimension_names]
        for name, number, _, dimensions in states:
            if name == series.name and number == series.number:
                for values, value in zip(self.values, dimensions, strict=True):
                    values.add(value)


class GroupLimits:
    """Keeps the days of one partition within what their meters take."""

    def __init__(self, position_ends: Mapping[tuple[str, int], int]) -> None:
        """`position_ends` says where series end that do not go on."""
        self._position_ends = position_ends
        self._days: dict[tuple[str, int, DayKey], _Day] = {}
        self._full: list[Full] = []

    def within(self, series: Series, groups: list[Group], fold: Fold) -> list[Group]:
        """The groups of a batch, first in the log first, as they are to be folded; their days must be in memory."""
        values_max = series.group_values_max
        if values_max is None:
            return groups
        crowded = self._crowded(series, values_max, groups, fold)
        if not crowded:
            return groups
        admitted = [
            self._admit(series, values_max, group, crowded[group.day]) if group.day in crowded else group.dimensions
            for group in groups
        ]
        if all(dimensions is group.dimensions for dimensions, group in zip(admitted, groups, strict=True)):
            return groups
        return _joined(groups, admitted)

    def _crowded(self, series: Series, values_max: int, groups: list[Group], fold: Fold) -> dict[DayKey, _Day]:
        """The days of the groups that may have more values than the meter takes, once the groups are folded."""
        crowded: dict[DayKey, _Day] = {}
        states_of = fold.states_of
        for day, coming in Counter([group.day for group in groups]).items():
            states = states_of(day)
            tracked = self._days.get((series.name, series.number, day)) if self._days else None
            if tracked is not None and tracked.states is states:
                crowded[day] = tracked
            elif len(states) + coming > values_max:  # a value has a state: there are no more values than states
                crowded[day] = self._days[series.name, series.number, day] = _Day(series, states)
        return crowded

    def _admit(self, series: Series, values_max: int, group: Group, day: _Day) -> tuple[str, ...]:
        changed: list[str] | None = None
        for at, value in enumerate(group.dimensions):
            values = day.values[at]
            if value in values:
                continue
            if len(values) <= values_max:  # `other` is one of them, and counts for nothing
                values.add(value)
                continue
            if at not in day.full:
                day.full.add(at)
                first = group.events.offsets[group.rows[0]]
                name = series.dimension_names[at]
                kept = tuple(sorted(values))
                self._full.append(Full(group.day, (series.name, series.number), name, first, kept))
            changed = changed or list(group.dimensions)
            changed[at] = OTHER
        return group.dimensions if changed is None else tuple(changed)

    def take_new(self, place: tuple[str, int], fold: Fold, series: Mapping[tuple[str, int], Series]) -> pa.Table:
        """Rows of `group_overflows`: what became full since the last call. Forgets the days that `fold` forgot."""
        if self._days:
            self._days = {key: one for key, one in self._days.items() if fold.holds(key[2])}
        full, self._full = self._full, []
        return _table(place, full, series, self._position_ends)


def _table(
    place: tuple[str, int],
    full: Sequence[Full],
    series: Mapping[tuple[str, int], Series],
    ends: Mapping[tuple[str, int], int],
) -> pa.Table:
    epoch, partition = place
    count = len(full)
    return pa.table(
        {
            "meter": arrays.texts([one.series[0] for one in full]),
            "subject": arrays.texts([one.day[0] for one in full]),
            "day": pa.array([one.day[1] for one in full], pa.int32()).cast(pa.date32()),
            "meter_version": pa.array([one.series[1] for one in full], pa.uint32()),
            "epoch": arrays.constant(epoch, count, pa.string()),
            "partition": arrays.constant(partition, count, pa.uint32()),
            "position_first": pa.array([series[one.series].position_first for one in full], pa.uint64()),
            "dimension": arrays.texts([one.dimension for one in full]),
            "position_end": pa.array([ends.get(one.series, POSITION_END) for one in full], pa.uint64()),
            "position": pa.array([one.position for one in full], pa.uint64()),
            "rank": pa.array([POSITION_END - one.position for one in full], pa.uint64()),
            "kept": pa.array([list(one.kept) for one in full], pa.list_(pa.string())),
        }
    )


def _joined(groups: Iterable[Group], admitted: Sequence[tuple[str, ...]]) -> list[Group]:
    """Groups that fold into one state as one, ascending by offset: a state takes no event behind its position."""
    together: dict[tuple[DayKey, int, tuple[str, ...]], list[Group]] = {}
    for group, dimensions in zip(groups, admitted, strict=True):
        together.setdefault((group.day, group.window_s, dimensions), []).append(group)
    found: list[Group] = []
    for (day, window_s, dimensions), several in together.items():
        if len(several) == 1 and several[0].dimensions is dimensions:
            found.append(several[0])
            continue
        pairs = sorted((row, place) for one in several for row, place in zip(one.rows, one.places, strict=True))
        rows, places = [row for row, _ in pairs], [place for _, place in pairs]
        found.append(Group(day, window_s, dimensions, rows, places, several[0].events))
    return found
