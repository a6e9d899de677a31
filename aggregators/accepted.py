"""Accepted events until they are durable: the rows to write, and who they are.

Tens of thousands of events wait for a flush. As Arrow columns they are a few buffers; as Python objects they would push
everything else out of the processor's caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa

from aggregators import arrays
from aggregators.dedupe import Identity, Standing, identity_key
from aggregators.state import Moment
from schemas.meter import Measurement, MeterVersion
from schemas.rollup import DIGEST_MODULUS
from schemas.usage_event import EventColumns, UsageEvent, columns_of, decode_event

_IDENTITY: Final = ("subject", "source", "id")


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """An event to fold, and to store unless an earlier life of the worker already did."""

    event: UsageEvent
    offset: int
    logged_at_ms: int
    digest: int
    raw: bytes
    is_stored: bool
    measured: list[tuple[MeterVersion, Measurement]]
    receipt_digest: int = 0


class AcceptedRows(msgspec.Struct, frozen=True, kw_only=True):
    """Accepted events of one batch as rows of `events`, ascending by offset.

    `stored` are the rows that an earlier life stored, `keys` says by identity key where an identity stands, and
    `crowded` does so for identities that share their key with another. `digest` is the sum modulo 2^128.
    """

    rows: pa.RecordBatch
    stored: frozenset[int]
    keys: Mapping[int, int]
    crowded: Mapping[Identity, int]
    digest: int

    def find(self, key: int, identity: Identity) -> Standing | None:
        """Where an identity stands, if it is here."""
        row = self.crowded.get(identity, self.keys.get(key))
        if row is None or any(self._at(name, row) != part for name, part in zip(_IDENTITY, identity, strict=True)):
            return None
        return Standing(self._at("epoch", row), self._at("partition", row), self._at("offset", row), self._digest(row))

    def unstored(self) -> pa.RecordBatch:
        """The rows that are to be written."""
        if not self.stored:
            return self.rows
        rows = [row for row in range(self.rows.num_rows) if row not in self.stored]
        return self.rows.take(pa.array(rows, pa.int64()))

    def events(self) -> Iterator[Accepted]:
        """The events one by one."""
        for row in range(self.rows.num_rows):
            raw = self._at("raw", row)
            logged_at_ms = self.rows["logged_at"][row].value
            offset = self._at("offset", row)
            receipt_digest = int.from_bytes(self._at("receipt_digest", row), "little")
            yield Accepted(
                decode_event(raw), offset, logged_at_ms, self._digest(row), raw, row in self.stored, [], receipt_digest
            )

    def _at(self, name: str, row: int) -> Any:
        return self.rows[name][row].as_py()

    def _digest(self, row: int) -> int:
        return int.from_bytes(self._at("digest", row), "little")


class AcceptedEvents:
    """The accepted events of a batch, or of several in a row. What the meters saw of them is not kept."""

    def __init__(self, parts: Sequence[AcceptedRows]) -> None:
        self.parts = tuple(parts)
        self.digest = sum(part.digest for part in parts) % DIGEST_MODULUS

    def __len__(self) -> int:
        return sum(part.rows.num_rows for part in self.parts)

    def __iter__(self) -> Iterator[Accepted]:
        return (one for part in self.parts for one in part.events())

    def table(self) -> pa.Table:
        """The rows of `events` that are to be written."""
        return pa.Table.from_batches([part.unstored() for part in self.parts])


def accepted_rows(
    events: EventColumns,
    *,
    epoch: str,
    partition: int,
    offsets: Sequence[int],
    logged_at_ms: Sequence[int],
    times_us: Sequence[int],
    digests: Sequence[int],
    raws: Sequence[bytes],
    keys: Sequence[int],
    stored: frozenset[int],
    receipt_digests: Sequence[int] | None = None,
) -> AcceptedRows:
    """Put parallel columns together; `stored` are rows among them. Without `receipt_digests` none is a receipt."""
    count = len(offsets)
    rows = pa.record_batch(
        {
            "subject": arrays.texts(events.subjects),
            "source": arrays.texts(events.sources),
            "id": arrays.texts(events.ids),
            "type": arrays.texts(events.types),
            "time": arrays.times(times_us),
            "epoch": arrays.constant(epoch, count, pa.string()),
            "partition": arrays.constant(partition, count, pa.uint32()),
            "offset": pa.array(offsets, pa.uint64()),
            "logged_at": pa.array(logged_at_ms, arrays.MILLISECONDS),
            "digest": arrays.digests(digests),
            "raw": pa.array(raws, pa.binary()),
            "receipt_digest": arrays.digest_bytes(bytes(16 * count))
            if receipt_digests is None
            else arrays.digests(receipt_digests),
        }
    )
    places = dict(zip(keys, range(count), strict=True))
    crowded: dict[Identity, int] = {}
    if len(places) < count:
        crowded = {
            identity: row for row, identity in enumerate(zip(events.subjects, events.sources, events.ids, strict=True))
        }
    return AcceptedRows(rows=rows, stored=stored, keys=places, crowded=crowded, digest=sum(digests) % DIGEST_MODULUS)


def accepted_events(accepted: AcceptedEvents | Sequence[Accepted], epoch: str, partition: int) -> AcceptedEvents:
    """Events that were put together one by one, as rows."""
    if isinstance(accepted, AcceptedEvents):
        return accepted
    return AcceptedEvents(
        [
            accepted_rows(
                columns_of([one.event for one in accepted]),
                epoch=epoch,
                partition=partition,
                offsets=[one.offset for one in accepted],
                logged_at_ms=[one.logged_at_ms for one in accepted],
                times_us=[Moment(one.event.time).time_us for one in accepted],
                digests=[one.digest for one in accepted],
                raws=[one.raw for one in accepted],
                keys=[identity_key((one.event.subject, one.event.source, one.event.id)) for one in accepted],
                stored=frozenset(row for row, one in enumerate(accepted) if one.is_stored),
                receipt_digests=[one.receipt_digest for one in accepted],
            )
        ]
    )
