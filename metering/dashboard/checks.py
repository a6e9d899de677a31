"""Proofs of runs that were asked for on a page: one run is proved by one thread, and its result is kept."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Final

import msgspec
import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError

from billing_export import runs
from billing_export.verify import together, verify_runs
from metering.clock import Clock
from metering.dashboard.database import Database
from schemas.errors import MeteringError

KEPT_MAX: Final = 200
"""Runs whose last result is kept; the oldest is forgotten."""

_log = structlog.get_logger(__name__)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A proof: running while `ended_at` is None. `problem` says why it came to no result."""

    begun_at: datetime
    events_read: int = 0
    ended_at: datetime | None = None
    lines_count: int = 0
    differences: tuple[str, ...] = ()
    problem: str = ""

    @property
    def is_running(self) -> bool:
        return self.ended_at is None


class Checks:
    """The last proof of each run, for any thread."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._found: dict[str, Check] = {}

    def last(self, run: str) -> Check | None:
        """The last proof of a run, or the one that is running; None when it was never asked for."""
        with self._lock:
            return self._found.get(run)

    def begin(self, run: str) -> Check:
        """Begin a proof; one that is running already goes on instead."""
        with self._lock:
            held = self._found.get(run)
            if held is not None and held.is_running:
                return held
            begun = Check(begun_at=self._clock.now())
            self._found.pop(run, None)
            self._found[run] = begun
            for oldest in [name for name, one in self._found.items() if not one.is_running][:-KEPT_MAX]:
                del self._found[oldest]
        threading.Thread(target=self._prove, args=(run, begun), name=f"verify-{run}", daemon=True).start()
        return begun

    def _prove(self, run: str, begun: Check) -> None:
        def note(**changes: object) -> None:
            with self._lock:
                self._found[run] = msgspec.structs.replace(begun, **changes)

        try:
            with self._database.own_client() as client:
                found = runs.by_id(client, run)
                done = together(verify_runs(client, [found], on_event=lambda count: note(events_read=count)))
        except (MeteringError, ClickHouseError, OSError) as error:
            note(ended_at=self._clock.now(), problem=str(error))
        except Exception:  # noqa: BLE001 - logged whole; the page says that there is something to look at
            _log.exception("verify_failed", run=run)
            note(ended_at=self._clock.now(), problem="the dashboard met an error of its own; its log says more")
        else:
            note(
                ended_at=self._clock.now(),
                events_read=done.events_count,
                lines_count=done.lines_count,
                differences=done.differences,
            )
