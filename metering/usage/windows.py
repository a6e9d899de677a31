"""Which stretches of time an answer has a line for, and which rollup windows lie inside one. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from schemas.errors import RequestError
from schemas.meter import WINDOW_S
from schemas.usage_query import Window
from schemas.zone import day_start

WINDOWS_MAX: Final = 200_000
"""Most windows one question may ask for: five years of 15 minutes, twenty-two years of hours."""

_US: Final = 1_000_000
_WINDOW_US: Final = WINDOW_S * _US
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Windows of equal length, one after the other; both in seconds since 1970, UTC."""

    start_s: int
    step_s: int


class WindowPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The windows of an answer: window i is [edges_us[i], edges_us[i + 1]), in microseconds since 1970, UTC.

    Rollup windows that start in [full_from_s, full_to_s) lie inside one window each, except those in
    `split_quarters_s`, which an edge of the plan cuts: what is in these is counted from events.
    """

    edges_us: tuple[int, ...]
    full_from_s: int
    full_to_s: int
    split_quarters_s: tuple[int, ...]
    runs: tuple[Run, ...]

    @property
    def count(self) -> int:
        return len(self.edges_us) - 1

    def index_at(self, moment_us: int) -> int:
        """The window an instant of the asked range is in."""
        return bisect_right(self.edges_us, moment_us) - 1

    def bounds(self, index: int) -> tuple[datetime, datetime]:
        """Start and end of a window, UTC."""
        return from_us(self.edges_us[index]), from_us(self.edges_us[index + 1])


def plan_windows(start: datetime, end: datetime, window: Window, zone: ZoneInfo) -> WindowPlan:
    """Cut [start, end) into windows; the first and the last are as short as the range makes them.

    15-minute windows are those of the rollups, in UTC. Hours run from one full hour on the zone's clocks to the next,
    so that a zone that shifts by half an hour has an hour of 90 minutes.
    Raises RequestError for more than WINDOWS_MAX windows.
    """
    start_us, end_us = to_us(start), to_us(end)
    edges = [start_us]
    for moment in _EDGES[window](start, zone):
        moment_us = to_us(moment)
        if moment_us >= end_us:
            break
        if moment_us > edges[-1]:
            edges.append(moment_us)
        if len(edges) > WINDOWS_MAX:
            raise RequestError(
                f"the range has more than {WINDOWS_MAX} windows of {window.value}",
                where="window",
                fix="Ask for a shorter range or a longer window",
            )
    edges.append(end_us)
    split = {edge - edge % _WINDOW_US for edge in edges if edge % _WINDOW_US}
    return WindowPlan(
        edges_us=tuple(edges),
        full_from_s=-(-start_us // _WINDOW_US) * WINDOW_S,
        full_to_s=end_us // _WINDOW_US * WINDOW_S,
        split_quarters_s=tuple(sorted(edge // _US for edge in split)),
        runs=_runs(edges),
    )


def with_opening(plan: WindowPlan) -> WindowPlan:
    """The plan with one more window before the others, in which is all time since 1970."""
    edges = [0, *plan.edges_us]
    return WindowPlan(
        edges_us=tuple(edges),
        full_from_s=0,
        full_to_s=plan.full_to_s,
        split_quarters_s=plan.split_quarters_s,
        runs=_runs(edges),
    )


def to_us(moment: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(moment_us: int) -> datetime:
    """The instant, in UTC."""
    return _EPOCH + timedelta(microseconds=moment_us)


def _runs(edges: list[int]) -> tuple[Run, ...]:
    """Windows of equal length as one run each. The first starts on its rollup window, the last may run over.

    An edge between seconds, which only the one after an opening window can be, starts on the next second: the first
    whole rollup window after it comes no sooner, and what starts before it belongs to the window before.
    """
    starts_s = [edges[0] // _WINDOW_US * WINDOW_S, *(-(-edge // _US) for edge in edges[1:-1])]
    runs: list[Run] = []
    for start_s, next_s in zip(starts_s, [*starts_s[1:], -(-edges[-1] // _US)], strict=True):
        if not runs or runs[-1].step_s != next_s - start_s:
            runs.append(Run(start_s=start_s, step_s=next_s - start_s))
    return tuple(runs)


def _quarters(start: datetime, _zone: ZoneInfo) -> Iterator[datetime]:
    moment = from_us(to_us(start) // _WINDOW_US * _WINDOW_US)
    while True:
        moment += timedelta(seconds=WINDOW_S)
        yield moment


def _hours(start: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    moment = start
    while True:
        local = moment.astimezone(zone)
        into_hour = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        moment += timedelta(hours=1) - into_hour
        # A clock that was set by part of an hour meanwhile shows no full hour here: the next turn of the loop
        # steps on to one.
        if not (moment.astimezone(zone).minute or moment.astimezone(zone).second):
            yield moment


def _days(start: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    day = start.astimezone(zone).date()
    while True:
        yield day_start(day, zone)
        day += timedelta(days=1)


def _months(start: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    day = start.astimezone(zone).date().replace(day=1)
    while True:
        yield day_start(day, zone)
        day = (day + timedelta(days=31)).replace(day=1)


def _none(_start: datetime, _zone: ZoneInfo) -> Iterator[datetime]:
    return iter(())


_EDGES: Final[dict[Window, Callable[[datetime, ZoneInfo], Iterator[datetime]]]] = {
    Window.QUARTER_HOUR: _quarters,
    Window.HOUR: _hours,
    Window.DAY: _days,
    Window.MONTH: _months,
    Window.TOTAL: _none,
}
