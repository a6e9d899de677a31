"""Which values of a dimension a day keeps once there are more than its meter takes. Pure.

A day of one subject keeps the values that came first in the log; every later one reads as `other`. What is decided
never changes: a value that was kept stays, and a set that is full stays full.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec

from schemas.meter import OTHER, MeterVersion
from schemas.usage_event import UsageEvent

_EPOCH_START: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Overflow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A dimension of a subject's day that had more values than its meter takes, within one series of rollups.

    `day` counts UTC days from 1970; the series goes from offset `position_first` to before `position_end`.
    """

    meter: str
    meter_version: int
    subject: str
    day: int
    epoch: str
    partition: int
    position_first: int
    position_end: int
    dimension: str
    kept: frozenset[str]


_Key = tuple[str, int, str, int, str, int]


class Overflows:
    """Looks up what an event's dimensions read as."""

    def __init__(self, rows: Iterable[Overflow] = ()) -> None:
        self._rows: dict[_Key, list[Overflow]] = {}
        for one in rows:
            key = (one.meter, one.meter_version, one.subject, one.day, one.epoch, one.partition)
            self._rows.setdefault(key, []).append(one)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._rows)

    def dimensions(
        self, version: MeterVersion, event: UsageEvent, place: tuple[str, int, int], dimensions: tuple[str, ...]
    ) -> tuple[str, ...]:
        """What the rollups say for an event at (epoch, partition, offset) whose values are `dimensions`."""
        if not self._rows or not dimensions:
            return dimensions
        meter = version.meter
        epoch, partition, offset = place
        day = (event.time - _EPOCH_START).days
        found = self._rows.get((meter.name, version.version, event.subject, day, epoch, partition), ())
        kept = {one.dimension: one.kept for one in found if one.position_first <= offset < one.position_end}
        if not kept:
            return dimensions
        return tuple(
            OTHER if name in kept and value not in kept[name] else value
            for name, value in zip(sorted(meter.group_by), dimensions, strict=True)
        )


NO_OVERFLOWS: Final = Overflows()
