"""Reads events as they stand in ClickHouse, up to a cut of the log: streamed, so that memory has a bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from schemas.usage_query import Cut

REPEATS_MAX: Final = 10_000
"""Most repeated identities that are read; a run with more is beyond naming them."""

WITHIN_CUT: Final = (
    "arrayExists(one -> one.1 = epoch AND one.2 = partition AND offset <= one.3, "
    "{cut:Array(Tuple(String, UInt32, UInt64))})"
)
"""A row with epoch, partition and offset that lies within the parameter `cut`; see `cut_places`."""
_WITHIN_TIME: Final = "time >= {start:DateTime64(6, 'UTC')} AND time < {end:DateTime64(6, 'UTC')}"


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of events. Of an erased event `raw` is a receipt, and `receipt_digest` that of its bytes; else it is 0."""

    subject: str
    source: str
    id: str
    type: str
    time: datetime
    epoch: str
    partition: int
    offset: int
    digest: int
    raw: bytes
    receipt_digest: int

    @property
    def place(self) -> tuple[str, int, int]:
        return (self.epoch, self.partition, self.offset)


class Repeat(msgspec.Struct, frozen=True, kw_only=True):
    """An identity that stands more than once; `places` are (epoch, partition, offset) in the order of the log."""

    subject: str
    source: str
    id: str
    places: tuple[tuple[str, int, int], ...]


class LedgerSum(msgspec.Struct, frozen=True, kw_only=True):
    """What a partition holds up to the cut: accepted events and the sum of their digests modulo 2^128."""

    events_count: int
    digest: int


def stored_events(
    client: Client, cut: Cut, start: datetime, end: datetime, types: Sequence[str]
) -> Iterator[StoredEvent]:
    """The events of some types with times in [start, end), up to the cut, by identity.

    Without those that a correction has taken out up to the cut.
    """
    # PREWHERE: FINAL alone would read the bytes of every event. The rows of one record have one time and type.
    query = (
        "SELECT subject, source, id, type, time, epoch, partition, offset, digest, raw, receipt_digest "  # noqa: S608 - constants
        f"FROM events FINAL PREWHERE {_WITHIN_TIME} AND type IN {{types:Array(String)}} WHERE {WITHIN_CUT} "
        f"AND (subject, source, id) NOT IN (SELECT subject, source, id FROM corrections WHERE {WITHIN_CUT}) "
        "ORDER BY subject, source, id, epoch, partition, offset"
    )
    parameters = {"start": time_text(start), "end": time_text(end), "types": list(types), "cut": cut_places(cut)}
    with client.query_row_block_stream(query, parameters, column_formats={"raw": "bytes"}) as blocks:
        for block in blocks:
            for row in block:
                yield StoredEvent(
                    subject=row[0],
                    source=row[1],
                    id=row[2],
                    type=row[3],
                    time=row[4],
                    epoch=row[5],
                    partition=row[6],
                    offset=row[7],
                    digest=row[8],
                    raw=row[9],
                    receipt_digest=row[10],
                )


def repeats(client: Client, cut: Cut, start: datetime, end: datetime) -> list[Repeat]:
    """Identities that stand more than once up to the cut, with at least one of the events in [start, end).

    Needs memory for every identity in the log: ask `has_repeats` first.
    """
    query = (
        "SELECT subject, source, id, arraySort(groupArray((logged_at, epoch, partition, offset))) AS places "  # noqa: S608 - constants
        f"FROM events FINAL WHERE {WITHIN_CUT} GROUP BY subject, source, id "
        f"HAVING count() > 1 AND countIf({_WITHIN_TIME}) > 0 ORDER BY subject, source, id LIMIT {REPEATS_MAX} "
        "SETTINGS optimize_aggregation_in_order = 1"
    )
    parameters = {"start": time_text(start), "end": time_text(end), "cut": cut_places(cut)}
    return [
        Repeat(subject=row[0], source=row[1], id=row[2], places=tuple(_place(one) for one in row[3]))
        for row in client.query(query, parameters).result_rows
    ]


def has_repeats(client: Client, cut: Cut, subjects: Sequence[str] = ()) -> bool:
    """Whether any identity of these subjects, or of all, may stand more than once.

    Counted by a hash of 64 bits, which is quick and never misses one; two identities may share a hash, rarely.
    """
    whose = " AND subject IN {subjects:Array(String)}" if subjects else ""
    query = f"SELECT count() > uniqExact(xxh3(subject, source, id)) FROM events FINAL WHERE {WITHIN_CUT}{whose}"  # noqa: S608 - constants
    return bool(client.query(query, {"cut": cut_places(cut), "subjects": list(subjects)}).result_rows[0][0])


def event_sums(client: Client, cut: Cut) -> dict[tuple[str, int], LedgerSum]:
    """What `events` holds for each epoch and partition up to the cut."""
    query = (
        f"SELECT epoch, partition, count(), sum(digest) FROM events FINAL WHERE {WITHIN_CUT} "  # noqa: S608 - a constant
        "GROUP BY epoch, partition"
    )
    rows = client.query(query, {"cut": cut_places(cut)}).result_rows
    return {(row[0], row[1]): LedgerSum(events_count=row[2], digest=row[3]) for row in rows}


def ledger_sums(client: Client, cut: Cut) -> dict[tuple[str, int], LedgerSum]:
    """What the ledger says was accepted for each epoch and partition up to the cut.

    Partitions whose batches overlap are left out: a worker that lost its partition wrote some offsets again, with
    other bounds, and then the sum over batches says nothing.
    """
    query = (
        "SELECT epoch, partition, sum(accepted), sum(digest) FROM positions FINAL "  # noqa: S608 - constants
        f"WHERE {WITHIN_CUT.replace('offset', 'last')} GROUP BY epoch, partition "
        "HAVING sum(last - first + 1) = max(last) - min(first) + 1"
    )
    rows = client.query(query, {"cut": cut_places(cut)}).result_rows
    return {(row[0], row[1]): LedgerSum(events_count=row[2], digest=row[3]) for row in rows}


def cut_places(cut: Cut) -> list[tuple[str, int, int]]:
    """The parameter `cut` of WITHIN_CUT: (epoch, partition, last offset)."""
    return [(one.epoch, one.partition, one.offset) for one in cut.positions]


def time_text(moment: datetime) -> str:
    """A time in UTC as a parameter of type DateTime64(6, 'UTC')."""
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}"


def _place(one: Any) -> tuple[str, int, int]:
    _, epoch, partition, offset = one
    return (epoch, partition, offset)
