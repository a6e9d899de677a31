"""Numbers that take longer than a page may: counted beside the pages, shown with the time they were counted at.

Nothing is counted while nobody looks. The first look waits a moment, and finds either the number or that it is being
counted; later looks find the last one, and have it counted anew once it is old.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from datetime import datetime
from typing import Final, Generic, TypeVar

import msgspec
import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError

from metering.clock import Clock
from schemas.errors import MeteringError

PATIENCE_S: Final = 0.1
"""How long a page waits for a number that was never counted."""

NAMES_MAX: Final = 500
"""Numbers of one kind that are kept; the one that was looked at longest ago is forgotten."""

_AT_ONCE: Final = threading.BoundedSemaphore(4)
"""How much is counted at the same time: ClickHouse has pages to answer, too."""

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class Shown(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What a page can show: the `value` as of `at`, and the `problem` of the last try. Neither: it is being counted."""

    value: T | None = None
    at: datetime | None = None
    problem: str = ""

    @property
    def is_waiting(self) -> bool:
        """Whether nothing is known yet."""
        return self.value is None and not self.problem


class Held(Generic[T]):
    """One number (or page full of them), counted by one thread at a time."""

    def __init__(
        self, name: str, count: Callable[[], T], clock: Clock, *, fresh_s: float, patience_s: float = PATIENCE_S
    ) -> None:
        self._name = name
        self._count = count
        self._clock = clock
        self._fresh_s = fresh_s
        self._patience_s = patience_s
        self._state = threading.Condition()
        self._counting = False
        self._begun_at_s = 0.0
        self._counted_at_s: float | None = None
        self._shown: Shown[T] = Shown()

    def begin(self) -> None:
        """Have it counted if it is not known or old, so that a page with several waits for all of them at once."""
        with self._state:
            self._begin()

    def get(self) -> Shown[T]:
        """What is known now; where that is nothing, after waiting until a moment after the count began."""
        with self._state:
            self._begin()
            left_s = self._patience_s - (self._clock.monotonic_s() - self._begun_at_s)
            self._state.wait_for(lambda: not self._shown.is_waiting, timeout=max(0.0, left_s))
            return self._shown

    def _begin(self) -> None:
        now_s = self._clock.monotonic_s()
        old = self._counted_at_s is None or now_s - self._counted_at_s >= self._fresh_s
        if old and not self._counting:
            self._counting, self._begun_at_s = True, now_s
            threading.Thread(target=self._run, name=f"count-{self._name}", daemon=True).start()

    def _run(self) -> None:
        value: T | None = None
        problem = ""
        try:
            with _AT_ONCE:
                value = self._count()
        except (MeteringError, ClickHouseError, OSError) as error:
            problem = str(error)
            _log.warning("not_counted", what=self._name, detail=problem)
        except Exception:  # noqa: BLE001 - logged whole; the page says that there is something to look at
            problem = "the dashboard met an error of its own; its log says more"
            _log.exception("not_counted", what=self._name)
        with self._state:
            if problem:
                self._shown = msgspec.structs.replace(self._shown, problem=problem)
            else:
                self._shown = Shown(value=value, at=self._clock.now())
            self._counting = False
            self._counted_at_s = self._clock.monotonic_s()
            self._state.notify_all()


class HeldByName(Generic[T]):
    """A number of the same kind for each of many names."""

    def __init__(self, make: Callable[[str, Callable[[], T]], Held[T]], kind: str) -> None:
        self._make = make
        self._kind = kind
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, Held[T]] = OrderedDict()

    def begin(self, name: Hashable, count: Callable[[], T]) -> None:
        """Have it counted if it is not known or old, see `Held.begin`."""
        self._of(name, count).begin()

    def get(self, name: Hashable, count: Callable[[], T]) -> Shown[T]:
        """What is known under a name now; `count` counts it where nobody has asked for it lately."""
        return self._of(name, count).get()

    def _of(self, name: Hashable, count: Callable[[], T]) -> Held[T]:
        with self._lock:
            held = self._held.get(name)
            if held is None:
                held = self._held[name] = self._make(self._kind, count)
            self._held.move_to_end(name)
            while len(self._held) > NAMES_MAX:
                self._held.popitem(last=False)
        return held
