"""How quickly `metering rebuild` folds stored events again, and what a worker holds after many distinct events."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from aggregators.rebuild import Rebuild
from benchmarks.stack import fill_log, fresh_database, python_process, wait_for
from metering import catalog_store
from metering.clickhouse import connect
from metering.config import Settings

TIMEOUT_S: Final = 1_800.0
CHUNK_EVENTS: Final = 500_000
_KIB_A_MIB: Final = 1024


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's resident memory in MiB: when half of the events were folded, at the end, and the most at any look."""

    half_mib: int
    end_mib: int
    most_mib: int


def rebuild_rate(settings: Settings, name: str, *, use_plain: bool = True) -> float:
    """Events a second of a rebuild of every meter over the events of database `name`, which must change nothing.

    Without `use_plain` Python folds them all, else ClickHouse must.
    """
    settings = msgspec.structs.replace(settings, clickhouse_database=name)

    def connected(database: str | None) -> Client:
        return connect(
            settings if database is None else msgspec.structs.replace(settings, clickhouse_database=database)
        )

    client = connected(None)
    catalog = catalog_store.load(client, 1)
    rebuild = Rebuild(connected, catalog, list(catalog.meters), use_plain=use_plain)
    started_s = time.monotonic()
    done = rebuild.run(write=False)
    elapsed_s = time.monotonic() - started_s
    client.close()
    if not done.is_same:
        raise AssertionError(f"the rebuild differs from what the worker wrote: {done.differences}")
    if done.events_plain != (done.events_read if use_plain else 0):
        raise AssertionError(f"ClickHouse folded {done.events_plain:,} of {done.events_read:,} events")
    return done.events_read / elapsed_s


def held_memory(settings: Settings, name: str, count: int, on_progress: Callable[[int], None]) -> Held:
    """What one worker holds while it folds `count` distinct events of a log that starts empty."""
    settings = fresh_database(settings, name)
    client = connect(settings)
    looks: list[tuple[int, int]] = []
    with python_process(settings, "-m", "metering", "worker") as process:

        def folded() -> int:
            done = int(client.query("SELECT sum(accepted) FROM positions").result_rows[0][0])
            looks.append((done, _resident_mib(process.pid)))
            on_progress(done)
            return done

        for first in range(0, count, CHUNK_EVENTS):
            fill_log(settings, min(CHUNK_EVENTS, count - first), first=first)
            folded()
        wait_for(process, lambda: folded() >= count, TIMEOUT_S)
        looks.append((count, _resident_mib(process.pid)))
    client.close()
    return Held(
        half_mib=next(mib for done, mib in looks if done >= count // 2),
        end_mib=looks[-1][1],
        most_mib=max(mib for _, mib in looks),
    )


def _resident_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) // _KIB_A_MIB
