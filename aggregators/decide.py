"""Deciding a batch: each record is accepted, a duplicate, or rejected, in offset order.

Pure: what is stored is handed in. The same records, catalog and stored identities give the same decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from aggregators.dedupe import Identity, KeyFilter, Standing, identity_key, is_repeat
from aggregators.record_batch import RecordBatch
from schemas.admission import Admission, check_time
from schemas.errors import EventRejectedError
from schemas.meter import Measurement, MeterVersion
from schemas.usage_event import UsageEvent, decode_event, event_digest

_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)

Lookup = Callable[[Sequence[Identity]], Mapping[Identity, Sequence[Standing]]]
"""Asks the store where identities stand; identities that stand nowhere are absent from the answer."""


class Decoded(msgspec.Struct, frozen=True, gc=False):
    """A decoded batch: for each record the event and its identity key, or why it is none.

    `types` are those seen; `maybes` the identities that may have been accepted before, for the store to settle.
    """

    batch: RecordBatch
    records: list[tuple[UsageEvent, int] | EventRejectedError]
    types: frozenset[str]
    maybes: list[Identity]


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """An event to fold, and to store unless an earlier life of the worker already did."""

    event: UsageEvent
    offset: int
    logged_at_ms: int
    digest: int
    raw: bytes
    is_stored: bool
    measured: list[tuple[MeterVersion, Measurement]]


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A record for the dead letters."""

    offset: int
    logged_at_ms: int
    reason: str
    field: str
    detail: str
    key: bytes
    raw: bytes


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A decided batch. accepted + duplicate + rejected + absent = last - first + 1."""

    epoch: str
    topic: str
    partition: int
    first: int
    last: int
    logged_at_last_ms: int
    accepted: list[Accepted]
    duplicate: int
    rejected: list[Rejected]
    absent: int


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The settings a decision depends on."""

    event_bytes_max: int
    ahead_s_max: int
    age_s_max: int


class Decider:
    """Decides batches of one worker; remembers what it accepted and what is not flushed yet."""

    def __init__(self, epoch: str, limits: Limits, identities: KeyFilter) -> None:
        self._epoch = epoch
        self._limits = limits
        self._identities = identities
        self._unflushed: dict[Identity, Standing] = {}
        self._logged_at_ms = 0  # records of a batch share it
        self._logged_at = _EPOCH_START

    def decode(self, batch: RecordBatch) -> Decoded:
        """Decode every record of a batch; what cannot be decoded is a rejection already."""
        records: list[tuple[UsageEvent, int] | EventRejectedError] = []
        types: set[str] = set()
        maybes: list[Identity] = []
        identities = self._identities
        for key, value, timestamp_ms in zip(batch.keys, batch.values, batch.timestamps_ms, strict=True):
            try:
                event = self._decode(key, value, timestamp_ms)
            except EventRejectedError as rejection:
                records.append(rejection)
                continue
            types.add(event.type)
            identity = (event.subject, event.source, event.id)
            hashed = identity_key(identity)
            # What the filter calls "maybe" is settled by the store; identities not flushed yet are known here.
            if hashed in identities and identity not in self._unflushed:
                maybes.append(identity)
            records.append((event, hashed))
        return Decoded(batch, records, frozenset(types), maybes)

    def decide(self, decoded: Decoded, first: int, admission: Admission, lookup: Lookup) -> Decision:
        """Decide a batch whose offsets are all ≥ `first`, the offset after the last decided one."""
        batch = decoded.batch
        stored = lookup(decoded.maybes) if decoded.maybes else {}
        accepted: list[Accepted] = []
        rejected: list[Rejected] = []
        duplicate = 0
        for index, record in enumerate(decoded.records):
            try:
                if isinstance(record, EventRejectedError):
                    raise record
                event, hashed = record
                raw = batch.values[index] or b""
                offset = batch.offsets[index]
                digest = event_digest(raw)
                identity = (event.subject, event.source, event.id)
                mine = Standing(self._epoch, batch.partition, offset, digest)
                standings = stored.get(identity, ())
                if (standings or identity in self._unflushed) and self._repeats(identity, mine, standings):
                    duplicate += 1
                    continue
                is_stored = mine in standings
                # Accepted by an earlier life, which may have counted it: a newer catalog cannot take that back.
                measured = admission.readable(event) if is_stored else admission.measurements(event)
            except EventRejectedError as rejection:
                rejected.append(_rejected(batch, index, rejection))
                continue
            self._identities.add(hashed)
            self._unflushed[identity] = mine
            accepted.append(Accepted(event, offset, batch.timestamps_ms[index], digest, raw, is_stored, measured))
        last = batch.offsets[-1]
        return Decision(
            epoch=self._epoch,
            topic=batch.topic,
            partition=batch.partition,
            first=first,
            last=last,
            logged_at_last_ms=batch.timestamps_ms[-1],
            accepted=accepted,
            duplicate=duplicate,
            rejected=rejected,
            absent=last - first + 1 - len(batch.offsets),
        )

    def flushed(self, accepted: Sequence[Accepted]) -> None:
        """These are durable now: the store answers for them from here on."""
        for one in accepted:
            event = one.event
            self._unflushed.pop((event.subject, event.source, event.id), None)

    def _decode(self, key: bytes | None, value: bytes | None, timestamp_ms: int) -> UsageEvent:
        limits = self._limits
        if value is not None and len(value) > limits.event_bytes_max:
            raise EventRejectedError(
                "too_large", "", f"the event has {len(value)} bytes, at most {limits.event_bytes_max} are allowed"
            )
        event = decode_event(value)
        if key != event.subject.encode():
            raise EventRejectedError("key_not_subject", "subject", "the record's key is not the event's subject")
        if timestamp_ms != self._logged_at_ms:
            self._logged_at_ms = timestamp_ms
            self._logged_at = _EPOCH_START + timedelta(milliseconds=timestamp_ms)
        if event.time > self._logged_at or limits.age_s_max:
            check_time(event, self._logged_at, ahead_s_max=limits.ahead_s_max, age_s_max=limits.age_s_max)
        return event

    def _repeats(self, identity: Identity, mine: Standing, standings: Sequence[Standing]) -> bool:
        """Whether an earlier event has this identity. Raises EventRejectedError when its body was another."""
        earlier = self._unflushed.get(identity) or is_repeat(mine, standings)
        if earlier is None:
            return False
        if earlier.digest != mine.digest:
            raise EventRejectedError(
                "identity_conflict",
                "id",
                f"the event at partition {earlier.partition}, offset {earlier.offset} has this identity "
                "and another body",
            )
        return True


def _rejected(batch: RecordBatch, index: int, rejection: EventRejectedError) -> Rejected:
    return Rejected(
        batch.offsets[index],
        batch.timestamps_ms[index],
        rejection.reason,
        rejection.field,
        rejection.what,
        batch.keys[index] or b"",
        batch.values[index] or b"",
    )


def merge(decisions: Sequence[Decision]) -> Decision:
    """One decision for consecutive ones of the same partition."""
    return msgspec.structs.replace(
        decisions[0],
        last=decisions[-1].last,
        logged_at_last_ms=decisions[-1].logged_at_last_ms,
        accepted=[one for decision in decisions for one in decision.accepted],
        duplicate=sum(decision.duplicate for decision in decisions),
        rejected=[one for decision in decisions for one in decision.rejected],
        absent=sum(decision.absent for decision in decisions),
    )
