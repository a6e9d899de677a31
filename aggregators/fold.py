"""Folding: accepted events become the absolute state of their rollup keys, in memory.

Pure: no clock, no I/O. States are grouped by (subject, UTC day), the unit in which they are read back from ClickHouse
and forgotten when memory runs short.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from schemas.meter import WINDOW_S, Aggregation, Measurement, MeterVersion
from schemas.quantity import EXACT, ZERO
from schemas.rollup import DIGEST_MODULUS

DAY_S: Final = 86_400

EPOCH_START: Final = datetime(1970, 1, 1, tzinfo=UTC)

DayKey = tuple[str, int]
"""(subject, UTC day counted from 1970)."""
StateKey = tuple[str, int, int, tuple[str, ...]]
"""(meter name, meter version, window start in seconds since 1970, dimension values by sorted name)."""


class Series:
    """One meter version folded on one partition. `position_first` is the first offset the series covers."""

    __slots__ = ("dimension_names", "folds_members", "folds_values", "name", "number", "position_first", "version")

    def __init__(self, version: MeterVersion, position_first: int) -> None:
        aggregation = version.meter.aggregation
        self.version = version
        self.name = version.meter.name
        self.number = version.version
        self.position_first = position_first
        self.dimension_names = list(version.meter.group_by)
        self.folds_members = aggregation is Aggregation.UNIQUE_COUNT
        self.folds_values = not self.folds_members and aggregation is not Aggregation.COUNT


class Moment:
    """What folding needs of an event's time, computed once for all events that share it."""

    __slots__ = ("day", "time_us", "window_s")

    def __init__(self, time: datetime) -> None:
        since = time - EPOCH_START
        time_s = since.days * DAY_S + since.seconds
        self.day = since.days
        self.window_s = time_s - time_s % WINDOW_S
        self.time_us = time_s * 1_000_000 + since.microseconds


class State:
    """The state of one rollup key over the accepted events with offsets up to `position`."""

    __slots__ = (
        "digest",
        "events_count",
        "is_dirty",
        "latest_offset",
        "latest_time_us",
        "members",
        "position",
        "value_latest",
        "value_max",
        "value_min",
        "value_sum",
    )

    def __init__(self) -> None:
        self.position = -1
        self.events_count = 0
        self.value_sum: Decimal = ZERO
        self.value_min: Decimal | None = None
        self.value_max: Decimal | None = None
        self.value_latest: Decimal | None = None
        self.latest_time_us = 0
        self.latest_offset = 0
        self.digest = 0
        self.members: dict[str, int] | None = None
        self.is_dirty = False


class Fold:
    """All states of one partition that are in memory, and which of them changed since the last flush."""

    def __init__(self) -> None:
        self._days: OrderedDict[DayKey, dict[StateKey, State]] = OrderedDict()
        self._dirty: list[tuple[DayKey, StateKey, State]] = []
        self._new_members: list[tuple[DayKey, StateKey, str, int]] = []
        self._keys_count = 0

    @property
    def keys_count(self) -> int:
        """How many states are in memory."""
        return self._keys_count

    @property
    def dirty_days(self) -> frozenset[DayKey]:
        """Days with states that changed since the last flush: they cannot be read back yet."""
        return frozenset(day for day, _, _ in self._dirty)

    def holds(self, day: DayKey) -> bool:
        """Whether the states of this day are in memory, all of them."""
        return day in self._days

    def put_day(self, day: DayKey, states: dict[StateKey, State]) -> None:
        """Take in what ClickHouse knows of a day (nothing, for a new one); must come before its first event."""
        self._days[day] = states
        self._keys_count += len(states)

    def add(
        self, day: DayKey, moment: Moment, offset: int, digest: int, measured: Sequence[tuple[Series, Measurement]]
    ) -> None:
        """Fold one event; its day must be in memory. An offset that a state already includes changes nothing there."""
        window_s = moment.window_s
        states = self._days[day]
        for series, one in measured:
            key = (series.name, series.number, window_s, one.dimensions)
            state = states.get(key)
            if state is None:
                state = states[key] = State()
                self._keys_count += 1
            elif offset <= state.position:
                continue
            state.position = offset
            state.events_count += 1
            state.digest = (state.digest + digest) % DIGEST_MODULUS
            if series.folds_values:
                _fold_value(state, one.value, moment.time_us, offset)
            elif series.folds_members and (state.members is None or one.member not in state.members):
                if state.members is None:
                    state.members = {}
                state.members[one.member] = offset
                self._new_members.append((day, key, one.member, offset))
            if not state.is_dirty:
                state.is_dirty = True
                self._dirty.append((day, key, state))

    def take_dirty(self) -> tuple[list[tuple[DayKey, StateKey, State]], list[tuple[DayKey, StateKey, str, int]]]:
        """(changed states, new members) since the last call, to be written before anything else is folded."""
        states, self._dirty = self._dirty, []
        members, self._new_members = self._new_members, []
        for _, _, state in states:
            state.is_dirty = False
        return states, members

    def touch(self, days: Iterable[DayKey]) -> None:
        """Mark days as used now."""
        for day in days:
            self._days.move_to_end(day)

    def forget(self, keys_max: int, keep: frozenset[DayKey]) -> None:
        """Drop the least recently used days until at most `keys_max` states are left; never one in `keep`."""
        for day in list(self._days):
            if self._keys_count <= keys_max:
                return
            if day not in keep:
                self._keys_count -= len(self._days.pop(day))


def _fold_value(state: State, value: Decimal, time_us: int, offset: int) -> None:
    state.value_sum = EXACT.add(state.value_sum, value)
    if state.value_min is None or state.value_max is None:
        state.value_min = state.value_max = value
    elif value < state.value_min:
        state.value_min = value
    elif value > state.value_max:
        state.value_max = value
    if state.value_latest is None or (time_us, offset) > (state.latest_time_us, state.latest_offset):
        state.value_latest, state.latest_time_us, state.latest_offset = value, time_us, offset
