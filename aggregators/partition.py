"""One assigned partition: where its folding stands, its states, and what waits to be flushed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import pyarrow as pa

from aggregators.catalog_starts import Start
from aggregators.decide import Decision, merge
from aggregators.dedupe import KeyFilter
from aggregators.fold import Fold
from aggregators.group_limit import GroupLimits
from aggregators.recompute import Recomputed
from aggregators.state import DayKey, Group, Series, State, StateKey
from aggregators.store import LedgerEnd
from aggregators.usage import groups, usage_of
from schemas.meter import MeterVersion

LoadDays = Callable[[Sequence[DayKey], Mapping[tuple[str, int], int]], dict[DayKey, dict[StateKey, State]]]
"""Reads the stored states of days, for series given as (meter name, version) → position_first."""


class Partition:
    """Folds the decisions of one partition, in offset order."""

    def __init__(
        self,
        end: LedgerEnd,
        known_days: KeyFilter,
        place: tuple[str, int] = ("", 0),
        position_ends: Mapping[tuple[str, int], int] | None = None,
    ) -> None:
        """`place` is (epoch, partition), `position_ends` where the series end that do not go on."""
        self.place = place
        self.next_offset = end.next_offset
        self.fold = Fold()
        self.limits = GroupLimits(position_ends or {})
        self.pending: list[Decision] = []
        self.recomputed: list[Recomputed] = []
        self._starts = dict(end.starts)
        self._claims = end.claims
        self._known_days = known_days
        self._series: dict[tuple[str, int], Series] = {}
        self._series_of: dict[int, Series] = {}  # by id() of the MeterVersion, which the Series keeps alive

    @property
    def series(self) -> Mapping[tuple[str, int], Series]:
        """Every series folded here, by (meter name, version)."""
        return self._series

    def start_of(self, version: int) -> Start | None:
        """What has to be claimed before this catalog may decide here; None when it has decided here before."""
        if any(one >= version for one in self._starts):
            return None
        return Start(partition=self.place[1], number=self._claims + 1, catalog_version=version, first=self.next_offset)

    def begin_catalog(self, version: int, meter_versions: Sequence[MeterVersion]) -> None:
        """Decide with this catalog from the next offset on. What was decided before must have been taken."""
        start = self.start_of(version)
        if start is not None:
            self._starts[version] = start.first
            self._claims = start.number
        end = LedgerEnd(next_offset=self.next_offset, starts=self._starts)
        for one in meter_versions:
            series = Series(one, end.position_first(one.introduced_in))
            self._series[one.meter.name, one.version] = series
            self._series_of[id(one)] = series

    def take_in(self, decision: Decision, load_days: LoadDays, never_counted: frozenset[int] = frozenset()) -> None:
        """Fold a decision and keep the rest of it for the next flush.

        `never_counted` are the offsets of accepted events that were taken out before they came: their values are seen,
        which a rebuild could not undo, and they are in no state.
        """
        usage = decision.usage
        if usage is None:
            usage = usage_of(decision.accepted)
        grouped = list(groups(usage))
        self._ensure_days(list(dict.fromkeys(one.day for _, found in grouped for one in found)), load_days)
        for seen, found in grouped:
            series = self._series_of[id(seen.version)]
            counted = self.limits.within(series, found, self.fold)
            if never_counted:
                counted = self._begin_uncounted(series, counted, never_counted)
            self.fold.add_groups(series, counted, seen)
        self.pending.append(msgspec.structs.replace(decision, usage=None))
        self.next_offset = decision.last + 1

    def _begin_uncounted(self, series: Series, groups: Sequence[Group], never_counted: frozenset[int]) -> list[Group]:
        """The groups without what does not count; a key that is left with nothing gets its state all the same."""
        counted: list[Group] = []
        for group in groups:
            rest = group.without(never_counted)
            if rest.rows:
                counted.append(rest)
            else:
                self.fold.begin(series, group)
        return counted

    def correct(self, recomputed: Sequence[Recomputed], load_days: LoadDays) -> None:
        """Take in states that were counted again: own ones replace those in memory, the others wait for the flush."""
        own = [one for one in recomputed if self.is_live(one)]
        self._ensure_days(list(dict.fromkeys(one.day for one in own)), load_days)
        for one in own:
            self.fold.replace(one.day, one.key, one.state)
        self.recomputed += recomputed

    def is_live(self, one: Recomputed) -> bool:
        """Whether it is the state of a key that is folded here from now on."""
        series = self._series.get((one.series.name, one.series.number))
        return one.place == self.place and series is not None and one.series.position_first == series.position_first

    def first_of(self, epoch: str, partition: int, version: MeterVersion) -> int | None:
        """The first offset of a version's series here; None for another partition."""
        if (epoch, partition) != self.place:
            return None
        return self._series[version.meter.name, version.version].position_first

    def take_recomputed(self) -> list[Recomputed]:
        """What was counted again since the last call."""
        recomputed, self.recomputed = self.recomputed, []
        return recomputed

    def take_overflows(self, place: tuple[str, int]) -> pa.Table:
        """Rows of `group_overflows`: the days that became full since the last call; `place` is (epoch, partition)."""
        return self.limits.take_new(place, self.fold, self._series)

    def take_pending(self) -> Decision | None:
        """What was folded since the last call, as one decision."""
        pending, self.pending = self.pending, []
        return merge(pending) if pending else None

    def _ensure_days(self, days: Sequence[DayKey], load_days: LoadDays) -> None:
        """Have the states of all these days in memory; only days that may be stored cost a query."""
        absent = [day for day in days if not self.fold.holds(day)]
        maybe = [day for day in absent if _day_key(day) in self._known_days]
        if maybe:
            firsts = {key: one.position_first for key, one in self._series.items()}
            for day, states in load_days(maybe, firsts).items():
                self.fold.put_day(day, states)
        for day in absent:
            if not self.fold.holds(day):
                self.fold.put_day(day, {})
                self._known_days.add(_day_key(day))
        self.fold.touch(days)


def known_days_filter(days: Sequence[DayKey]) -> KeyFilter:
    """A filter of the days that have stored states."""
    known = KeyFilter()
    known.update(_day_key(day) for day in days)
    return known


def _day_key(day: DayKey) -> int:
    return hash(day)
