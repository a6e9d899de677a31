"""Where folding with a catalog version begins on a partition: claimed once, before anything is decided with it.

Two workers may hold a partition for a while, one of them without knowing that it lost it, and take a new catalog up at
two offsets. The series of the meters that it brings would begin at both, and readers add series up. So the starts of
a partition are numbered, and the insert token of a number makes it a claim that one of them wins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from schemas.errors import InvariantViolationError, PartitionTakenError

COLUMNS: Final = ("epoch", "partition", "number", "catalog_version", "first", "claimed_at", "worker")
_STARTS: Final = """
SELECT DISTINCT partition, number, catalog_version, first FROM catalog_starts WHERE epoch = {epoch:String}
ORDER BY partition, number
"""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The first offset that a catalog version decides on a partition. `number` counts them there, from 1."""

    partition: int
    number: int
    catalog_version: int
    first: int


def claimed(client: Client, epoch: str) -> dict[int, list[Start]]:
    """The starts on record of each partition, in order.

    Raises InvariantViolationError when two different ones stand under one number.
    """
    found: dict[int, list[Start]] = defaultdict(list)
    for partition, number, version, first in client.query(_STARTS, {"epoch": epoch}).result_rows:
        found[partition].append(Start(partition=partition, number=number, catalog_version=version, first=first))
        if len(found[partition]) != number:
            raise InvariantViolationError(
                f"start {number} stands there as number {len(found[partition])} of its partition",
                where=f"catalog_starts, epoch {epoch}, partition {partition}",
                fix="The insert token of catalog_starts did not hold: check its non_replicated_deduplication_window",
            )
    return found


def claim(client: Client, epoch: str, wanted: Sequence[Start], *, at: datetime, worker: str) -> None:
    """Put starts on record. What is before each must be in the ledger; repeating a claim changes nothing.

    Raises PartitionTakenError when another worker has claimed another start under one of the numbers.
    """
    for one in wanted:
        client.insert(
            "catalog_starts",
            [(epoch, one.partition, one.number, one.catalog_version, one.first, at, worker)],
            column_names=COLUMNS,
            settings={"insert_deduplication_token": f"catalog-start-{epoch}-{one.partition}-{one.number}"},
        )
    check_claims(wanted, claimed(client, epoch), epoch)


def check_claims(wanted: Sequence[Start], held: dict[int, list[Start]], epoch: str) -> None:
    """Raise PartitionTakenError unless the starts on record are those wanted."""
    for one in wanted:
        winner = held[one.partition][one.number - 1]
        if winner != one:
            raise PartitionTakenError(
                f"another worker took catalog version {winner.catalog_version} up at offset {winner.first}, this one "
                f"catalog version {one.catalog_version} at {one.first}: one of the two has lost the partition",
                where=f"epoch {epoch}, partition {one.partition}",
                fix="Start the worker again: it goes on where the ledger ends",
            )
