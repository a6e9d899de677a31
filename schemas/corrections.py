"""Corrections: events that take back or replace another event of the same subject. Pure.

`data` names the other event by `source` and `id`. A replacement has besides, in `data`, the `type`, `time` and `data`
of what is put in its place; these are then the correction's own.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from schemas.errors import EventRejectedError
from schemas.event_text import check_text, parse_time, rejection

VOIDED: Final = "metering.event.voided"
REPLACED: Final = "metering.event.replaced"
CORRECTIONS: Final = frozenset({VOIDED, REPLACED})

_NOTHING: Final = msgspec.Raw(b"null")


class Corrected(msgspec.Struct, frozen=True, gc=False):
    """What a correction says: the (source, id) it names, and its own type, time and data."""

    corrects: tuple[str, str]
    type: str
    time: datetime
    data: msgspec.Raw


class _Named(msgspec.Struct, gc=False):
    source: str
    id: str


class _Replacement(msgspec.Struct, gc=False):
    source: str
    id: str
    type: str
    time: str
    data: msgspec.Raw = _NOTHING


_decode_named = msgspec.json.Decoder(_Named).decode
_decode_replacement = msgspec.json.Decoder(_Replacement).decode


def read_correction(type_: str, data: msgspec.Raw, time: datetime, *, own: tuple[str, str]) -> Corrected:
    """Read the data of a correction that stands in an event of this type, time and own (source, id).

    Raises EventRejectedError whose field is a path that begins with `data`.
    """
    try:
        named = _decode_named(data)
        replacement = _decode_replacement(data) if type_ == REPLACED else None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise within_data(rejection(error)) from error
    corrects = (named.source, named.id)
    check_text("data.source", named.source)
    check_text("data.id", named.id)
    if corrects == own:
        raise EventRejectedError("invalid_correction", "data.id", "the correction names itself")
    if replacement is None:
        return Corrected(corrects, VOIDED, time, _NOTHING)
    check_text("data.type", replacement.type)
    if replacement.type in CORRECTIONS:
        raise EventRejectedError(
            "invalid_correction", "data.type", f"{replacement.type} cannot be put in the place of an event"
        )
    try:
        return Corrected(corrects, replacement.type, parse_time(replacement.time), replacement.data)
    except EventRejectedError as error:
        raise within_data(error) from error


def within_data(rejected: EventRejectedError) -> EventRejectedError:
    """The same about a field of what stands in `data`."""
    if not rejected.field:
        return EventRejectedError("wrong_type", "data", "data is no object that names an event")
    what = f"data.{rejected.what}" if rejected.what.startswith(rejected.field) else rejected.what
    return EventRejectedError(rejected.reason, f"data.{rejected.field}", what)
