"""What the worker reads from ClickHouse and writes to it. Every write can be repeated and changes nothing then."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from aggregators import catalog_starts
from aggregators.dedupe import Identity, Standing
from aggregators.state import DAY_S, DayKey, State, StateKey

_Item = TypeVar("_Item", bound=tuple[Any, ...])

PARAMETER_BYTES_MAX: Final = 60_000
"""ClickHouse takes form fields of up to 128 KiB; escaping may double a text."""

_IDENTITY_KEYS: Final = """
SELECT xxh3(concat(toString(length(subject)), ':', subject, toString(length(source)), ':', source, id)) AS key
FROM events WHERE logged_at >= {since:DateTime64(3, 'UTC')}
"""
_DAYS: Final = """
SELECT DISTINCT subject, intDiv(toUnixTimestamp(window_start), 86400) AS day
FROM rollups WHERE epoch = {epoch:String} AND partition = {partition:UInt32}
"""
_REJECTED: Final = """
SELECT DISTINCT offset FROM dead_letters
WHERE epoch = {epoch:String} AND partition = {partition:UInt32}
  AND offset >= {first:UInt64} AND offset < {following:UInt64}
ORDER BY offset
"""
_STANDINGS: Final = """
SELECT subject, source, id, epoch, partition, offset, digest
FROM events WHERE (subject, source, id) IN {identities:Array(Tuple(String, String, String))}
"""
_STATES: Final = """
SELECT subject, meter, meter_version, toUnixTimestamp(window_start) AS window_s,
       mapValues(dimensions) AS dimension_values, position, events_count, value_sum,
       value_min, value_max, value_latest, toUnixTimestamp64Micro(latest_time), latest_offset, digest, value_moment
FROM rollups FINAL
WHERE epoch = {epoch:String} AND partition = {partition:UInt32}
  AND (meter, meter_version, position_first) IN {series:Array(Tuple(String, UInt32, UInt64))}
  AND meter IN {meters:Array(String)} AND subject IN {subjects:Array(String)}
  AND window_start >= {start:DateTime('UTC')} AND window_start < {end:DateTime('UTC')}
  AND (subject, intDiv(toUnixTimestamp(window_start), 86400)) IN {days:Array(Tuple(String, UInt32))}
"""
_MEMBERS: Final = """
SELECT subject, meter, meter_version, toUnixTimestamp(window_start) AS window_s,
       mapValues(dimensions) AS dimension_values, member, position, since, gone
FROM members FINAL
WHERE epoch = {epoch:String} AND partition = {partition:UInt32}
  AND (meter, meter_version, position_first) IN {series:Array(Tuple(String, UInt32, UInt64))}
  AND meter IN {meters:Array(String)} AND subject IN {subjects:Array(String)}
  AND window_start >= {start:DateTime('UTC')} AND window_start < {end:DateTime('UTC')}
  AND (subject, intDiv(toUnixTimestamp(window_start), 86400)) IN {days:Array(Tuple(String, UInt32))}
ORDER BY since
"""


_QUICK: Final = {"optimize_on_insert": 0}
"""Rows of one insert are different rows: to look for ones that replace another in it would double what it costs."""


class LedgerEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Where a partition's ledger stands. `starts`: catalog version → first offset decided with it.

    `claims` is how many starts are on record in `catalog_starts`; the ledger alone has those of older code.
    """

    next_offset: int
    starts: dict[int, int]
    claims: int = 0

    def position_first(self, introduced_in: int) -> int:
        """First offset folded by a meter version that this catalog version brought."""
        folded = [first for version, first in self.starts.items() if version >= introduced_in]
        return min(folded, default=self.next_offset)


def ledger_ends(client: Client, epoch: str) -> dict[int, LedgerEnd]:
    """The ledger's end of every partition that has one, or where folding was about to begin.

    A worker that was cut off may still add a row decided with an older catalog; only rows of the newest catalog say
    how far folding came, because every row after the newest catalog's first one is decided with it. Where it was
    claimed and has no row yet, its start does: all before a start is in the ledger.
    """
    rows = client.query(
        "SELECT partition, catalog_version, min(first), max(last) FROM positions WHERE epoch = {epoch:String} "
        "GROUP BY partition, catalog_version",
        {"epoch": epoch},
    ).result_rows
    # After the ledger: a start that is claimed between the two reads is missing nothing, all before it is durable.
    return ends_of(rows, catalog_starts.claimed(client, epoch))


def ends_of(
    batches: Iterable[Sequence[Any]], claimed: Mapping[int, Sequence[catalog_starts.Start]]
) -> dict[int, LedgerEnd]:
    """The end of each partition. `batches` are (partition, catalog version, first, last), by version or one by one."""
    starts: dict[int, dict[int, int]] = defaultdict(dict)
    following: dict[int, dict[int, int]] = defaultdict(dict)
    for partition, version, first, last in batches:
        starts[partition][version] = min(first, starts[partition].get(version, first))
        following[partition][version] = max(last + 1, following[partition].get(version, 0))
    for partition, several in claimed.items():
        for one in several:
            starts[partition][one.catalog_version] = one.first
    ends: dict[int, LedgerEnd] = {}
    for partition, known in starts.items():
        newest = max(known)
        ends[partition] = LedgerEnd(
            next_offset=following[partition].get(newest, known[newest]),
            starts=known,
            claims=len(claimed.get(partition, ())),
        )
    return ends


def identity_keys(client: Client, since: datetime) -> Iterator[int]:
    """`identity_key` of every event that Kafka wrote down since then."""
    with client.query_column_block_stream(_IDENTITY_KEYS, {"since": since}) as blocks:
        for (keys,) in blocks:
            yield from keys


def days(client: Client, epoch: str, partition: int) -> Iterator[DayKey]:
    """Every (subject, day) that has rollups on a partition."""
    with client.query_row_block_stream(_DAYS, {"epoch": epoch, "partition": partition}) as blocks:
        for block in blocks:
            yield from block


def rejected_offsets(client: Client, epoch: str, partition: int, first: int, following: int) -> list[int]:
    """The offsets from `first` to before `following` whose records are dead letters, in order."""
    parameters = {"epoch": epoch, "partition": partition, "first": first, "following": following}
    return [offset for (offset,) in client.query(_REJECTED, parameters).result_rows]


def standings(client: Client, identities: Sequence[Identity]) -> dict[Identity, list[Standing]]:
    """Where each of the identities stands in `events`; those that stand nowhere are absent."""
    found: dict[Identity, list[Standing]] = defaultdict(list)
    for chunk in chunks(identities):
        for subject, source, id_, epoch, partition, offset, digest in client.query(
            _STANDINGS, {"identities": chunk}
        ).result_rows:
            found[subject, source, id_].append(Standing(epoch, partition, offset, int(digest)))
    return found


def states(
    client: Client, epoch: str, partition: int, wanted: Sequence[DayKey], series: Mapping[tuple[str, int], int]
) -> dict[DayKey, dict[StateKey, State]]:
    """The stored states of whole days. `series` maps (meter name, version) to the series' position_first."""
    loaded: dict[DayKey, dict[StateKey, State]] = {day: {} for day in wanted}
    if not series:
        return loaded
    for chunk in chunks(wanted):
        parameters = {
            "epoch": epoch,
            "partition": partition,
            "series": [(name, version, first) for (name, version), first in series.items()],
            "meters": sorted({name for name, _ in series}),
            "subjects": sorted({subject for subject, _ in chunk}),
            "start": datetime.fromtimestamp(min(day for _, day in chunk) * DAY_S, UTC),
            "end": datetime.fromtimestamp((max(day for _, day in chunk) + 1) * DAY_S, UTC),
            "days": chunk,
        }
        for subject, meter, version, window_s, dimensions, *values in client.query(_STATES, parameters).result_rows:
            day = (subject, window_s // DAY_S)
            loaded[day][meter, version, window_s, tuple(dimensions)] = _state(values)
        for subject, meter, version, window_s, dimensions, *change in client.query(_MEMBERS, parameters).result_rows:
            day = (subject, window_s // DAY_S)
            state = loaded[day].setdefault((meter, version, window_s, tuple(dimensions)), State())
            _change_member(state, *change)
    return loaded


def _change_member(state: State, member: str, position: int, since: int, gone: int) -> None:
    """Take in a row of `members`; rows come by `since`.

    A change beyond the state's position was written by a life that ended before it wrote the rollup: it comes again.
    """
    if since and position > state.position:
        return
    if state.members is None:
        state.members = {}
    if gone:
        state.members.pop(member, None)
        state.gone |= {member}
    else:
        state.members[member] = position


def insert(client: Client, table: str, rows: pa.Table, *, settings: Mapping[str, int] | None = None) -> None:
    """Insert rows once: the token names the rows, so that a repeat after an unknown outcome is dropped."""
    if rows.num_rows == 0:
        return
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    block = sink.getvalue().to_pybytes()
    token = f"{table}-{hashlib.sha256(block).hexdigest()}"
    client.raw_insert(
        table,
        rows.column_names,
        block,
        {"insert_deduplication_token": token, **_QUICK, **(settings or {})},
        "ArrowStream",
    )


def _state(values: Sequence[object]) -> State:
    state = State()
    (
        state.position,
        state.events_count,
        state.value_sum,
        state.value_min,
        state.value_max,
        state.value_latest,
        state.latest_time_us,
        state.latest_offset,
        state.digest,
        state.value_moment,
    ) = values  # type: ignore[assignment]  # ClickHouse's column types are those of State
    return state


def chunks(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Lists of items whose text stays within what one query parameter may hold."""
    chunk: list[_Item] = []
    size_bytes = 0
    for item in items:
        item_bytes = sum(len(str(part)) * 2 + 8 for part in item)
        if chunk and size_bytes + item_bytes > PARAMETER_BYTES_MAX:
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(item)
        size_bytes += item_bytes
    if chunk:
        yield chunk
