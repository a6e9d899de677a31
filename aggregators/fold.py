"""Folding: accepted events become the absolute state of their rollup keys, in memory.

Pure: no clock, no I/O. States are grouped by (subject, UTC day), the unit in which they are read back from ClickHouse
and forgotten when memory runs short.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from aggregators.state import (
    DayKey,
    EventsToFold,
    Group,
    MemberRow,
    Moment,
    Series,
    State,
    StateKey,
    StateRow,
    Version,
    add_group,
    add_members,
    begun,
)
from schemas.meter import Measurement
from schemas.meter_columns import Seen, seen_alone


class Changed(NamedTuple):
    """States that changed, and who came to a key, by meter version."""

    states: dict[Version, list[StateRow]]
    members: dict[Version, list[MemberRow]]


class Fold:
    """All states of one partition that are in memory, and which of them changed since the last flush."""

    def __init__(self) -> None:
        self._days: OrderedDict[DayKey, dict[StateKey, State]] = OrderedDict()
        self._dirty: dict[Version, list[StateRow]] = {}
        self._dirty_days: set[DayKey] = set()
        self._new_members: dict[Version, list[MemberRow]] = {}
        self._keys_count = 0

    @property
    def keys_count(self) -> int:
        """How many states are in memory."""
        return self._keys_count

    @property
    def dirty_days(self) -> frozenset[DayKey]:
        """Days with states that may have changed since the last flush: they cannot be read back yet."""
        return frozenset(self._dirty_days)

    def holds(self, day: DayKey) -> bool:
        """Whether the states of this day are in memory, all of them."""
        return day in self._days

    def states_of(self, day: DayKey) -> dict[StateKey, State]:
        """The states of a day that is in memory."""
        return self._days[day]

    def put_day(self, day: DayKey, states: dict[StateKey, State]) -> None:
        """Take in what ClickHouse knows of a day (nothing, for a new one); must come before its first event."""
        self._days[day] = states
        self._keys_count += len(states)

    def add(
        self, day: DayKey, moment: Moment, offset: int, digest: int, measured: Iterable[tuple[Series, Measurement]]
    ) -> None:
        """Fold one event by itself."""
        events = EventsToFold([offset], [moment.time_us], [digest])
        for series, one in measured:
            group = Group(day, moment.window_s, one.dimensions, [0], [0], events)
            self.add_groups(series, [group], seen_alone(series.version, 0, one))

    def add_groups(self, series: Series, groups: Iterable[Group], seen: Seen) -> None:
        """Fold what a meter version saw; the days must be in memory.

        An offset that a state already includes changes nothing.
        """
        version = (series.name, series.number)
        dirty, new_members = self._dirty.setdefault(version, []), self._new_members.setdefault(version, [])
        for group in groups:
            states = self._days[group.day]
            key = (series.name, series.number, group.window_s, group.dimensions)
            state = states.get(key)
            if state is None:
                self._keys_count += 1
                if len(group.rows) == 1:
                    state = states[key] = begun(series, group, seen)
                    dirty.append((group.day, key, state))
                    if state.members:
                        new_members += [(group.day, key, one, at, 0, 0) for one, at in state.members.items()]
                    continue
                state = states[key] = State()
            elif group.events.offsets[group.rows[0]] <= state.position:
                group = group.after(state.position)  # noqa: PLW2901 - the rest of it
                if not group.rows:
                    continue
            add_group(state, series, group, seen)
            if series.folds_members:
                new_members += [(group.day, key, *change) for change in add_members(state, group, seen)]
            if not state.is_dirty:
                state.is_dirty = True
                dirty.append((group.day, key, state))

    def begin(self, series: Series, group: Group) -> None:
        """Have a state for the key of a group of which no event counts."""
        states = self._days[group.day]
        key = (series.name, series.number, group.window_s, group.dimensions)
        if key not in states:
            state = states[key] = State()
            self._keys_count += 1
            state.position = group.events.offsets[group.rows[-1]]
            state.is_dirty = True
            self._dirty.setdefault(key[:2], []).append((group.day, key, state))

    def replace(self, day: DayKey, key: StateKey, state: State) -> None:
        """Put another state in the place of a key's; its day must be in memory."""
        held = self._days[day].get(key)
        if held is None:
            held = self._days[day][key] = State()
            self._keys_count += 1
        for name in State.__struct_fields__:
            if name != "is_dirty":
                setattr(held, name, getattr(state, name))
        if not held.is_dirty:
            held.is_dirty = True
            self._dirty.setdefault(key[:2], []).append((day, key, held))

    def take_dirty(self) -> Changed:
        """What changed since the last call, to be written before anything else is folded."""
        changed = Changed(self._dirty, self._new_members)
        self._dirty, self._new_members, self._dirty_days = {}, {}, set()
        for states in changed.states.values():
            for _, _, state in states:
                state.is_dirty = False
        return changed

    def touch(self, days: Iterable[DayKey]) -> None:
        """Mark days as used now: what is folded next is of them."""
        self._dirty_days.update(days)
        for day in days:
            self._days.move_to_end(day)

    def forget(self, keys_max: int, keep: frozenset[DayKey]) -> None:
        """Drop the least recently used days until at most `keys_max` states are left; never one in `keep`."""
        for day in list(self._days):
            if self._keys_count <= keys_max:
                return
            if day not in keep:
                self._keys_count -= len(self._days.pop(day))
