"""A usage event: one CloudEvents 1.0 JSON document, one Kafka record.

Source: CloudEvents 1.0.2 (context attributes, JSON format). Beyond the specification, `subject` and `time` are
required: without them nothing can be billed. Identity is (`subject`, `source`, `id`).
A correction (`schemas.corrections`) is an event too, and decoded as what it says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec

from schemas.corrections import CORRECTIONS, Corrected, read_correction
from schemas.errors import EventRejectedError
from schemas.event_text import IDENTITY_BYTES_MAX as IDENTITY_BYTES_MAX  # noqa: PLC0414 - said of events
from schemas.event_text import TIME_MAX as TIME_MAX  # noqa: PLC0414 - as above
from schemas.event_text import TIME_MIN as TIME_MIN  # noqa: PLC0414 - as above
from schemas.event_text import check_text as check_text  # noqa: PLC0414 - as above
from schemas.event_text import parse_time as parse_time  # noqa: PLC0414 - as above
from schemas.event_text import rejection

NESTING_MAX: Final = 128
"""Deepest nesting of an event, its own braces included. A decoder alone would stop at a depth that changes with its
caller's stack, so that an event could be accepted by one process and refused by another."""
_NESTED_BYTES_MIN: Final = 2 * NESTING_MAX
"""A record of no more bytes has too few brackets to be too deep."""
CHECKED_TEXTS_MAX: Final = 50_000

REASONS: Final = {
    "empty_record": "the Kafka record has no value (a tombstone)",
    "not_json": "the bytes are not one JSON document in UTF-8",
    "not_an_event": "the JSON is no CloudEvents 1.0 object",
    "too_deep": "the JSON is nested more than 128 levels deep",
    "too_large": "the event is larger than the setting event_bytes_max",
    "missing_field": "a required attribute is absent",
    "wrong_type": "an attribute has another JSON type than it must",
    "invalid_text": "an attribute is empty, too long, or has control characters",
    "invalid_time": "time is no RFC 3339 timestamp with a zone",
    "time_out_of_range": "time is outside 1970 to 2099",
    "time_ahead": "time is further ahead of the log than the setting event_ahead_s_max",
    "time_too_old": "time is further behind the log than the setting event_age_s_max",
    "unknown_type": "no meter of the catalog reads this type, and event_types does not list it",
    "invalid_number": "a metered value is no decimal number",
    "number_out_of_range": "a metered value has more than 18 integer digits or 12 decimals",
    "invalid_dimension": "a dimension or filter field is no string, number, boolean or null, or is too long",
    "foreign_subject": "the API key is bound to a customer whose subject this is not; only the gateway says so",
    "invalid_correction": "a correction names itself, or puts another correction in an event's place",
    "key_not_subject": "the Kafka record's key is not the event's subject",
    "identity_conflict": "an event with this identity and another body was accepted before",
}
"""Why an event can be rejected: the stable word and what it means."""


class UsageEvent(msgspec.Struct, frozen=True, gc=False):
    """A decoded, valid event. `time` is UTC, cut (not rounded) to microseconds; `data` is JSON text, untouched.

    A correction has in `corrects` the (source, id) of the event that it names. One that replaces has the type, time and
    data of what it puts there, so that it is counted like any other event; one that voids has no data.
    """

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    data: msgspec.Raw
    corrects: tuple[str, str] | None = None


class EventColumns(msgspec.Struct, frozen=True, gc=False):
    """Valid events column by column: parallel lists of what a `UsageEvent` has; `corrects` by row, few have it."""

    ids: list[str]
    sources: list[str]
    types: list[str]
    subjects: list[str]
    times: list[datetime]
    datas: list[msgspec.Raw]
    corrects: dict[int, tuple[str, str]] = {}

    def identity(self, row: int) -> tuple[str, str, str]:
        """(subject, source, id)."""
        return self.subjects[row], self.sources[row], self.ids[row]

    def take(self, rows: Sequence[int]) -> EventColumns:
        """Some of the events."""
        return columns_of([self.at(row) for row in rows])

    def at(self, row: int) -> UsageEvent:
        """One event, by itself."""
        return UsageEvent(
            self.ids[row],
            self.sources[row],
            self.types[row],
            self.subjects[row],
            self.times[row],
            self.datas[row],
            self.corrects.get(row),
        )


class _Envelope(msgspec.Struct, gc=False):
    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    data: msgspec.Raw = msgspec.Raw(b"null")


_decode_envelope = msgspec.json.Decoder(_Envelope).decode

_checked: set[str] = set()
"""Texts that `check_text` found good; a cache, so that sharing it changes no answer."""
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""A string, or what a string without an end leaves: else each quote in it would be the start of another search for the
end, and 256 KiB of quotes would take minutes."""
_NO_BRACKET = re.compile(rb"[^\[\]{}]+")


def decode_event(record: bytes | None) -> UsageEvent:
    """Decode and validate one record.

    Raises EventRejectedError with a reason from REASONS and the field it is about. Depends on nothing but the bytes.
    """
    if not record:
        raise EventRejectedError("empty_record", "", "the record has no value")
    if nests_deeper(record, NESTING_MAX):
        raise EventRejectedError("too_deep", "", f"the JSON is nested more than {NESTING_MAX} levels deep")
    try:
        envelope = _decode_envelope(record)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise rejection(error) from error
    if envelope.specversion != "1.0":
        raise EventRejectedError(
            "not_an_event", "specversion", f"specversion is {envelope.specversion[:20]!r}, expected '1.0'"
        )
    if not record.isascii():
        _check_utf8(record)
    id_, source, type_, subject = envelope.id, envelope.source, envelope.type, envelope.subject
    check_text("id", id_)
    # Few sources, types and subjects make many events.
    if source not in _checked:
        _check_once("source", source)
    if subject not in _checked:
        _check_once("subject", subject)
    if type_ in CORRECTIONS:
        return _correction(envelope)
    if type_ not in _checked:
        _check_once("type", type_)
    return UsageEvent(id_, source, type_, subject, parse_time(envelope.time), envelope.data)


def _correction(envelope: _Envelope) -> UsageEvent:
    """A correction, as what it says."""
    time = parse_time(envelope.time)
    found: Corrected = read_correction(envelope.type, envelope.data, time, own=(envelope.source, envelope.id))
    return UsageEvent(
        envelope.id, envelope.source, found.type, envelope.subject, found.time, found.data, found.corrects
    )


def columns_of(events: Sequence[UsageEvent]) -> EventColumns:
    """Events as columns."""
    return EventColumns(
        [one.id for one in events],
        [one.source for one in events],
        [one.type for one in events],
        [one.subject for one in events],
        [one.time for one in events],
        [one.data for one in events],
        {row: one.corrects for row, one in enumerate(events) if one.corrects is not None},
    )


def decode_events(records: Sequence[bytes | None]) -> EventColumns | None:
    """What `decode_event` makes of many records, for less; None when it would reject or correct any.

    What makes it cheaper is that a look at all of a column tells that every text in it is good.
    """
    found = [record for record in records if record]
    if len(found) != len(records) or not found:
        return None
    if max(map(len, found)) > _NESTED_BYTES_MIN and any(nests_deeper(record, NESTING_MAX) for record in found):
        return None
    try:
        envelopes = [_decode_envelope(record) for record in found]
        together = b"\n".join(found)
        if not together.isascii():
            _check_utf8(together)
        columns = EventColumns(
            [one.id for one in envelopes],
            [one.source for one in envelopes],
            [one.type for one in envelopes],
            [one.subject for one in envelopes],
            [parse_time(one.time) for one in envelopes],
            [one.data for one in envelopes],
        )
        _check_ids(columns.ids)
        for field, texts in (("source", columns.sources), ("type", columns.types), ("subject", columns.subjects)):
            if not _checked.issuperset(texts):
                for text in set(texts) - _checked:
                    if field == "type" and text in CORRECTIONS:  # never among the checked ones
                        return None
                    _check_once(field, text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, EventRejectedError):
        return None
    return columns if {one.specversion for one in envelopes} == {"1.0"} else None


def _check_ids(ids: Sequence[str]) -> None:
    """`check_text` of every id."""
    together = "".join(ids)
    if "" in ids or max(map(len, ids)) > IDENTITY_BYTES_MAX or not (together.isascii() and together.isprintable()):
        for id_ in ids:
            check_text("id", id_)


def nests_deeper(record: bytes, levels_max: int) -> bool:
    """Whether objects and arrays stand in one another deeper than this, strings left out."""
    if len(record) <= 2 * levels_max or record.count(b"[") + record.count(b"{") <= levels_max:
        return False
    depth = 0
    for bracket in _NO_BRACKET.sub(b"", _STRING.sub(b"", record)):
        depth += 1 if bracket in b"[{" else -1
        if depth > levels_max:
            return True
    return False


def event_digest(record: bytes) -> int:
    """128 bits of the record's SHA-256, little-endian.

    ClickHouse computes the same as `reinterpretAsUInt128(substring(SHA256(raw), 1, 16))`.
    """
    return int.from_bytes(sha256(record).digest()[:16], "little")


def event_digests(records: Sequence[bytes]) -> list[int]:
    """`event_digest` of many."""
    number = int.from_bytes
    return [number(sha256(record).digest()[:16], "little") for record in records]


def identity_hash(subject: str, source: str, id_: str) -> bytes:
    """16 bytes that name an identity; each part is length-prefixed, so that ("a", "bc") and ("ab", "c") differ."""
    parts = [part.encode() for part in (subject, source, id_)]
    return sha256(b"".join(len(part).to_bytes(4, "little") + part for part in parts)).digest()[:16]


def _check_once(field: str, text: str) -> None:
    """`check_text`, and remember that the text is good."""
    check_text(field, text)
    if len(_checked) >= CHECKED_TEXTS_MAX:
        _checked.clear()
    _checked.add(text)


def _check_utf8(record: bytes) -> None:
    try:
        record.decode("utf-8")
    except UnicodeDecodeError as error:
        raise EventRejectedError("not_json", "", f"byte {error.start} is not valid UTF-8") from error
