"""`python -m tests.support.faulty_process COMMAND`: a command of ours that dies, sleeps or errs at named steps.

The product has no hooks for this. The process is the real one; its functions are wrapped from outside before it starts.
What is to happen stands in the variable FAULTS, as JSON of `Faults`. A step may be one of STEPS or of those in
faulty_billing.py, each told `before` and `after` it is done, as in `flush.events.before`.
"""

from __future__ import annotations

import faulthandler
import functools
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from aggregators import store, transport, worker, worker_store
from aggregators.decide import Decider
from aggregators.flush import STEPS as FLUSH_STEPS
from metering import clock
from metering.cli import main
from schemas.erasure import NOBODY
from tests.support.faulty_billing import STEPS as BILLING_STEPS
from tests.support.faulty_billing import inject_billing

VARIABLE: Final = "FAULTS"
STEPS: Final = (
    "take_over.ledger",
    "take_over.identities",
    "decide",
    "commit",
    *(f"flush.{step}" for step in FLUSH_STEPS),
)
"""Steps of a worker."""


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to suffer.

    `at` names a step and `before`, `during` or `after`; `times` says at which occurrence, from 1; `how` is `kill`,
    `stop` (SIGSTOP), `exit` or `sleep`, which sleeps `sleep_s` every time. `clock_s` is added to the machine's clock;
    `clock_jump_s` is added to it again after `clock_jump_after_s` of life. `exit_after_s` ends the process however it
    fares. `is_older` has it work like the version before this one.
    """

    at: str = ""
    times: int = 1
    how: str = "kill"
    sleep_s: float = 0.0
    clock_s: float = 0.0
    clock_jump_s: float = 0.0
    clock_jump_after_s: float = 0.0
    exit_after_s: float = 0.0
    is_older: bool = False


class _Injector:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def reach(self, point: str) -> None:
        """A step is reached; what is to happen there happens."""
        if point != self._faults.at:
            return
        with self._lock:
            self._seen[point] += 1
            seen = self._seen[point]
        if self._faults.how == "sleep":
            time.sleep(self._faults.sleep_s)
        elif seen == self._faults.times:
            end(self._faults.how)

    def during(self, step: str) -> None:
        """Have the end come a moment after the step has begun."""
        point = f"{step}.during"
        if point != self._faults.at:
            return
        self._seen[point] += 1
        if self._seen[point] == self._faults.times:
            timer = threading.Timer(self._faults.sleep_s or 0.003, end, [self._faults.how])
            timer.daemon = True
            timer.start()

    def around(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.reach(f"{step}.before")
            self.during(step)
            result = function(*args, **kwargs)
            self.reach(f"{step}.after")
            return result

        return wrapped


def end(how: str) -> None:
    """End or stop this process, the hard way."""
    if how == "exit":
        os._exit(9)
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[how])


class _SkewedClock(clock.SystemClock):
    faults = Faults()

    def now(self) -> datetime:
        faults = type(self).faults
        jumped = faults.clock_jump_s if time.monotonic() - _STARTED_S > faults.clock_jump_after_s else 0.0
        return super().now() + timedelta(seconds=faults.clock_s + jumped)


_STARTED_S: Final = time.monotonic()


OLDER_VERSION: Final = "0.0.9"
NEWER_COLUMNS: Final = {"events": ("receipt_digest",), "rollups": ("value_moment",), "members": ("since", "gone")}
"""Columns that migrations added to tables a worker writes; without corrections, stocks and erasures: their defaults."""


def become_older() -> None:
    """Work as the version before this one: no pauses or erasures (migrations 21 and 22), no column added later."""
    insert = store.insert

    def inserting(client: Client, table: str, rows: pa.Table, *, settings: Mapping[str, int] | None = None) -> None:
        newer = [name for name in NEWER_COLUMNS.get(table, ()) if name in rows.column_names]
        for name in newer:
            if any(any(one) if isinstance(one, bytes) else one for one in rows.column(name).to_pylist()):
                raise SystemExit(f"an older version cannot have made a {name} in {table}")
        insert(client, table, rows.drop_columns(newer), settings=settings)

    store.insert = inserting
    worker_store.WorkerStore.erasures = lambda self: NOBODY  # type: ignore[method-assign]  # noqa: ARG005 - in its place
    worker.Worker._customer_being_erased = lambda self: ""  # type: ignore[method-assign]  # noqa: ARG005 - as above
    worker_store.WorkerStore.last_pauses = lambda self: {}  # type: ignore[method-assign]  # noqa: ARG005 - in its place
    worker_store.WorkerStore.rejected_offsets = lambda *_: []  # type: ignore[method-assign]
    worker.CODE_VERSION = OLDER_VERSION  # type: ignore[attr-defined]


def inject(faults: Faults) -> None:
    """Wrap the steps of a worker. A step that is no longer there is an error, not a fault that never happens."""
    injector = _Injector(faults)
    point = faults.at.rpartition(".")[0]
    known = (*STEPS, *BILLING_STEPS)
    if point and point not in known:
        raise SystemExit(f"no step is called {point!r}; there are {', '.join(known)}")
    if faults.is_older:
        become_older()
    working = worker_store.WorkerStore
    insert = working._insert
    working.ledger_ends = injector.around("take_over.ledger", working.ledger_ends)  # type: ignore[method-assign]
    working.identity_keys = injector.around("take_over.identities", working.identity_keys)  # type: ignore[method-assign]
    Decider.decide = injector.around("decide", Decider.decide)  # type: ignore[method-assign]
    transport._commit = injector.around("commit", transport._commit)

    def inserting(self: worker_store.WorkerStore, table: str, rows: Any) -> None:
        injector.around(f"flush.{table}", insert)(self, table, rows)

    working._insert = inserting  # type: ignore[method-assign]
    sink = worker_store._RetriedSink
    sink.send = injector.around("flush.dead_letters_topic", sink.send)  # type: ignore[method-assign]
    if point in BILLING_STEPS:
        inject_billing(injector.around)
    _SkewedClock.faults = faults
    clock.SystemClock = _SkewedClock  # type: ignore[misc]
    if faults.exit_after_s:
        timer = threading.Timer(faults.exit_after_s, end, ["exit"])
        timer.daemon = True
        timer.start()


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)  # a process that hangs can be asked where
    inject(msgspec.json.decode(os.environ.pop(VARIABLE), type=Faults))
    sys.argv[0] = "metering"
    main()
