"""Does what is stored agree with itself? Every offset accounted for, every count and digest, and samples of rollups.

Reads only. The ledger's ends are read first, so that live workers may go on meanwhile: what they write beyond is not
looked at. `metering repair` mends what `aggregators/repair.py` can.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from aggregators import store
from aggregators.audit_sample import check_sample
from aggregators.store import LedgerEnd
from schemas.catalog import AppliedCatalog

SHOWN_MAX: Final = 10

_ROWS: Final = """
SELECT first, last, accepted, duplicate, rejected, absent, toString(digest),
    max(last) OVER (ORDER BY first, last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached,
    row_number() OVER (ORDER BY first, last) AS number
FROM positions FINAL WHERE epoch = {epoch:String} AND partition = {partition:UInt32}
ORDER BY first, last
"""
_STORED: Final = """
SELECT count(), toString(sum(digest)) FROM events FINAL
WHERE epoch = {epoch:String} AND partition = {partition:UInt32} AND offset >= {first:UInt64} AND offset <= {last:UInt64}
"""
_LETTERS: Final = """
SELECT count() FROM dead_letters FINAL
WHERE epoch = {epoch:String} AND partition = {partition:UInt32} AND offset >= {first:UInt64} AND offset <= {last:UInt64}
"""
_DOUBLED: Final = """
SELECT subject, source, id, arraySort(groupArray((logged_at, epoch, partition, offset))) AS places
FROM events FINAL GROUP BY subject, source, id HAVING count() > 1 ORDER BY subject, source, id LIMIT {most:UInt32}
"""
_SERIES: Final = """
SELECT meter, meter_version, epoch, partition, position_first, count() FROM rollups FINAL
GROUP BY meter, meter_version, epoch, partition, position_first ORDER BY ALL
"""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it must be. `meter` is set where a rebuild of that meter mends it."""

    check: str
    where: str
    what: str
    meter: str = ""


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit looked at, and what it found."""

    partitions: int
    offsets: int
    events: int
    days_sampled: int
    differences: list[Difference]

    @property
    def is_clean(self) -> bool:
        """Whether everything agreed."""
        return not self.differences


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of the ledger; `reached` is the greatest offset of all rows before it, None before the first."""

    first: int
    last: int
    accepted: int
    duplicate: int
    rejected: int
    absent: int
    digest: int
    reached: int | None


def audit(
    client: Client,
    catalog: AppliedCatalog | None,
    *,
    log_ranges: Mapping[int, tuple[int, int]] | None = None,
    epoch: str = "",
    days: int = 100,
    seed: int = 0,
) -> Audit:
    """Check everything. `log_ranges` says for each partition of `epoch` the first offset in Kafka and the next one.

    `days` is how many (subject, day) pairs are counted again from their events; `seed` chooses which.
    """
    epochs = [row[0] for row in client.query("SELECT DISTINCT epoch FROM positions ORDER BY epoch").result_rows]
    ends = {one: store.ledger_ends(client, one) for one in epochs}
    differences: list[Difference] = []
    partitions = offsets = events = 0
    for one, by_partition in ends.items():
        for partition in sorted(by_partition):
            rows = ledger_rows(client, one, partition)
            if not rows:  # a catalog was taken up there, and nothing has come yet
                continue
            partitions += 1
            differences += _holes(f"epoch {one}, partition {partition}", rows)
            differences += _accounts(client, one, partition, rows)
            offsets += rows[-1].last - rows[0].first + 1
            events += sum(row.accepted for row in rows)
    if log_ranges is not None:
        differences += _against_log(epoch, ends.get(epoch, {}), log_ranges)
    differences += _doubled(client)
    sampled = 0
    if catalog is not None:
        differences += _stray_series(client, catalog, ends)
        sampled, wrong = check_sample(client, catalog, ends, days=days, seed=seed)
        differences += [
            Difference(check="rollups", where=where, what=what, meter=meter) for meter, where, what in wrong
        ]
    return Audit(
        partitions=partitions,
        offsets=offsets,
        events=events,
        days_sampled=sampled,
        differences=differences,
    )


def ledger_rows(client: Client, epoch: str, partition: int) -> list[LedgerRow]:
    """The ledger of one partition, in order."""
    rows = client.query(_ROWS, {"epoch": epoch, "partition": partition}).result_rows
    return [
        LedgerRow(
            first=row[0],
            last=row[1],
            accepted=row[2],
            duplicate=row[3],
            rejected=row[4],
            absent=row[5],
            digest=int(row[6]),
            reached=row[7] if row[8] > 1 else None,
        )
        for row in rows
    ]


def doubled_identities(client: Client, most: int) -> list[tuple[str, str, str, list[tuple[object, str, int, int]]]]:
    """Identities accepted at more than one place: (subject, source, id, places by time of logging)."""
    return [(row[0], row[1], row[2], list(row[3])) for row in client.query(_DOUBLED, {"most": most}).result_rows]


def _holes(where: str, rows: Sequence[LedgerRow]) -> Iterator[Difference]:
    for row in rows:
        if row.reached is not None and row.first > row.reached + 1:
            yield Difference(
                check="ledger", where=where, what=f"offsets {row.reached + 1} to {row.first - 1} are in no ledger row"
            )
        total = row.accepted + row.duplicate + row.rejected + row.absent
        if total != row.last - row.first + 1:
            yield Difference(
                check="ledger",
                where=where,
                what=f"the row of offsets {row.first} to {row.last} accounts for {total} of {row.last - row.first + 1}",
            )


def _accounts(client: Client, epoch: str, partition: int, rows: Sequence[LedgerRow]) -> Iterator[Difference]:
    """Stored events and dead letters against the ledger: row by row only where the partition as a whole differs.

    Rows of two workers that shared a partition for a while overlap; those are looked at one by one.
    """
    overlaps = any(row.reached is not None and row.first <= row.reached for row in rows)
    whole = LedgerRow(
        first=rows[0].first,
        last=max(row.last for row in rows),
        accepted=sum(row.accepted for row in rows),
        duplicate=0,
        rejected=sum(row.rejected for row in rows),
        absent=0,
        digest=sum(row.digest for row in rows) % (1 << 128),
        reached=None,
    )
    if not overlaps and _differs(client, epoch, partition, whole) is None:
        return
    for row in rows:
        what = _differs(client, epoch, partition, row)
        if what is not None:
            yield Difference(check="accounting", where=f"epoch {epoch}, partition {partition}", what=what)


def _differs(client: Client, epoch: str, partition: int, row: LedgerRow) -> str | None:
    place = {"epoch": epoch, "partition": partition, "first": row.first, "last": row.last}
    ((stored, digest),) = client.query(_STORED, place).result_rows
    ((letters,),) = client.query(_LETTERS, place).result_rows
    said = f"the ledger says of offsets {row.first} to {row.last}: "
    if stored != row.accepted:
        return f"{said}{row.accepted} accepted, but {stored} events are stored"
    if int(digest) != row.digest:
        return f"{said}digest {row.digest:032x}, but the stored events have {int(digest):032x}"
    if letters != row.rejected:
        return f"{said}{row.rejected} rejected, but {letters} dead letters are kept"
    return None


def _against_log(
    epoch: str, ends: Mapping[int, LedgerEnd], log_ranges: Mapping[int, tuple[int, int]]
) -> Iterator[Difference]:
    for partition, (first, following) in log_ranges.items():
        end = ends.get(partition)
        where = f"epoch {epoch}, partition {partition}"
        if end is not None and end.next_offset > following:
            what = f"the ledger ends at {end.next_offset - 1}, the log at {following - 1}"
            yield Difference(check="log", where=where, what=what)
        if end is not None and end.next_offset < first:
            what = f"the ledger ends at {end.next_offset - 1}, Kafka holds offsets from {first} on"
            yield Difference(check="log", where=where, what=what)


def _doubled(client: Client) -> Iterator[Difference]:
    for subject, source, id_, places in doubled_identities(client, SHOWN_MAX):
        at = ", ".join(f"partition {partition} offset {offset}" for _, _, partition, offset in places)
        yield Difference(
            check="identity", where=f"{subject!r}, {source!r}, {id_!r}", what=f"accepted {len(places)} times: {at}"
        )


def _stray_series(
    client: Client, catalog: AppliedCatalog, ends: Mapping[str, Mapping[int, LedgerEnd]]
) -> Iterator[Difference]:
    """A series that begins where the ledger says no live folding began: its events are in another series as well."""
    introduced = {(one.meter.name, one.version): one.introduced_in for one in catalog.meter_versions}
    for meter, version, epoch, partition, first, rows in client.query(_SERIES).result_rows:
        end = ends.get(epoch, {}).get(partition)
        if end is None or (meter, version) not in introduced or first == 0:
            continue
        start = end.position_first(introduced[meter, version])
        if first < end.next_offset and first != start:
            yield Difference(
                check="series",
                where=f"meter {meter} version {version}, epoch {epoch}, partition {partition}",
                what=f"{rows} rows are of a series from offset {first}, but live folding began at {start}",
                meter=meter,
            )
