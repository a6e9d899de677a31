"""Counting windows again from what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar

from clickhouse_connect.driver.client import Client

from aggregators import correction_store, store
from aggregators.correction_store import RowKey, Window
from aggregators.facts import Place
from aggregators.recompute import Measure, Recomputed, WindowEvent, recompute
from metering import group_overflows
from schemas.group_overflow import Overflows
from schemas.meter import MeterVersion
from schemas.usage_event import decode_event

_Result = TypeVar("_Result")

WINDOWS_AT_A_TIME: Final = 200
"""Windows whose events are in memory together while they are counted again."""


class Read(Protocol):
    """Asks ClickHouse something; the first argument says what, for the log."""

    def __call__(self, what: str, call: Callable[[Client], _Result], /) -> _Result: ...


class Recounting:
    """Counts windows again from what is stored, up to a place in each partition."""

    def __init__(
        self,
        read: Read,
        versions: Sequence[MeterVersion],
        *,
        measure: Measure,
        is_past: Callable[[Place], bool],
        first_of: Callable[[str, int, MeterVersion], int | None] = lambda _epoch, _partition, _version: None,
        overflows: Read | None = None,
    ) -> None:
        """`is_past` says what is within reach; `first_of` where live folding began, None where the ledger says it.

        `overflows` reads which values days keep, where they are kept elsewhere than what `read` asks.
        """
        self._read = read
        self._measure = measure
        self._is_past = is_past
        self._types = sorted({one.meter.event_type for one in versions})
        self._meters = sorted({one.meter.name for one in versions})
        self._first_of = first_of
        self._read_overflows = overflows or read
        self._ledgers: dict[str, dict[int, store.LedgerEnd]] = {}

    def recount(self, windows: Sequence[Window]) -> Iterator[Recomputed]:
        """The rows of every key in the windows that something was taken out of."""
        if not self._types:
            return
        for start in range(0, len(windows), WINDOWS_AT_A_TIME):
            chunk = windows[start : start + WINDOWS_AT_A_TIME]
            yield from recompute(self._events(chunk), self._measure, self._live_from, self._overflows(chunk))

    def written(self, windows: Sequence[Window]) -> set[RowKey]:
        """Which rollups of the windows are written."""
        found: set[RowKey] = set()
        for start in range(0, len(windows), WINDOWS_AT_A_TIME):
            found |= self._read(
                "rollups of windows",
                _of(correction_store.window_rows, windows[start:][:WINDOWS_AT_A_TIME], self._meters),
            )
        return found

    def _overflows(self, windows: Sequence[Window]) -> Overflows:
        starts = [datetime.fromtimestamp(start_s, UTC) for _, start_s in windows]
        subjects = sorted({subject for subject, _ in windows})
        return self._read_overflows(
            "overflows of windows",
            lambda client: group_overflows.read(client, self._meters, min(starts), max(starts), subjects),
        )

    def _events(self, windows: Sequence[Window]) -> list[WindowEvent]:
        outs = self._read("corrections of windows", _of(correction_store.window_outs, windows, self._types))
        raws = self._read("events of windows", _of(correction_store.window_events, windows, self._types))
        found: list[WindowEvent] = []
        for place, digest, raw in raws:
            if self._is_past(place):
                event = decode_event(raw)
                places = outs.get((event.subject, event.source, event.id), ())
                past = [one for one in places if self._is_past(one)]
                found.append(WindowEvent(event, *place, digest, past))
        return found

    def _live_from(self, epoch: str, partition: int, version: MeterVersion) -> int:
        first = self._first_of(epoch, partition, version)
        if first is not None:
            return first
        ends = self._ledgers.get(epoch)
        if ends is None:
            ends = self._ledgers[epoch] = self._read("ledger", lambda client: store.ledger_ends(client, epoch))
        end = ends.get(partition)
        return 0 if end is None else end.position_first(version.introduced_in)


def _of(
    call: Callable[[Client, Sequence[Window], Sequence[str]], _Result], windows: Sequence[Window], names: Sequence[str]
) -> Callable[[Client], _Result]:
    return lambda client: call(client, windows, names)
