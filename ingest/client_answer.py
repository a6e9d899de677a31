"""What the gateway answers the client, and what becomes of an event that it refused."""

from __future__ import annotations

import logging

import httpx
import msgspec

# Programs that use this have a logging of their own, so it speaks through the standard library.
_log = logging.getLogger(__name__)


class RejectedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that did not get in: its JSON, a reason of docs/events.md or `undelivered`, and what was wrong."""

    event: bytes
    reason: str
    field: str
    detail: str


class Answer(msgspec.Struct):
    """How many events were accepted, and what is wrong with the others; `detail` when nothing was."""

    accepted: int = 0
    detail: str = ""
    errors: list[RefusedEvent] = []


class RefusedEvent(msgspec.Struct):
    """Which event of the request was refused, and why."""

    index: int
    reason: str
    field: str
    detail: str


def log_rejected(rejected: RejectedEvent) -> None:
    """What happens to a refused event unless a callback is given: the log has it whole."""
    _log.error(
        "usage event not accepted (%s %s: %s): %s",
        rejected.reason,
        rejected.field,
        rejected.detail,
        rejected.event.decode("utf-8", "replace"),
    )


def answer_of(response: httpx.Response) -> Answer:
    """The gateway's answer or problem document; an empty one when something else answered."""
    try:
        return msgspec.json.decode(response.content, type=Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Answer()
