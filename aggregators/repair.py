"""Mends from the events what an audit found: rollups by folding them again, identities that were accepted twice.

An identity accepted on two partitions by two workers at one moment stands in `events` twice, and in the rollups. The
first by the time of its logging stays; the other becomes what it is, a duplicate: its row leaves `events`, its ledger
row says so, and the rollups of its meters are made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from aggregators.audit import Audit, doubled_identities
from aggregators.rebuild import Rebuild, Rebuilt
from metering.cluster_client import delete_where
from schemas.catalog import AppliedCatalog
from schemas.errors import RequestError
from schemas.rollup import DIGEST_MODULUS

MENDED_AT_A_TIME: Final = 10_000

_LEDGER_ROW: Final = """
SELECT * FROM positions FINAL
WHERE epoch = {epoch:String} AND partition = {partition:UInt32} AND first <= {offset:UInt64} AND last >= {offset:UInt64}
"""
_AT: Final = (
    "subject = {subject:String} AND source = {source:String} AND id = {id:String} "
    "AND epoch = {epoch:String} AND partition = {partition:UInt32} AND offset = {offset:UInt64}"
)


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """What was mended. `left` are the checks whose differences no repair can mend from the events."""

    identities: int
    meters: list[str]
    rebuilt: Rebuilt | None
    left: list[str]


def repair(
    connect: Callable[[str | None], Client],
    catalog: AppliedCatalog,
    found: Audit,
    *,
    workers: int,
    everything: bool = False,
) -> Repaired:
    """Mend what `found` names; with `everything` every meter is folded again. `workers` is how many are at work.

    A worker holds states in memory and would write an event it accepted back: identities are mended only while none
    is at work. Raises RequestError then.
    """
    checks = {one.check for one in found.differences}
    identities = 0
    if "identity" in checks:
        if workers:
            raise RequestError(
                f"{workers} workers are at work, and they hold events in memory that were accepted twice",
                where="metering repair",
                fix="Stop the workers, run it again, start them",
            )
        identities = _mend_identities(connect(None))
    meters = sorted({one.meter for one in found.differences if one.meter})
    if everything or identities:
        meters = list(catalog.meters)
    rebuilt = Rebuild(connect, catalog, meters).run(write=True) if meters else None
    left = sorted(checks - {"identity", "rollups", "series"})
    return Repaired(identities=identities, meters=meters, rebuilt=rebuilt, left=left)


def _mend_identities(client: Client) -> int:
    mended = 0
    while found := doubled_identities(client, MENDED_AT_A_TIME):
        for subject, source, id_, places in found:
            for _, epoch, partition, offset in places[1:]:
                _make_duplicate(client, (subject, source, id_), epoch, partition, offset)
            mended += 1
    return mended


def _make_duplicate(client: Client, identity: Sequence[str], epoch: str, partition: int, offset: int) -> None:
    """The ledger first: killed between the two, the event is still there, and is found again."""
    place = {"epoch": epoch, "partition": partition, "offset": offset}
    found = client.query(_LEDGER_ROW, place)
    rows = []
    for row in found.result_rows:
        said = dict(zip(found.column_names, row, strict=True))
        events, digest = _stored_but(client, said, offset)
        moved = int(said["accepted"]) - events
        said.update(accepted=events, duplicate=said["duplicate"] + moved, digest=digest % DIGEST_MODULUS)
        rows.append([said[name] for name in found.column_names])
    if rows:
        client.insert("positions", rows, column_names=list(found.column_names), settings={"insert_deduplicate": 0})
    names = dict(zip(("subject", "source", "id"), identity, strict=True))
    delete_where(client, "events", _AT, {**names, **place})


def _stored_but(client: Client, row: dict[str, object], offset: int) -> tuple[int, int]:
    """(count, digest) of the stored events of a ledger row, without the one at `offset`."""
    ((count, digest),) = client.query(
        "SELECT count(), toString(sum(digest)) FROM events FINAL WHERE epoch = {epoch:String} "
        "AND partition = {partition:UInt32} AND offset >= {first:UInt64} AND offset <= {last:UInt64} "
        "AND offset != {offset:UInt64}",
        {
            "epoch": row["epoch"],
            "partition": row["partition"],
            "first": row["first"],
            "last": row["last"],
            "offset": offset,
        },
    ).result_rows
    return int(count), int(digest)
