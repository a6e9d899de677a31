"""Decides which events of a request can be billed on: each on its own, with the reason and the field. Pure.

Events that are all good are judged together, for half of what it costs to look at each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from ingest.problems import EventError
from ingest.producer import Record
from metering.config import Settings
from schemas.admission import Admission, check_time
from schemas.errors import EventRejectedError
from schemas.usage_event import NESTING_MAX, decode_event, decode_events, nests_deeper

UNKNOWN_TYPE = "unknown_type"


class Verdict(msgspec.Struct, frozen=True):
    """The good events by index, as the records to write, and what is wrong with each of the others."""

    records: dict[int, Record]
    errors: list[EventError]


def judge(
    events: Sequence[bytes], indexes: Iterable[int], *, admission: Admission | None, now: datetime, settings: Settings
) -> Verdict:
    """Judge `events[i]` for the given indexes. Without an Admission types and metered values are left to the worker."""
    indexes = list(indexes)
    subjects = _subjects_of_good([events[index] for index in indexes], admission, now, settings)
    if subjects is not None:
        return Verdict(
            {index: Record(key.encode(), events[index]) for index, key in zip(indexes, subjects, strict=True)}, []
        )
    records: dict[int, Record] = {}
    errors: list[EventError] = []
    for index in indexes:
        event = events[index]
        try:
            records[index] = Record(_key_of(event, admission, now, settings), event)
        except EventRejectedError as error:
            errors.append(EventError(index=index, reason=error.reason, field=error.field, detail=error.what))
    return Verdict(records, errors)


def _subjects_of_good(
    events: Sequence[bytes], admission: Admission | None, now: datetime, settings: Settings
) -> list[str] | None:
    """The subjects of events that all pass every check; None when each has to be looked at."""
    levels_max = settings.event_nesting_max
    if any(len(event) > settings.event_bytes_max for event in events):
        return None
    if levels_max < NESTING_MAX and any(nests_deeper(event, levels_max) for event in events):
        return None
    decoded = decode_events(events)
    if decoded is None or max(decoded.times) - now > timedelta(seconds=settings.event_ahead_s_max):
        return None
    if settings.event_age_s_max and now - min(decoded.times) > timedelta(seconds=settings.event_age_s_max):
        return None
    if admission is not None and admission.measure(decoded, range(len(events))).rejections:
        return None
    return decoded.subjects


def _key_of(event: bytes, admission: Admission | None, now: datetime, settings: Settings) -> bytes:
    """The record's key of an event that passes every check. Raises EventRejectedError."""
    if len(event) > settings.event_bytes_max:
        raise EventRejectedError(
            "too_large",
            "",
            f"the event has {len(event)} bytes, the setting event_bytes_max allows {settings.event_bytes_max}",
        )
    levels_max = settings.event_nesting_max
    if levels_max < NESTING_MAX and nests_deeper(event, levels_max):
        raise EventRejectedError(
            "too_deep", "", f"the JSON is nested deeper than the {levels_max} levels of the setting event_nesting_max"
        )
    decoded = decode_event(event)
    check_time(decoded, now, ahead_s_max=settings.event_ahead_s_max, age_s_max=settings.event_age_s_max)
    if admission is not None:
        admission.admit(decoded)
    return decoded.subject.encode()
