"""Deciding a batch: each record is accepted, a duplicate, or rejected, in offset order.

Pure: what is stored is handed in. The same records, catalog and stored identities give the same decisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from aggregators.accepted import Accepted, AcceptedEvents, AcceptedRows, accepted_events, accepted_rows
from aggregators.decode import Decoded, Limits, decode_batch
from aggregators.dedupe import Identity, KeyFilter, identity_key
from aggregators.erased import Eraser
from aggregators.facts import Correction
from aggregators.record_batch import RecordBatch
from aggregators.repeats import Lookup, Repeats
from aggregators.state import moments_of
from aggregators.usage import Usage
from schemas.admission import Admission
from schemas.corrections import VOIDED
from schemas.erasure import ERASED, NOBODY, Erasures
from schemas.errors import EventRejectedError
from schemas.meter_columns import without
from schemas.usage_event import EventColumns, event_digest, event_digests

__all__ = ["Accepted", "Decider", "Decision", "Limits", "Rejected", "merge"]

_Item = TypeVar("_Item")


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A record for the dead letters."""

    offset: int
    logged_at_ms: int
    reason: str
    field: str
    detail: str
    key: bytes
    raw: bytes


class SaidCorrection(NamedTuple):
    """A correction in a batch; `kind` as in the table `corrections`."""

    correction: Correction
    kind: str
    logged_at_ms: int


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A decided batch. accepted + duplicate + rejected + absent = last - first + 1.

    `usage` is what the meters saw of the accepted events, until it is folded; None where each event says it by itself.
    `corrections` are the accepted events that correct others, `maybe_taken` those that may be corrected already.
    """

    epoch: str
    topic: str
    partition: int
    first: int
    last: int
    logged_at_last_ms: int
    accepted: AcceptedEvents | Sequence[Accepted]
    duplicate: int
    rejected: list[Rejected]
    absent: int
    usage: Usage | None = None
    corrections: Sequence[SaidCorrection] = ()
    maybe_taken: Sequence[Identity] = ()

    @property
    def is_correcting(self) -> bool:
        """Whether it takes more than folding."""
        return bool(self.corrections or self.maybe_taken)


class Decider:
    """Decides batches of one worker; remembers what it accepted and what is not flushed yet."""

    def __init__(
        self,
        epoch: str,
        limits: Limits,
        identities: KeyFilter,
        taken: Iterable[int] = (),
        erasures: Erasures = NOBODY,
    ) -> None:
        """`identities` has the keys of all that was accepted before, `taken` are those of all that was taken out.

        Of the records of those in `erasures` only receipts are kept.
        """
        self._eraser = Eraser(erasures)
        self._epoch = epoch
        self._limits = limits
        self._identities = identities
        self._taken = KeyFilter()
        self._take_out(taken)
        self._unflushed: list[AcceptedRows] = []

    def decode(self, batch: RecordBatch) -> Decoded:
        """Decode every record of a batch; what cannot be decoded is a rejection already."""
        return decode_batch(batch, self._limits)

    def decide(self, decoded: Decoded, first: int, admission: Admission, lookup: Lookup) -> Decision:
        """Decide a batch whose offsets are all ≥ `first`, the offset after the last decided one."""
        decoded = self._eraser.without_names(decoded, admission.meter_versions)
        batch, events, keys = decoded.batch, decoded.events, decoded.keys
        offsets = _picked(batch.offsets, decoded.records)
        raws = [raw or b"" for raw in _picked(batch.values, decoded.records)]
        digests = event_digests(raws) if decoded.digests is None else decoded.digests
        repeats = Repeats(events, keys, epoch=self._epoch, partition=batch.partition, offsets=offsets, digests=digests)
        # What the filter does not know is new for certain.
        suspects = self._identities.places(keys)
        if suspects:
            repeats.against_earlier(suspects, self._unflushed, lookup)
        rows: Sequence[int] = range(len(keys))
        settled = repeats.settled
        measured = admission.measure(events, [row for row in rows if row not in settled] if settled else rows)
        repeats.among_themselves(measured.rejections)
        seen = measured.seen
        if repeats.stored:
            # Accepted by an earlier life, which may have counted it: a newer catalog cannot take that back.
            seen = admission.with_readable(seen, events, sorted(repeats.stored))
        rejected = measured.rejections | repeats.conflicts
        gone = rejected.keys() | repeats.repeated
        if gone:
            rows = [row for row in rows if row not in gone]
            seen = [without(one, gone) for one in seen]
        moments = moments_of(events.times)
        accepted = accepted_rows(
            events.take(rows) if gone else events,
            epoch=self._epoch,
            partition=batch.partition,
            offsets=_picked(offsets, rows),
            logged_at_ms=_picked(_picked(batch.timestamps_ms, decoded.records), rows),
            times_us=[moment.time_us for moment in _picked(moments, rows)],
            digests=_picked(digests, rows),
            raws=_picked(raws, rows),
            keys=_picked(keys, rows),
            stored=frozenset([place for place, row in enumerate(rows) if row in repeats.stored] if settled else ()),
            receipt_digests=_receipt_digests(decoded, raws, rows),
        )
        self._identities.update(accepted.keys)
        self._unflushed.append(accepted)
        rejections = decoded.rejections | {decoded.records[row]: one for row, one in rejected.items()}
        last = batch.offsets[-1]
        return Decision(
            epoch=self._epoch,
            topic=batch.topic,
            partition=batch.partition,
            first=first,
            last=last,
            logged_at_last_ms=batch.timestamps_ms[-1],
            accepted=AcceptedEvents([accepted]),
            duplicate=len(repeats.repeated),
            rejected=[
                _rejected(batch, record, rejections[record], is_erased=record in decoded.erased)
                for record in sorted(rejections)
            ],
            absent=last - first + 1 - len(batch.offsets),
            usage=Usage(subjects=events.subjects, moments=moments, offsets=offsets, digests=digests, seen=seen),
            corrections=[
                self._said(events, row, batch.partition, offsets[row], batch.timestamps_ms[decoded.records[row]])
                for row in events.corrects
                if row not in gone
            ],
            maybe_taken=[events.identity(row) for row in suspects if row not in gone and keys[row] in self._taken],
        )

    def _said(self, events: EventColumns, row: int, partition: int, offset: int, logged_at_ms: int) -> SaidCorrection:
        subject, source, id_ = events.identity(row)
        correction = Correction(
            (subject, source, id_), (subject, *events.corrects[row]), (self._epoch, partition, offset)
        )
        return SaidCorrection(correction, "voided" if events.types[row] == VOIDED else "replaced", logged_at_ms)

    def take_out(self, identities: Iterable[Identity]) -> None:
        """These are taken out: one of them that comes yet must be looked at."""
        self._take_out(map(identity_key, identities))

    def _take_out(self, keys: Iterable[int]) -> None:
        for key in keys:
            self._taken.add(key)
            self._identities.add(key)

    def flushed(self, accepted: AcceptedEvents | Sequence[Accepted]) -> None:
        """These are durable now: the store answers for them from here on."""
        if isinstance(accepted, AcceptedEvents):  # others were not decided here
            durable = {id(part) for part in accepted.parts}
            self._unflushed = [one for one in self._unflushed if id(one) not in durable]


def merge(decisions: Sequence[Decision]) -> Decision:
    """One decision for consecutive ones of the same partition, all folded."""
    return msgspec.structs.replace(
        decisions[0],
        last=decisions[-1].last,
        logged_at_last_ms=decisions[-1].logged_at_last_ms,
        accepted=AcceptedEvents([part for one in decisions for part in accepted_events_of(one).parts]),
        duplicate=sum(decision.duplicate for decision in decisions),
        rejected=[one for decision in decisions for one in decision.rejected],
        absent=sum(decision.absent for decision in decisions),
        usage=None,
    )


def accepted_events_of(decision: Decision) -> AcceptedEvents:
    """The accepted events as rows, also where they were put together one by one."""
    return accepted_events(decision.accepted, decision.epoch, decision.partition)


def _picked(items: Sequence[_Item], places: Sequence[int]) -> Sequence[_Item]:
    """The items at these ascending places; all of them costs nothing."""
    return items if len(places) == len(items) else [items[place] for place in places]


def _receipt_digests(decoded: Decoded, raws: Sequence[bytes], rows: Sequence[int]) -> list[int] | None:
    """The digests of those that are receipts, 0 for the others; None when none is."""
    if not decoded.erased:
        return None
    return [event_digest(raws[row]) if decoded.records[row] in decoded.erased else 0 for row in rows]


def _rejected(batch: RecordBatch, record: int, rejection: EventRejectedError, *, is_erased: bool) -> Rejected:
    if is_erased:
        return Rejected(
            batch.offsets[record], batch.timestamps_ms[record], rejection.reason, rejection.field, ERASED, b"", b""
        )
    return Rejected(
        batch.offsets[record],
        batch.timestamps_ms[record],
        rejection.reason,
        rejection.field,
        rejection.what,
        batch.keys[record] or b"",
        batch.values[record] or b"",
    )
