"""Sending again what a target could not take just now, with growing pauses and an end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import msgspec
import stamina

from billing_export.delivery import Answer
from schemas.errors import InvariantViolationError, UnavailableError

PAUSE_S_MAX: Final = 30
RETRY_STATUSES: Final = frozenset({408, 409, 425, 429})
"""Answers below 500 that mean: not now. 409 is how Stripe says that the same key is being worked on."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how patiently to try. `timeout_s` is for one attempt, `pause_s` the first pause; it doubles."""

    timeout_s: float = 10.0
    attempts_max: int = 6
    pause_s: float = 0.5


class NotNowError(Exception):
    """The target did not answer, or said that it cannot now. `pause_s` is how long it asked to be left alone."""

    def __init__(self, what: str, *, pause_s: int | None = None) -> None:
        self.what = what
        self.pause_s = pause_s
        super().__init__(what)


def with_retries(send: Callable[[], Answer], policy: RetryPolicy, *, where: str) -> Answer:
    """What `send` answers, tried again while it raises NotNowError. Raises UnavailableError after the last attempt."""
    attempts = stamina.retry_context(
        on=_pause,
        attempts=policy.attempts_max,
        timeout=None,
        wait_initial=policy.pause_s,
        wait_max=PAUSE_S_MAX,
        wait_jitter=policy.pause_s,
    )
    try:
        for attempt in attempts:
            with attempt:
                return send()
    except NotNowError as error:
        raise UnavailableError(
            f"{error.what}, {policy.attempts_max} times in a row",
            where=where,
            fix="Nothing is lost and nothing goes twice: run the same command again later",
        ) from error
    raise InvariantViolationError("the retries ended without an answer or an error", where=where)


def is_not_now(status: int) -> bool:
    """Whether an HTTP status means that the same request may succeed later."""
    return status in RETRY_STATUSES or status >= 500


def retry_after_s(header: str | None) -> int | None:
    """The seconds of a Retry-After header; None without one, or when it names a date."""
    return min(int(header), PAUSE_S_MAX) if header is not None and header.isascii() and header.isdigit() else None


def _pause(error: Exception) -> bool | timedelta:
    if not isinstance(error, NotNowError):
        return False
    return True if error.pause_s is None else timedelta(seconds=error.pause_s)
