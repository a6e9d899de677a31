"""Folding: accepted events become the absolute state of their rollup keys, in memory.

Pure: no clock, no I/O. States are grouped by (subject, UTC day), the unit in which they are read back from ClickHouse
and forgotten when memory runs short.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from schemas.meter import WINDOW_S, Aggregation, Measurement, MeterVersion, taken_values
from schemas.meter_columns import Seen, seen_alone
from schemas.quantity import EXACT, ZERO, add_all
from schemas.rollup import DIGEST_MODULUS

DAY_S: Final = 86_400

EPOCH_START: Final = datetime(1970, 1, 1, tzinfo=UTC)

DayKey = tuple[str, int]
"""(subject, UTC day counted from 1970)."""
StateKey = tuple[str, int, int, tuple[str, ...]]
"""(meter name, meter version, window start in seconds since 1970, dimension values by sorted name)."""
Version = tuple[str, int]
"""(meter name, meter version)."""
StateRow = tuple[DayKey, StateKey, "State"]
"""(day, key, state): what a row of `rollups` is made of."""
MemberRow = tuple[DayKey, StateKey, str, int, int, int]
"""(day, key, member, position, since, gone): a row of `members`, whose columns the last three are."""


class Series:
    """One meter version folded on one partition. `position_first` is the first offset the series covers."""

    __slots__ = (
        "dimension_names",
        "folds_members",
        "folds_moments",
        "folds_values",
        "group_values_max",
        "name",
        "number",
        "position_first",
        "version",
    )

    def __init__(self, version: MeterVersion, position_first: int) -> None:
        aggregation = version.meter.aggregation
        self.version = version
        self.name = version.meter.name
        self.number = version.version
        self.position_first = position_first
        self.dimension_names = list(version.meter.group_by)
        self.group_values_max = taken_values(version.meter)
        self.folds_members = aggregation is Aggregation.UNIQUE_COUNT
        self.folds_moments = aggregation is Aggregation.TIME_WEIGHTED
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


class EventsToFold(msgspec.Struct, frozen=True, gc=False):
    """What folding needs of the events of a batch, beside what the meters saw: parallel columns."""

    offsets: Sequence[int]
    times_us: Sequence[int]
    digests: Sequence[int]


class Group(msgspec.Struct, frozen=True, gc=False):
    """Events of one batch with a subject, a window and dimensions in common, ascending by offset.

    `rows` says where they stand in the events' columns, `places` where in what a meter version saw.
    """

    day: DayKey
    window_s: int
    dimensions: tuple[str, ...]
    rows: Sequence[int]
    places: Sequence[int]
    events: EventsToFold

    def after(self, position: int) -> Group:
        """Those with a greater offset."""
        offsets = self.events.offsets
        return self._taken([at for at, row in enumerate(self.rows) if offsets[row] > position])

    def without(self, gone: frozenset[int]) -> Group:
        """Those with other offsets than these."""
        offsets = self.events.offsets
        return self._taken([at for at, row in enumerate(self.rows) if offsets[row] not in gone])

    def _taken(self, kept: Sequence[int]) -> Group:
        rows, places = [self.rows[at] for at in kept], [self.places[at] for at in kept]
        return Group(self.day, self.window_s, self.dimensions, rows, places, self.events)


class State(msgspec.Struct, gc=False, eq=False):
    """The state of one rollup key over the accepted events with offsets up to `position`.

    `gone` are members that were here and are not: one who comes back is no newcomer.
    """

    position: int = -1
    events_count: int = 0
    digest: int = 0
    value_sum: Decimal = ZERO
    value_min: Decimal | None = None
    value_max: Decimal | None = None
    value_latest: Decimal | None = None
    latest_time_us: int = 0
    latest_offset: int = 0
    value_moment: Decimal = ZERO
    members: dict[str, int] | None = None
    gone: frozenset[str] = frozenset()
    is_dirty: bool = False


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
                    state = states[key] = _begun(series, group, seen)
                    dirty.append((group.day, key, state))
                    if state.members:
                        new_members += [(group.day, key, one, at, 0, 0) for one, at in state.members.items()]
                    continue
                state = states[key] = State()
            elif group.events.offsets[group.rows[0]] <= state.position:
                group = group.after(state.position)  # noqa: PLW2901 - the rest of it
                if not group.rows:
                    continue
            _add(state, series, group, seen)
            if series.folds_members:
                new_members += [(group.day, key, *change) for change in _add_members(state, group, seen)]
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


def _begun(series: Series, group: Group, seen: Seen) -> State:
    """The state of a key after its first event, which most keys of a rarely used meter never see a second of."""
    row, place = group.rows[0], group.places[0]
    offset, time_us, digest = group.events.offsets[row], group.events.times_us[row], group.events.digests[row]
    if series.folds_values:
        value = seen.values[place]
        state = State(offset, 1, digest, value, value, value, value, time_us, offset, is_dirty=True)
        if series.folds_moments:
            _fold_moments(state, group, seen.values)
        return state
    if series.folds_members:
        return State(offset, 1, digest, members={seen.members[place]: offset}, is_dirty=True)
    return State(offset, 1, digest, is_dirty=True)


def _add(state: State, series: Series, group: Group, seen: Seen) -> None:
    state.position = group.events.offsets[group.rows[-1]]
    state.events_count += len(group.rows)
    state.digest = sum(map(group.events.digests.__getitem__, group.rows), state.digest) % DIGEST_MODULUS
    if series.folds_values:
        _fold_values(state, group, seen.values)
        if series.folds_moments:
            _fold_moments(state, group, seen.values)


def _add_members(state: State, group: Group, seen: Seen) -> list[tuple[str, int, int, int]]:
    """(member, position, since, gone) of each that was not there."""
    members = state.members = {} if state.members is None else state.members
    came: list[tuple[str, int, int, int]] = []
    for row, place in zip(group.rows, group.places, strict=True):
        member = seen.members[place]
        if member not in members:
            offset = members[member] = group.events.offsets[row]
            came.append((member, offset, offset + 1 if member in state.gone else 0, 0))
    return came


def _fold_values(state: State, group: Group, column: Sequence[Decimal]) -> None:
    values = [column[place] for place in group.places]
    state.value_sum = add_all(state.value_sum, values)
    least, greatest = min(values), max(values)
    if state.value_min is None or least < state.value_min:
        state.value_min = least
    if state.value_max is None or greatest > state.value_max:
        state.value_max = greatest
    times_us = [group.events.times_us[row] for row in group.rows]
    time_us = max(times_us)
    if state.value_latest is None or time_us >= state.latest_time_us:
        # Of equal times the later offset is the latest, and every offset here is later than those folded before.
        at = len(times_us) - 1 - times_us[::-1].index(time_us)
        state.value_latest, state.latest_time_us = values[at], time_us
        state.latest_offset = group.events.offsets[group.rows[at]]


def _fold_moments(state: State, group: Group, column: Sequence[Decimal]) -> None:
    """Add value times seconds since the window began."""
    start_us = group.window_s * 1_000_000
    times_us = group.events.times_us
    moments = [
        EXACT.scaleb(EXACT.multiply(column[place], times_us[row] - start_us), -6)
        for row, place in zip(group.rows, group.places, strict=True)
    ]
    state.value_moment = add_all(state.value_moment, moments)
