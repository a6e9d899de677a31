"""Decoding a batch: each record becomes an event or says why it is none. Pure, and needs no catalog."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from aggregators.dedupe import identity_keys
from aggregators.record_batch import RecordBatch
from schemas.admission import check_time
from schemas.errors import EventRejectedError
from schemas.usage_event import EventColumns, UsageEvent, columns_of, decode_event, decode_events

_EPOCH_START: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The settings a decision depends on."""

    event_bytes_max: int
    ahead_s_max: int
    age_s_max: int


class Decoded(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded batch: its events, the record each was made from, and why the other records are none.

    `keys` are the events' identity keys, `types` those seen. `erased` are the records of erased subjects, whose bytes
    may not be kept: the batch holds receipts in their place, and `digests` are those of what all records were before.
    """

    batch: RecordBatch
    events: EventColumns
    records: Sequence[int]
    rejections: dict[int, EventRejectedError]
    keys: list[int]
    types: frozenset[str]
    digests: Sequence[int] | None = None
    erased: frozenset[int] = frozenset()


def decode_batch(batch: RecordBatch, limits: Limits) -> Decoded:
    """Decode every record of a batch."""
    records: Sequence[int] = range(len(batch.values))
    rejections: dict[int, EventRejectedError] = {}
    events = _decode_together(batch, limits)
    if events is None:
        found: dict[int, UsageEvent] = {}
        for record in records:
            try:
                found[record] = _decode(batch, record, limits)
            except EventRejectedError as rejection:
                rejections[record] = rejection
        events, records = columns_of(list(found.values())), list(found)
    return Decoded(
        batch=batch,
        events=events,
        records=records,
        rejections=rejections,
        keys=identity_keys(events.subjects, events.sources, events.ids),
        types=frozenset(events.types),
    )


def _decode_together(batch: RecordBatch, limits: Limits) -> EventColumns | None:
    """The events of a batch whose records are all good; None when each has to be looked at."""
    if any(value is None or len(value) > limits.event_bytes_max for value in batch.values):
        return None
    events = decode_events(batch.values)
    if events is None or [subject.encode() for subject in events.subjects] != batch.keys:
        return None
    logged_first, logged_last = _time(min(batch.timestamps_ms)), _time(max(batch.timestamps_ms))
    if max(events.times) > logged_first + timedelta(seconds=limits.ahead_s_max):
        return None
    if limits.age_s_max and min(events.times) < logged_last - timedelta(seconds=limits.age_s_max):
        return None
    return events


def _decode(batch: RecordBatch, record: int, limits: Limits) -> UsageEvent:
    value = batch.values[record]
    if value is not None and len(value) > limits.event_bytes_max:
        raise EventRejectedError(
            "too_large", "", f"the event has {len(value)} bytes, at most {limits.event_bytes_max} are allowed"
        )
    event = decode_event(value)
    if batch.keys[record] != event.subject.encode():
        raise EventRejectedError("key_not_subject", "subject", "the record's key is not the event's subject")
    logged_at = _time(batch.timestamps_ms[record])
    check_time(event, logged_at, ahead_s_max=limits.ahead_s_max, age_s_max=limits.age_s_max)
    return event


def _time(since_1970_ms: int) -> datetime:
    return _EPOCH_START + timedelta(milliseconds=since_1970_ms)
