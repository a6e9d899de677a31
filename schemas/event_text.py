"""The texts in an event: what an attribute may be, what a time says, and what a decoder's error means. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

from schemas.errors import EventRejectedError

IDENTITY_BYTES_MAX: Final = 512
TIME_MIN: Final = datetime(1970, 1, 1, tzinfo=UTC)
TIME_MAX: Final = datetime(2100, 1, 1, tzinfo=UTC)

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_AT_FIELD = re.compile(r"at `\$\.?([^`]*)`")
_MISSING_FIELD = re.compile(r"missing required field `([^`]*)`")


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


def rejection(error: Exception) -> EventRejectedError:
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
