"""Splits a request into events by its content type, each with its own bytes untouched. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.message import Message
from http import HTTPStatus
from typing import Final

import msgspec

from ingest.binary_mode import BinaryModeError, is_binary_mode, structured_event
from ingest.problems import EventError, ProblemError
from metering.config import Settings

EVENT: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
PLAIN: Final = "application/json"

_split_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_UTF8: Final = frozenset({"", "utf-8", "utf8", "us-ascii"})
_BLANKS: Final = b" \t\r\n"

COMMAS_MAX: Final = 500_000
"""A body with more commas is counted before it is split."""

DECLARED_CHARACTERS_MAX: Final = 512
"""Characters of a Content-Type that are looked at."""

_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]', re.DOTALL)
"""Strings and marks. A string without an end reaches to the body's end, so that no part of it is searched twice."""


def events_of(headers: Sequence[tuple[str, str]], body: bytes, settings: Settings) -> list[bytes]:
    """The events of a request, in order. `headers` are (lower case name, Latin-1 text).

    Raises ProblemError: 415 for another content type, 400 for a body that cannot be taken apart, 422 for binary-mode
    headers that make no event, 413 for too many events.
    """
    names = [name for name, _ in headers]
    declared = next((value for name, value in headers if name == "content-type"), "")
    media_type, charset = _media_type(declared)
    if media_type in (EVENT, BATCH, PLAIN) and charset not in _UTF8:
        raise _unsupported(declared)
    if media_type == EVENT:
        return [body.strip(_BLANKS)]
    if media_type == BATCH:
        return _split(body, settings)
    if is_binary_mode(names):
        return [_binary(headers, media_type, declared, body)]
    if media_type != PLAIN:
        raise _unsupported(declared)
    stripped = body.strip(_BLANKS)
    return _split(stripped, settings) if stripped[:1] == b"[" else [stripped]


def _media_type(declared: str) -> tuple[str, str]:
    """(type/subtype, charset), lower case."""
    message = Message()
    # The library's search for parameters takes the square of the header's length.
    message["content-type"] = declared[:DECLARED_CHARACTERS_MAX].replace("\n", " ").replace("\r", " ")
    charset = message.get_param("charset", "")
    media_type = declared.partition(";")[0].strip().lower()
    return media_type, charset.lower() if isinstance(charset, str) else "?"


def _split(body: bytes, settings: Settings) -> list[bytes]:
    if body.count(b",") > COMMAS_MAX:
        _count_elements(body, settings)
    try:
        parts = _split_array(body)
    except msgspec.ValidationError as error:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "not_a_batch",
            "the body is no JSON array of events; nothing was accepted",
            fix=f"Send an array, or one event as {EVENT}",
        ) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "not_json",
            f"the body is not one JSON document in UTF-8 ({error}); nothing was accepted",
            fix="Send a JSON array of CloudEvents",
        ) from error
    if len(parts) > settings.batch_events_max:
        raise _too_long(settings)
    return [bytes(part) for part in parts]


def _count_elements(body: bytes, settings: Settings) -> None:
    """Refuse an array of too many elements before splitting it: millions of `1,` would become millions of objects."""
    depth = elements = 0
    for token in _STRUCTURE.finditer(body):
        mark = token.group()
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
        elif mark == b"," and depth == 1:
            elements += 1
            if elements >= settings.batch_events_max:
                raise _too_long(settings)


def _too_long(settings: Settings) -> ProblemError:
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "batch_too_long",
        f"the batch has more than {settings.batch_events_max} events; nothing was accepted",
        fix="Send smaller batches, or raise METERING_BATCH_EVENTS_MAX",
        setting="batch_events_max",
    )


def _binary(headers: Sequence[tuple[str, str]], media_type: str, declared: str, body: bytes) -> bytes:
    if media_type != PLAIN and (media_type or body.strip(_BLANKS)):
        raise _unsupported(declared)
    try:
        return structured_event(headers, body)
    except BinaryModeError as error:
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "invalid_events",
            "the ce- headers and the body make no event; nothing was accepted",
            fix="Correct the event and send it again; docs/ingest.md shows binary mode",
            errors=[
                EventError(
                    index=0,
                    reason="not_json" if error.field == "data" else "not_an_event",
                    field=error.field,
                    detail=str(error),
                )
            ],
        ) from error


def _unsupported(declared: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "unsupported_content_type",
        f"Content-Type {declared[:120]!r} is not taken; nothing was accepted",
        fix=f"Use {EVENT} for one event, {BATCH} for an array, or ce- headers with {PLAIN} data; all in UTF-8",
        headers={"Accept": f"{EVENT}, {BATCH}, {PLAIN}"},
    )
