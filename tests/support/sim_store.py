"""ClickHouse as far as a worker knows it, in memory: rows replace each other by their key, and nothing is atomic."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa

from aggregators import catalog_starts
from aggregators.catalog_starts import Start
from aggregators.decide import Decision
from aggregators.dedupe import Identity, KeyFilter, Standing, identity_key
from aggregators.flush import Flush, write_flush
from aggregators.partition import known_days_filter
from aggregators.state import DAY_S, DayKey, State, StateKey
from aggregators.store import LedgerEnd, ends_of
from metering.partition_pauses import Pause
from schemas.catalog import AppliedCatalog
from schemas.erasure import NOBODY, Erasures

EPOCH = "cluster/log"
SMALL_FILTER = 1_000

RollupKey = tuple[str, str, int, tuple[tuple[str, str], ...], int, int, int]
"""(meter, subject, window start in seconds, dimensions, meter version, partition, position_first)."""


class Write(msgspec.Struct, frozen=True):
    """One insert of a flush; `rows` are its rows, or for the dead-letter topic the decision."""

    table: str
    rows: list[dict[str, Any]]
    is_last: bool = False


class SimTables:
    """What every worker writes to and reads from."""

    def __init__(self) -> None:
        self.events: dict[tuple[Identity, int, int], tuple[bytes, int]] = {}
        self.rollups: dict[RollupKey, dict[str, Any]] = {}
        self.members: dict[tuple[RollupKey, str], int] = {}
        self.letters: dict[tuple[int, int], str] = {}
        self.sent_letters: set[tuple[int, int, str]] = set()
        self.ledger: dict[tuple[int, int, int], dict[str, Any]] = {}
        self.starts: dict[int, list[Start]] = defaultdict(list)

    def apply(self, write: Write, rows: Sequence[dict[str, Any]]) -> None:
        """Put rows in, as a replacing table has them once it has merged."""
        for row in rows:
            getattr(self, f"_put_{write.table}")(row)

    def _put_events(self, row: dict[str, Any]) -> None:
        identity = (row["subject"], row["source"], row["id"])
        self.events[identity, row["partition"], row["offset"]] = row["raw"], _number(row["digest"])

    def _put_rollups(self, row: dict[str, Any]) -> None:
        present = self.rollups.get(_key(row))
        if present is None or row["position"] >= present["position"]:
            self.rollups[_key(row)] = row

    def _put_members(self, row: dict[str, Any]) -> None:
        self.members[_key(row), row["member"]] = row["position"]

    def _put_dead_letters_topic(self, row: dict[str, Any]) -> None:
        self.sent_letters.add((row["partition"], row["offset"], row["reason"]))

    def _put_dead_letters(self, row: dict[str, Any]) -> None:
        self.letters[row["partition"], row["offset"]] = row["reason"]

    def _put_positions(self, row: dict[str, Any]) -> None:
        self.ledger[row["partition"], row["first"], row["last"]] = row


class SimStore:
    """One worker's view, in place of WorkerStore. Writes are handed over as a list, to be done one at a time."""

    def __init__(self, tables: SimTables, catalogs: list[AppliedCatalog]) -> None:
        self._tables = tables
        self._catalogs = catalogs
        self.stopping = threading.Event()
        self.waiting_for = ""

    def stop(self) -> None:
        self.stopping.set()

    def catalog(self, known: AppliedCatalog | None) -> AppliedCatalog | None:
        newest = self._catalogs[-1]
        return known if known is not None and known.version == newest.version else newest

    def identity_keys(self) -> list[int]:
        return [identity_key(identity) for identity, _, _ in self._tables.events]

    def taken_keys(self) -> list[int]:
        return []  # this world has no corrections

    def erasures(self) -> Erasures:
        return NOBODY  # nor has anybody been erased in it

    def known_days(self, partition: int) -> KeyFilter:
        return known_days_filter([(key[1], key[2] // DAY_S) for key in self._tables.rollups if key[5] == partition])

    def ledger_ends(self, partitions: Sequence[int]) -> dict[int, LedgerEnd]:
        batches = [
            (partition, row["catalog_version"], first, last)
            for (partition, first, last), row in self._tables.ledger.items()
        ]
        ends = ends_of(batches, self._tables.starts)
        return {one: ends.get(one, LedgerEnd(next_offset=0, starts={})) for one in partitions}

    def last_pauses(self) -> dict[int, Pause]:
        return {}  # this world has no limit

    def claim_starts(self, wanted: Sequence[Start]) -> None:
        for one in wanted:
            held = self._tables.starts[one.partition]
            if len(held) < one.number:  # what the insert token of a number does
                held.append(one)
        catalog_starts.check_claims(wanted, self._tables.starts, EPOCH)

    def standings(self, identities: Sequence[Identity]) -> dict[Identity, list[Standing]]:
        wanted = set(identities)
        found: dict[Identity, list[Standing]] = defaultdict(list)
        for (identity, partition, offset), (_, digest) in self._tables.events.items():
            if identity in wanted:
                found[identity].append(Standing(EPOCH, partition, offset, digest))
        return found

    def states(
        self, partition: int, days: Sequence[DayKey], series: Mapping[tuple[str, int], int]
    ) -> dict[DayKey, dict[StateKey, State]]:
        loaded: dict[DayKey, dict[StateKey, State]] = {day: {} for day in days}
        for key, row in self._tables.rollups.items():
            day = (key[1], key[2] // DAY_S)
            if key[5] == partition and day in loaded and series.get((key[0], key[4])) == key[6]:
                loaded[day][_state_key(key)] = _state(row)
        for (key, member), position in self._tables.members.items():
            day = (key[1], key[2] // DAY_S)
            if key[5] == partition and day in loaded and series.get((key[0], key[4])) == key[6]:
                state = loaded[day].setdefault(_state_key(key), State())
                state.members = {**(state.members or {}), member: position}
        return loaded


def writes_of(flush: Flush) -> list[Write]:
    """What the real flush would do, in its order, without doing it."""
    done: list[Write] = []

    class Letters:
        def send(self, decision: Decision) -> None:
            rows = [
                {"partition": decision.partition, "offset": one.offset, "reason": one.reason}
                for one in decision.rejected
            ]
            done.append(Write("dead_letters_topic", rows))

    write_flush(
        flush,
        lambda table, rows: done.append(Write(table, _rows(rows))),
        Letters(),
        flushed_at=datetime(2013, 3, 1, tzinfo=UTC),
        worker="sim",
        code_version="sim",
        reached=lambda _step: None,
    )
    return done


def some_of(rows: Sequence[dict[str, Any]], chance: random.Random) -> list[dict[str, Any]]:
    """Part of an insert: each of a table's partitions appears by itself."""
    return [row for row in rows if chance.random() < 0.5]


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _key(row: dict[str, Any]) -> RollupKey:
    return (
        row["meter"],
        row["subject"],
        int(row["window_start"].timestamp()),
        tuple(row["dimensions"]),
        row["meter_version"],
        row["partition"],
        row["position_first"],
    )


def _state_key(key: RollupKey) -> StateKey:
    return key[0], key[4], key[2], tuple(value for _, value in key[3])


def _state(row: dict[str, Any]) -> State:
    state = State()
    for name in ("position", "events_count", "value_sum", "value_min", "value_max", "value_latest", "latest_offset"):
        setattr(state, name, row[name])
    state.latest_time_us = round(row["latest_time"].timestamp() * 1_000_000)
    state.digest = _number(row["digest"])
    return state


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little")
