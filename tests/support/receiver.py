"""A small HTTP server for deliveries: it remembers every request, and answers as a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Request(NamedTuple):
    """What came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """What goes out; `status` 0 closes the connection without an answer."""

    status: int
    body: bytes = b"{}"
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    wait: threading.Event | None = None


class Receiver:
    """`answer` is asked for each request, one at a time."""

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self.requests: list[Request] = []
        self.answer = answer
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self._reply()

            def do_GET(self) -> None:
                self._reply()

            def _reply(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, body)
                with receiver._lock:
                    receiver.requests.append(request)
                    reply = receiver.answer(request)
                if reply.wait is not None:
                    reply.wait.wait(30)
                if not reply.status:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                self.send_header("Content-Length", str(len(reply.body)))
                self.send_header("Content-Type", "application/json")
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name it is called by
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def keys(self) -> list[str]:
        """The idempotency keys, in the order they came."""
        return [one.headers["idempotency-key"] for one in self.requests if "idempotency-key" in one.headers]


@contextmanager
def receiving(answer: Callable[[Request], Reply]) -> Iterator[Receiver]:
    """A receiver that listens while the block lasts."""
    receiver = Receiver(answer)
    thread = threading.Thread(target=receiver._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield receiver
    receiver._server.shutdown()
    receiver._server.server_close()
    thread.join()


def scripted(*statuses: int) -> Callable[[Request], Reply]:
    """Answers with these statuses in turn, and with 200 after them."""
    left = list(statuses)

    def answer(_: Request) -> Reply:
        return Reply(left.pop(0) if left else 200)

    return answer
