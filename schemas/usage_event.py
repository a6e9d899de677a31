"""A usage event: one CloudEvents 1.0 JSON document, one Kafka record.

Source: CloudEvents 1.0.2 (context attributes, JSON format). Beyond the specification, `subject` and `time` are
required: without them nothing can be billed. Identity is (`subject`, `source`, `id`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final

import msgspec

from schemas.errors import EventRejectedError

IDENTITY_BYTES_MAX: Final = 512
NESTING_MAX: Final = 128
"""Deepest nesting of an event, its own braces included. A decoder alone would stop at a depth that changes with its
caller's stack, so that an event could be accepted by one process and refused by another."""
CHECKED_TEXTS_MAX: Final = 50_000
TIME_MIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
TIME_MAX: Final = datetime(2100, 1, 1, tzinfo=UTC)

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
    "key_not_subject": "the Kafka record's key is not the event's subject",
    "identity_conflict": "an event with this identity and another body was accepted before",
}
"""Why an event can be rejected: the stable word and what it means."""


class UsageEvent(msgspec.Struct, frozen=True, gc=False):
    """A decoded, valid event. `time` is UTC, cut (not rounded) to microseconds; `data` is JSON text, untouched."""

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    data: msgspec.Raw


class EventColumns(msgspec.Struct, frozen=True, gc=False):
    """Valid events column by column: parallel lists of what a `UsageEvent` has."""

    ids: list[str]
    sources: list[str]
    types: list[str]
    subjects: list[str]
    times: list[datetime]
    datas: list[msgspec.Raw]

    def identity(self, row: int) -> tuple[str, str, str]:
        """(subject, source, id)."""
        return self.subjects[row], self.sources[row], self.ids[row]

    def take(self, rows: Sequence[int]) -> EventColumns:
        """Some of the events."""
        return columns_of([self.at(row) for row in rows])

    def at(self, row: int) -> UsageEvent:
        """One event, by itself."""
        return UsageEvent(
            self.ids[row], self.sources[row], self.types[row], self.subjects[row], self.times[row], self.datas[row]
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

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_checked: set[str] = set()
"""Texts that `check_text` found good; a cache, so that sharing it changes no answer."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
"""A string, or what a string without an end leaves: else each quote in it would be the start of another search for the
end, and 256 KiB of quotes would take minutes."""
_NO_BRACKET = re.compile(rb"[^\[\]{}]+")
_AT_FIELD = re.compile(r"at `\$\.?([^`]*)`")
_MISSING_FIELD = re.compile(r"missing required field `([^`]*)`")


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
        raise _rejection(error) from error
    if envelope.specversion != "1.0":
        raise EventRejectedError(
            "not_an_event", "specversion", f"specversion is {envelope.specversion[:20]!r}, expected '1.0'"
        )
    if not record.isascii():
        _check_utf8(record)
    id_, source, type_, subject = envelope.id, envelope.source, envelope.type, envelope.subject
    if not (id_.isascii() and id_.isprintable() and 0 < len(id_) <= IDENTITY_BYTES_MAX):
        check_text("id", id_)
    # Few sources, types and subjects make many events.
    if source not in _checked:
        _check_once("source", source)
    if type_ not in _checked:
        _check_once("type", type_)
    if subject not in _checked:
        _check_once("subject", subject)
    return UsageEvent(id_, source, type_, subject, parse_time(envelope.time), envelope.data)


def columns_of(events: Sequence[UsageEvent]) -> EventColumns:
    """Events as columns."""
    return EventColumns(
        [one.id for one in events],
        [one.source for one in events],
        [one.type for one in events],
        [one.subject for one in events],
        [one.time for one in events],
        [one.data for one in events],
    )


def decode_events(records: Sequence[bytes | None]) -> EventColumns | None:
    """What `decode_event` makes of many records, for half the price; None when it would reject any of them.

    What makes it cheaper is that a look at all of a column tells that every text in it is good.
    """
    found = [record for record in records if record]
    if len(found) != len(records) or not found:
        return None
    if any(nests_deeper(record, NESTING_MAX) for record in found):
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
                    _check_once(field, text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, EventRejectedError):
        return None
    return columns if {one.specversion for one in envelopes} == {"1.0"} else None


@lru_cache(maxsize=8_192)  # events come in bursts that share a time
def parse_time(text: str) -> datetime:
    """The UTC time of an RFC 3339 text, cut to microseconds, so that no event crosses into the next period.

    Raises EventRejectedError: `invalid_time` or `time_out_of_range`.
    """
    if len(text) > 64 or _RFC3339.fullmatch(text) is None:
        raise EventRejectedError(
            "invalid_time", "time", f"{text[:64]!r} is no RFC 3339 time with a zone, such as 2013-01-31T23:59:59Z"
        )
    try:
        time = datetime.fromisoformat(text.upper())
        if time.tzinfo is not UTC:
            time = time.astimezone(UTC)
    except OverflowError as error:
        raise EventRejectedError("time_out_of_range", "time", f"{text!r} is outside 1970 to 2099") from error
    except ValueError as error:
        raise EventRejectedError("invalid_time", "time", f"{text!r} is no time of the calendar: {error}") from error
    if not TIME_MIN <= time < TIME_MAX:
        raise EventRejectedError("time_out_of_range", "time", f"{text!r} is outside 1970 to 2099")
    return time


def check_text(field: str, text: str) -> None:
    """Raise EventRejectedError unless the attribute is non-empty, short and free of control characters."""
    if text.isascii() and text.isprintable() and 0 < len(text) <= IDENTITY_BYTES_MAX:
        return
    if not text:
        raise EventRejectedError("invalid_text", field, f"{field} is empty")
    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > IDENTITY_BYTES_MAX:
        raise EventRejectedError(
            "invalid_text", field, f"{field} has {size_bytes} bytes, at most {IDENTITY_BYTES_MAX} are allowed"
        )
    if _CONTROL.search(text):
        raise EventRejectedError("invalid_text", field, f"{field} has control characters")


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


def _rejection(error: Exception) -> EventRejectedError:
    """Say what msgspec's error means, in this project's words."""
    if isinstance(error, RecursionError):
        return EventRejectedError("too_deep", "", "the JSON is nested too deeply")
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return EventRejectedError("not_json", "", f"not one JSON document in UTF-8 ({text})")
    at_field = _AT_FIELD.search(text)
    field = at_field.group(1) if at_field else ""
    missing = _MISSING_FIELD.search(text)
    if missing:
        return EventRejectedError("missing_field", missing.group(1), f"{missing.group(1)} is required")
    if not field:
        return EventRejectedError("not_an_event", "", f"not a CloudEvents object ({text})")
    return EventRejectedError("wrong_type", field, text.partition(" - at ")[0].replace("`", ""))
