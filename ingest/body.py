"""Reads a request body within limits: as sent, once inflated, and of all requests together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

from litestar import Request
from litestar.exceptions import ClientException

from ingest.inflate import DECODERS, InflateError
from ingest.problems import RETRY_AFTER_S, ProblemError
from metering.config import Settings

BODIES_BYTES_MAX: Final = 256 * 1024 * 1024
"""Most memory that the bodies of all requests may take in one process; more is turned away."""

BODY_TIMEOUT_S: Final = 30.0
"""How long a sender may take for one body, so that a slow one does not hold its memory for ever."""

_YIELD_BYTES: Final = 1024 * 1024


class BodyBudget:
    """Counts the bytes of bodies in memory, and refuses more than `bytes_max`."""

    def __init__(self, bytes_max: int = BODIES_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self.held_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Count bytes in. Raises ProblemError (503) when there is no room."""
        if self.held_bytes + size_bytes > self._bytes_max:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "overloaded",
                "the gateway holds as many request bodies as it has room for; nothing of this request was accepted",
                fix="Send it again after the pause that Retry-After names, or run more gateways",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        self.held_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Count bytes out."""
        self.held_bytes -= size_bytes


@asynccontextmanager
async def read_body(request: Request[Any, Any, Any], settings: Settings, budget: BodyBudget) -> AsyncIterator[bytes]:
    """The inflated body, counted in `budget` while the block runs.

    Raises ProblemError: 408 too slow, 413 too large as sent or inflated, 415 unknown coding, 400 broken coding.
    """
    inflate = _decoder(request.headers.get("content-encoding", ""))
    held = _Held(budget)
    try:
        body = await _read_sent(request, settings, held)
        if inflate is not None:
            body = await _inflate(body, inflate, settings, held)
        yield body
    finally:
        held.give_back()


class _Held:
    """What one request holds of the budget."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._size_bytes = 0

    def take(self, size_bytes: int) -> None:
        self._budget.take(size_bytes)
        self._size_bytes += size_bytes

    def give_back(self) -> None:
        self._budget.give_back(self._size_bytes)


def _decoder(coding: str) -> Any:
    """The step-wise decoder of a Content-Encoding; None for a plain body."""
    name = coding.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in DECODERS:
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            f"Content-Encoding {coding[:80]!r} is not supported",
            fix="Send the body plain, or with Content-Encoding gzip or zstd",
            headers={"Accept-Encoding": "gzip, zstd"},
        )
    return DECODERS[name]


async def _read_sent(request: Request[Any, Any, Any], settings: Settings, held: _Held) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > settings.body_bytes_max:
        raise _too_large(settings)
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                size_bytes += len(chunk)
                if size_bytes > settings.body_bytes_max:
                    raise _too_large(settings)
                held.take(len(chunk))
                chunks.append(chunk)
    except TimeoutError as error:
        raise ProblemError(
            HTTPStatus.REQUEST_TIMEOUT,
            "body_too_slow",
            f"the body did not arrive within {BODY_TIMEOUT_S:g} s; nothing was accepted",
            fix="Send smaller batches",
            headers={"Connection": "close"},
        ) from error
    except ClientException as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "body_cut_off", "the body ended before it was complete") from error
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _inflate(body: bytes, steps: Any, settings: Settings, held: _Held) -> bytes:
    pieces: list[bytes] = []
    size_bytes = since_yield_bytes = 0
    try:
        for piece in steps(body):
            size_bytes += len(piece)
            since_yield_bytes += len(piece)
            if size_bytes > settings.body_inflated_bytes_max:
                raise ProblemError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    "inflated_body_too_large",
                    f"the body inflates to more than {settings.body_inflated_bytes_max} bytes; nothing was accepted",
                    fix="Send smaller batches, or raise METERING_BODY_INFLATED_BYTES_MAX",
                    setting="body_inflated_bytes_max",
                )
            held.take(len(piece))
            pieces.append(piece)
            if since_yield_bytes > _YIELD_BYTES:
                since_yield_bytes = 0
                await asyncio.sleep(0)
    except InflateError as error:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "body_not_inflatable",
            f"{error}; nothing was accepted",
            fix="Check that Content-Encoding names what the body was compressed with",
        ) from error
    return b"".join(pieces)


def _too_large(settings: Settings) -> ProblemError:
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body_too_large",
        f"the body has more than {settings.body_bytes_max} bytes; nothing was accepted",
        fix="Send smaller batches, compress them, or raise METERING_BODY_BYTES_MAX",
        headers={"Connection": "close"},
        setting="body_bytes_max",
    )
