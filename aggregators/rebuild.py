"""Rebuilding rollups from the stored events: fills a meter that came later, checks what is written, mends it.

Everything is folded again into a scratch database; only then is it compared with the live tables and the difference
written. Plain events are folded by ClickHouse where they lie, all others by the code that the worker folds with: see
`aggregators.rebuild_plain`. Safe beside running workers: a row is the absolute state of its key up to a position, so an
older one never replaces a newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from aggregators import columns, store
from aggregators.accepted import AcceptedEvents
from aggregators.decide import Decision
from aggregators.group_limit import TABLE as OVERFLOWS
from aggregators.partition import Partition, known_days_filter
from aggregators.rebuild_corrections import RebuildCorrections
from aggregators.rebuild_plain import NOTHING_FOLDED, PlainFold
from aggregators.rebuild_tables import scratch_tables, take_out
from aggregators.store import LedgerEnd
from aggregators.stored_usage import StoredReader, chosen
from aggregators.usage import Usage
from metering import erasure_store
from metering.cluster_client import ClusterClient
from schemas.catalog import AppliedCatalog

OFFSETS_AT_A_TIME: Final = 100_000
ATTEMPTS_MAX: Final = 5
"""How often everything is folded again because corrections were applied to what was folded meanwhile."""
KEYS_AT_A_TIME: Final = 10_000
STATE_KEYS_MAX: Final = 500_000

_EVENTS: Final = """
SELECT offset, digest, raw FROM events FINAL
WHERE epoch = {epoch:String} AND partition = {partition:UInt32} AND offset >= {first:UInt64} AND offset <= {last:UInt64}
  AND type IN {types:Array(String)}
"""
_OF_ODD_DAYS: Final = """
  AND subject IN (SELECT subject FROM {scratch:Identifier}.odd_days)
  AND (subject, toUInt32(intDiv(toUnixTimestamp64Micro(time), 86400000000))) IN
      (SELECT subject, day FROM {scratch:Identifier}.odd_days)
"""
_FILL_COLUMNS: Final = ("meter", "meter_version", "epoch", "partition", "until")
_KEY: Final = "meter, subject, window_start, dimensions, meter_version, epoch, partition, position_first"
_KEYS: Final = {
    "rollups": _KEY,
    "members": f"{_KEY}, member, since",
    OVERFLOWS: "meter, subject, day, meter_version, epoch, partition, position_first, dimension",
}
_WITHIN: Final = (
    "meter IN {meters:Array(String)} AND arrayExists(one -> one.1 = epoch AND one.2 = partition AND position < one.3, "
    "{ends:Array(Tuple(String, UInt32, UInt64))})"
)


class Folded(msgspec.Struct, frozen=True, kw_only=True):
    """One partition's part of a rebuild: its log, and the ledger's end that it goes up to."""

    epoch: str
    partition: int
    end: LedgerEnd

    @property
    def place(self) -> tuple[str, int]:
        """(epoch, partition)."""
        return self.epoch, self.partition


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How a live table differs from what its events say, in rows."""

    table: str
    missing: int
    surplus: int


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """What a rebuild did. `unreadable` counts events that a later meter cannot read; they do not count for it.

    Of `events_read`, ClickHouse folded `events_plain` by itself, and Python the others.
    """

    meters: list[str]
    events_read: int
    events_plain: int
    unreadable: int
    differences: list[Difference]

    @property
    def is_same(self) -> bool:
        """Whether the live tables held just what the events say."""
        return not any(one.missing or one.surplus for one in self.differences)


class Rebuild:
    """Folds the stored events of some meters again and compares or writes the result."""

    def __init__(
        self,
        connect: Callable[[str | None], Client],
        catalog: AppliedCatalog,
        meters: Sequence[str],
        *,
        use_plain: bool = True,
    ) -> None:
        """`connect` gives a client on a database; None is the live one. Without `use_plain` Python folds everything.

        So it does on a cluster, whose shards have parts of a scratch table that a statement cannot count on.
        """
        self._connect = connect
        self._live = connect(None)
        self._catalog = catalog
        self._meters = sorted(meters)
        self._versions = tuple(one for one in catalog.meter_versions if one.meter.name in self._meters)
        self._use_plain = use_plain and not isinstance(self._live, ClusterClient)
        self._events_read = 0
        self._events_plain = 0
        self._unreadable = 0

    def run(self, *, write: bool, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Rebuilt:
        """Fold, compare and, with `write`, mend. `progress` is told offsets done and in all.

        Raises ErasureUnderWayError while a customer is being erased.
        """
        erasure_store.refuse_while_erasing(self._live, "a rebuild")
        differences: list[Difference] = []
        for _ in range(ATTEMPTS_MAX if write else 1):
            parts = self._parts()
            corrections = RebuildCorrections(
                self._live, self._versions, {one.place: one.end.next_offset for one in parts}
            )
            found = self._fold_all(parts, corrections, write=write, progress=progress)
            differences = differences or found
            # A correction that came after its window was folded here, and before the rows of a series that is filled in
            # were written, found nothing to mend there.
            if not corrections.have_grown():
                break
        if write:
            self._record_fills(parts)
        return Rebuilt(
            meters=self._meters,
            events_read=self._events_read,
            events_plain=self._events_plain,
            unreadable=self._unreadable,
            differences=differences,
        )

    def _record_fills(self, parts: Sequence[Folded]) -> None:
        """Say how far each meter version is filled: up to where its live folding began. A close asks for it."""
        rows = [
            (one.meter.name, one.version, part.epoch, part.partition, part.end.position_first(one.introduced_in))
            for one in self._versions
            for part in parts
        ]
        if rows:
            self._live.insert("meter_fills", rows, column_names=_FILL_COLUMNS)

    def _fold_all(
        self,
        parts: Sequence[Folded],
        corrections: RebuildCorrections,
        *,
        write: bool,
        progress: Callable[[int, int], None],
    ) -> list[Difference]:
        total = sum(part.end.next_offset for part in parts)
        with scratch_tables(self._live, self._connect, tuple(_KEYS)) as scratch:
            done = 0
            plain = PlainFold(self._live, scratch, self._versions) if self._use_plain else None
            for part in parts:
                for offsets in self._fold(part, corrections, scratch, plain):
                    done += offsets
                    progress(min(done, total), total)
            return [self._settle(table, scratch, parts, write=write) for table in (OVERFLOWS, "members", "rollups")]

    def _parts(self) -> list[Folded]:
        epochs = [row[0] for row in self._live.query("SELECT DISTINCT epoch FROM positions ORDER BY epoch").result_rows]
        return [
            Folded(epoch=epoch, partition=partition, end=end)
            for epoch in epochs
            for partition, end in sorted(store.ledger_ends(self._live, epoch).items())
        ]

    def _fold(
        self, part: Folded, corrections: RebuildCorrections, scratch: Client, plain: PlainFold | None
    ) -> Iterator[int]:
        """Fold one partition into the scratch tables; yields how many offsets each step went through."""
        live = Partition(part.end, known_days_filter([]))
        live.begin_catalog(self._catalog.version, self._versions)
        first_of = {one: series.position_first for one, series in live.series.items()}
        fill = Partition(
            LedgerEnd(next_offset=0, starts={self._catalog.version: 0}), known_days_filter([]), position_ends=first_of
        )
        fill.begin_catalog(self._catalog.version, self._versions)
        left = NOTHING_FOLDED
        if plain is not None:
            yield from plain.extract(part.place, part.end.next_offset)
            left = plain.fold(part.place, list(live.series.values()), corrections.days(), OFFSETS_AT_A_TIME)
        self._events_read += left.folded
        self._events_plain += left.folded
        reader = StoredReader(self._versions)
        never_counted = corrections.never_counted(part.place)
        statement = _EVENTS if left.ranges is None else _EVENTS + _OF_ODD_DAYS
        for first, last in _ranges(part.end.next_offset) if left.ranges is None else left.ranges:
            usage = self._usage(part, (first, last), reader, statement, scratch)
            for partition, is_live in ((live, True), (fill, False)):
                self._take_in(part, partition, chosen(usage, first_of, is_live=is_live), never_counted, scratch)
            if plain is None:
                yield last - first + 1
        recomputed = corrections.recomputed(part.place, reader.read, scratch)
        while some := list(islice(recomputed, KEYS_AT_A_TIME)):
            for tables in columns.recomputed_tables(some):
                store.insert(scratch, "members", tables.members)
                store.insert(scratch, "rollups", tables.rollups)

    def _usage(
        self, part: Folded, offsets_within: tuple[int, int], reader: StoredReader, statement: str, scratch: Client
    ) -> Usage:
        """What the meters see of the events that a statement finds between two offsets, both included."""
        parameters = {
            "epoch": part.epoch,
            "partition": part.partition,
            "first": offsets_within[0],
            "last": offsets_within[1],
            "types": sorted({one.meter.event_type for one in self._versions}),
            "scratch": scratch.database,
        }
        found = self._live.query(
            f"{statement} ORDER BY offset",
            parameters,
            column_formats={"raw": "bytes"},
        ).result_columns
        offsets, digests, raws = found or ((), (), ())
        self._events_read += len(offsets)
        usage, unreadable = reader.usage(offsets, digests, raws)
        self._unreadable += unreadable
        return usage

    def _take_in(
        self, part: Folded, partition: Partition, usage: Usage, never: frozenset[int], scratch: Client
    ) -> None:
        if not usage.seen:
            return
        decision = Decision(
            epoch=part.epoch,
            topic="",
            partition=part.partition,
            first=usage.offsets[0],
            last=usage.offsets[-1],
            logged_at_last_ms=0,
            accepted=AcceptedEvents(()),
            duplicate=0,
            rejected=[],
            absent=0,
            usage=usage,
        )
        partition.take_in(
            decision, lambda days, series: store.states(scratch, part.epoch, part.partition, days, series), never
        )
        partition.take_pending()
        states, members = partition.fold.take_dirty()
        store.insert(scratch, OVERFLOWS, partition.take_overflows(part.place))
        store.insert(scratch, "members", columns.members_table(part.epoch, part.partition, members, partition.series))
        store.insert(scratch, "rollups", columns.rollups_table(part.epoch, part.partition, states, partition.series))
        if partition.fold.keys_count > STATE_KEYS_MAX:
            partition.fold.forget(STATE_KEYS_MAX // 2, frozenset())

    def _settle(self, table: str, scratch: Client, parts: Sequence[Folded], *, write: bool) -> Difference:
        """Compare a live table with the scratch one up to the ledger's ends, and write what differs."""
        parameters = {
            "meters": self._meters,
            "ends": [(part.epoch, part.partition, part.end.next_offset) for part in parts],
            "scratch": scratch.database,
            "table": table,
        }
        rebuilt = "SELECT * FROM {scratch:Identifier}.{table:Identifier} FINAL"
        # What the live worker has moved on past the ledger's end is newer than this rebuild, and none of its business.
        present = f"SELECT * FROM {{table:Identifier}} FINAL WHERE {_WITHIN}"  # noqa: S608 - constants
        newer = (
            f"SELECT {_KEYS[table]} FROM {{table:Identifier}} FINAL WHERE meter IN {{meters:Array(String)}} "  # noqa: S608
            f"AND NOT ({_WITHIN})"
        )
        wanted = f"{rebuilt} WHERE ({_KEYS[table]}) NOT IN ({newer})"
        missing = _count(self._live, f"{wanted} EXCEPT {present}", parameters)
        surplus = _count(self._live, f"{present} EXCEPT {rebuilt}", parameters)
        if write and surplus:
            # Also rows whose key is right but whose content is not: a newer wrong row would outlive the right one.
            wrong = f"SELECT {_KEYS[table]} FROM ({present} EXCEPT {rebuilt})"  # noqa: S608 - constants
            take_out(self._live, table, key=_KEYS[table], within=_WITHIN, wrong=wrong, parameters=parameters)
        if write and (missing or surplus):
            self._live.command(
                f"INSERT INTO {{table:Identifier}} SELECT * FROM ({wanted} EXCEPT {present})",  # noqa: S608 - constants
                parameters,
                # The block may be one that stood there before, was deleted, and must not be taken for a repeat.
                settings={"insert_deduplicate": 0},
            )
        return Difference(table=table, missing=missing, surplus=surplus)


def _ranges(next_offset: int) -> Iterator[tuple[int, int]]:
    """First and last offset of each step through a whole partition."""
    for first in range(0, next_offset, OFFSETS_AT_A_TIME):
        yield first, min(first + OFFSETS_AT_A_TIME, next_offset) - 1


def _count(client: Client, query: str, parameters: dict[str, object]) -> int:
    return int(client.query(f"SELECT count() FROM ({query})", parameters).result_rows[0][0])  # noqa: S608 - constants
