"""The state of one rollup key, and how the events of a batch that belong to it change it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import msgspec

from schemas.meter import WINDOW_S, Aggregation, MeterVersion, taken_values
from schemas.meter_columns import Seen
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


def moments_of(times: Sequence[datetime]) -> list[Moment]:
    """The moment of each time, made once for all that share it."""
    moments = {time: Moment(time) for time in set(times)}
    return [moments[time] for time in times]


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


def begun(series: Series, group: Group, seen: Seen) -> State:
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


def add_group(state: State, series: Series, group: Group, seen: Seen) -> None:
    """Fold a group of events, all with offsets after the state's, into a state."""
    state.position = group.events.offsets[group.rows[-1]]
    state.events_count += len(group.rows)
    state.digest = sum(map(group.events.digests.__getitem__, group.rows), state.digest) % DIGEST_MODULUS
    if series.folds_values:
        _fold_values(state, group, seen.values)
        if series.folds_moments:
            _fold_moments(state, group, seen.values)


def add_members(state: State, group: Group, seen: Seen) -> list[tuple[str, int, int, int]]:
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
