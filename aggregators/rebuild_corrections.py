"""The corrections that a rebuild has to apply: which events to leave out, and which windows to count again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC
from typing import Final, NamedTuple, TypeVar

from clickhouse_connect.driver.client import Client

from aggregators import correction_store
from aggregators.correction_store import Window
from aggregators.facts import Place, StoredEvent
from aggregators.recompute import Measure, Recomputed
from aggregators.recount import Recounting
from aggregators.state import DAY_S, DayKey
from schemas.meter import MeterVersion

_Result = TypeVar("_Result")

_TAKEN: Final = """
SELECT subject, event_type, event_time, event_epoch, event_partition, event_offset, epoch, partition, offset
FROM corrections FINAL WHERE event_known AND event_type IN {types:Array(String)}
"""

Ends = Mapping[tuple[str, int], int]
"""The offset after the ledger's end by (epoch, partition)."""


class _Taken(NamedTuple):
    window: Window
    event: Place
    by: Place


class RebuildCorrections:
    """The corrections of some meters' events as of the ledger's ends."""

    def __init__(self, client: Client, versions: Sequence[MeterVersion], ends: Ends) -> None:
        self._client = client
        self._versions = versions
        self._types = sorted({one.meter.event_type for one in versions})
        self._ends = ends
        self._taken = [one for one in self._read() if self._is_past(one.by) and self._is_past(one.event)]

    def days(self) -> list[DayKey]:
        """The days of subjects that any of them touches, on any partition."""
        return sorted({(subject, window_s // DAY_S) for (subject, window_s), _, _ in self._taken})

    def never_counted(self, place: tuple[str, int]) -> frozenset[int]:
        """The offsets of a partition's events that a correction before them in the same partition takes out."""
        return frozenset(
            one.event[2]
            for one in self._taken
            if one.event[:2] == place and one.by[:2] == place and one.by[2] < one.event[2]
        )

    def recomputed(self, place: tuple[str, int], measure: Measure, folded: Client) -> Iterator[Recomputed]:
        """The rows of a partition's keys that corrections touched; `folded` knows which values the days keep."""
        recounting = Recounting(
            self._ask,
            self._versions,
            measure=measure,
            is_past=self._is_past,
            overflows=lambda _what, call: call(folded),
        )
        windows = sorted({one.window for one in self._taken if one.event[:2] == place})
        return (one for one in recounting.recount(windows) if one.place == place)

    def have_grown(self) -> bool:
        """Whether corrections beyond the ledger's ends are there by now."""
        return any(not self._is_past(one.by) for one in self._read())

    def _ask(self, _what: str, call: Callable[[Client], _Result]) -> _Result:
        return call(self._client)

    def _is_past(self, place: Place) -> bool:
        return place[2] < self._ends.get(place[:2], 0)

    def _read(self) -> Iterator[_Taken]:
        with self._client.query_row_block_stream(_TAKEN, {"types": self._types}) as blocks:
            for block in blocks:
                for subject, type_, time, *places in block:
                    event: Place = (places[0], places[1], places[2])
                    window = correction_store.window_of(StoredEvent(type_, time.replace(tzinfo=UTC), event), subject)
                    yield _Taken(window, event, (places[3], places[4], places[5]))
