"""A worker's `/healthz`, `/readyz` and `/metrics`, on an address of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from metering.config import Settings
from schemas.errors import PortTakenError


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of itself. `is_ready`: it has partitions, none is paused, they move on, its services answer.

    `paused` says of each partition that is not read on over dead letters why, and what to do.

    `standstill_s` is how long a partition has not moved although it has records to read. `audit_differences` is what
    the last audit found, by check; None before the first. A difference does not make it unready: it is to be mended.
    """

    is_ready: bool
    epoch: str
    partitions: dict[int, int]
    unflushed_s: float
    standstill_s: float
    waiting_for: str
    paused: dict[int, str]
    audit_differences: dict[str, int] | None = None


class HasHealth(Protocol):
    """A worker, as far as this module needs it."""

    def health(self) -> Health: ...


@contextmanager
def serve_health(settings: Settings, worker: HasHealth) -> Iterator[None]:
    """Serve while the body runs; nothing is served when the port setting is 0.

    Raises PortTakenError, which names the setting.
    """
    if settings.worker_metrics_port == 0:
        yield
        return
    try:
        server = ThreadingHTTPServer((settings.worker_metrics_host, settings.worker_metrics_port), _handler(worker))
    except OSError as error:
        raise PortTakenError(
            f"port {settings.worker_metrics_port} cannot be used for the worker's metrics ({error.strerror})",
            where="METERING_WORKER_METRICS_PORT",
            fix="Choose another port for each worker on a machine, or 0 for none",
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(worker: HasHealth) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest())
            elif path == "/healthz":
                self._answer(HTTPStatus.OK, "application/json", b'{"status":"alive"}')
            elif path == "/readyz":
                health = worker.health()
                status = HTTPStatus.OK if health.is_ready else HTTPStatus.SERVICE_UNAVAILABLE
                self._answer(status, "application/json", msgspec.json.encode(health))
            else:
                self._answer(HTTPStatus.NOT_FOUND, "application/json", b'{"status":"no such page"}')

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
            """Requests of probes are no news."""

        def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
