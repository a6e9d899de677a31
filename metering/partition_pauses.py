"""Partitions whose reading stopped over too many dead letters, as ClickHouse keeps them; rows are only ever added.

A pause and its end are places in the log: a partition is paused while its last pause lies beyond its last resumption.
Whoever writes a row twice, or late, says nothing new.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

_COLUMNS: Final = ("epoch", "partition", "offset", "state", "records", "rejected", "why", "at", "by")
_NEWEST: Final = """
SELECT epoch, partition,
    maxIf(offset + 1, state = 'paused') AS paused_to, maxIf(offset + 1, state = 'resumed') AS resumed_to,
    argMaxIf(records, offset, state = 'paused'), argMaxIf(rejected, offset, state = 'paused'),
    argMaxIf(at, offset, state = 'paused'), toString(argMaxIf(by, offset, state = 'paused'))
FROM partition_pauses WHERE {epoch:String} = '' OR epoch = {epoch:String}
GROUP BY epoch, partition ORDER BY epoch, partition
"""


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """The last pause of a partition: of `records` that were looked back on, `rejected` were dead letters.

    `offset` is the first that was not read; `resumed_from` the one that somebody last let it go on from, 0 for never.
    """

    epoch: str
    partition: int
    offset: int
    records: int
    rejected: int
    at: datetime
    by: str
    resumed_from: int = 0
    is_over: bool = False

    @property
    def said(self) -> str:
        """What is wrong, and what to do, for people."""
        return (
            f"{self.rejected:,} of the last {self.records:,} records of partition {self.partition} were rejected; "
            f"it is not read from offset {self.offset} on. See `metering dead-letters list --summary`, mend the cause, "
            f"then `metering dead-letters resume {self.partition}`"
        )


def last_pauses(client: Client, epoch: str = "") -> list[Pause]:
    """The last pause of every partition that ever had one, those that are over included; of one log, or of all."""
    return [
        Pause(
            epoch=log,
            partition=partition,
            offset=paused_to - 1,
            records=records,
            rejected=rejected,
            at=at,
            by=by,
            resumed_from=max(resumed_to - 1, 0),
            is_over=resumed_to >= paused_to,
        )
        for log, partition, paused_to, resumed_to, records, rejected, at, by in client.query(
            _NEWEST, {"epoch": epoch}
        ).result_rows
    ]


def paused(client: Client, epoch: str = "") -> list[Pause]:
    """The partitions that are paused now; of one log, or of all."""
    return [one for one in last_pauses(client, epoch) if not one.is_over]


def write_pause(client: Client, one: Pause) -> None:
    """Put a pause on record; once more changes nothing."""
    _write(client, [(one.epoch, one.partition, one.offset, "paused", one.records, one.rejected, "", one.at, one.by)])


def write_resumption(client: Client, pauses: Sequence[Pause], *, why: str, at: datetime, by: str) -> None:
    """Let partitions go on from where they were paused."""
    _write(client, [(one.epoch, one.partition, one.offset, "resumed", 0, 0, why, at, by) for one in pauses])


def _write(client: Client, rows: Sequence[Sequence[object]]) -> None:
    if rows:
        client.insert("partition_pauses", rows, column_names=_COLUMNS)
