"""HTTP/1.1 as uvicorn speaks it, with a bound on the head of a request: its size, and how long it may take to come.

A body is bounded where it is read (`body.py`). The head comes before anything of ours runs, and the parser below takes
any number of headers of any length, for as long as they keep coming.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ingest.problems import PROBLEM_JSON, Problem, problem_of
from metering.config import Settings

HEADER_OVERHEAD_BYTES: Final = 4
"""The colon, the blank and the line's end."""

HEAD_TIMEOUT_S: Final = 30.0
"""How long a request's head may take, and how long a new connection may stay silent."""


def bounded_http(settings: Settings) -> type[asyncio.Protocol]:
    """The protocol class for these settings; uvicorn makes one object of it for each connection."""
    return type("BoundedHttpProtocol", (_BoundedHttp,), {"head_bytes_max": settings.head_bytes_max})


class _BoundedHttp(HttpToolsProtocol):
    head_bytes_max: int

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._in_head = True
        self._head_bytes = self._arrived_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._arrived_bytes += len(data)
        super().data_received(data)
        # A header that never ends is shown to nobody; only what has arrived tells of it.
        if self._in_head and self._arrived_bytes > self.head_bytes_max and not self.transport.is_closing():
            self._refuse_size()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + HEADER_OVERHEAD_BYTES)
        super().on_header(name, value)

    def send_400_response(self, msg: str) -> None:
        if self._head_bytes > self.head_bytes_max:
            self._refuse_size()
        elif not self.transport.is_closing():
            self._refuse(
                problem_of(
                    HTTPStatus.BAD_REQUEST, "bad_http", msg, fix="Speak HTTP/1.1, with TLS where it is asked for"
                )
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._in_head:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._in_head = True
        self._head_bytes = self._arrived_bytes = 0
        self._stop_timer()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._time_out)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _time_out(self) -> None:
        if not self.transport.is_closing():
            self._refuse(
                problem_of(
                    HTTPStatus.REQUEST_TIMEOUT,
                    "head_too_slow",
                    f"the first line and the headers did not arrive within {HEAD_TIMEOUT_S:g} s",
                    fix="Send the request at once",
                )
            )

    def _count(self, size_bytes: int) -> None:
        """Count a part of the head. What is raised ends the parser, which then asks for `send_400_response`."""
        self._head_bytes += size_bytes
        if self._head_bytes > self.head_bytes_max:
            raise ValueError("the head is too large")

    def _refuse_size(self) -> None:
        self._refuse(
            problem_of(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head_too_large",
                f"the first line and the headers have more than {self.head_bytes_max} bytes",
                fix="Send fewer or shorter headers, or raise METERING_HEAD_BYTES_MAX",
                setting="head_bytes_max",
            )
        )

    def _refuse(self, problem: Problem) -> None:
        """Answer and close; what else is on its way is not read.

        While an earlier request of the connection waits for its answer, this would be taken for that one: then none.
        """
        self._stop_timer()
        begun: RequestResponseCycle | None = self.cycle
        if self.pipeline or (begun is not None and not begun.response_complete):
            self.transport.close()
            return
        body = msgspec.json.encode(problem)
        head = (
            f"HTTP/1.1 {problem.status} {problem.title}\r\ncontent-type: {PROBLEM_JSON}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
