"""ClickHouse's HTTP interface over the embedded engine: `python -m metering.embedded.clickhouse_server --data DIR`.

Ordinary clients (clickhouse-connect, curl, analysts' tools) talk to it as to a ClickHouse server. It listens on
127.0.0.1, and refuses requests that a web page of another site sends through the user's browser.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hmac
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from metering.clock import SystemClock
from metering.config import load_settings, variable_of
from metering.embedded.clickhouse_ask import Answer, Ask
from metering.embedded.clickhouse_body import BrokenBodyError, read_body
from metering.embedded.clickhouse_engine import Engine
from metering.embedded.clickhouse_request import read_ask
from metering.embedded.clickhouse_statement import (
    AUTHENTICATION_FAILED,
    STREAMABLE_FORMATS,
    StatementError,
    http_status,
    refusal,
    result_format,
)
from metering.embedded.folder import FolderLock
from metering.embedded.ports import HOST, require_free
from schemas.errors import MeteringError

TABLES_FOLDER = "tables"
DRAIN_S = 10.0
LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


class Server(ThreadingHTTPServer):
    """One thread per connection; knows how many requests are being answered."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, engine: Engine, *, username: str, password: str) -> None:
        super().__init__((HOST, port), Handler)
        self.engine = engine
        self.username = username
        self.password = password
        self.answering = 0
        self.answering_changed = threading.Condition()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours; everything else is logged with its traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One request after another on one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    # Head and body leave in one packet, and no packet waits for another's acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path in ("/ping", "/replicas_status") or (path == "/" and "query=" not in self.path):
            self._reply(200, b"Ok.\n", {"Content-Type": "text/html; charset=UTF-8"})
        else:
            self._counted()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self._counted()

    def _counted(self) -> None:
        server = self.server
        with server.answering_changed:
            server.answering += 1
        try:
            self._answer()
        finally:
            with server.answering_changed:
                server.answering -= 1
                server.answering_changed.notify_all()

    def _answer(self) -> None:
        started_s = time.monotonic()
        query_id = str(uuid.uuid4())
        try:
            body = read_body(self.rfile, self.headers)
            self._check_origin()
            headers = {name.lower(): value for name, value in self.headers.items()}
            ask, interface = read_ask(self.command, self.path, headers, body)
            query_id = interface.get("query_id") or query_id
            self._authenticate(interface)
            if not ask.query.strip():
                raise refusal(62, "SYNTAX_ERROR", "Syntax error: empty query")
            shared = {"X-ClickHouse-Query-Id": query_id, "X-ClickHouse-Server-Display-Name": "embedded"}
            if self._streams(ask, interface):
                with closing(self.server.engine.stream(ask)) as blocks:
                    self._reply_blocks(blocks, ask, shared)
                return
            answer = self.server.engine.run(ask)
        except StatementError as error:
            # What is left of a body nobody read would be taken for the next request.
            self.close_connection = self.close_connection or isinstance(error, BrokenBodyError)
            self._reply_error(error, query_id)
            return
        shared["X-ClickHouse-Summary"] = _summary(answer, time.monotonic() - started_s)
        if answer.has_result:
            shared["X-ClickHouse-Format"] = result_format(ask.query, ask.format)
        self._reply(200, answer.body, {**_typed(ask), **shared})

    def _streams(self, ask: Ask, interface: dict[str, str]) -> bool:
        """A client that does not wait for the end gets a long answer block by block, so neither side holds it whole."""
        if interface.get("wait_end_of_query") == "1" or self.command != "POST" or ask.session_id:
            return False
        streamable = {result_format(ask.query, ask.format).lower(), ask.format.lower()} <= STREAMABLE_FORMATS
        return streamable and ask.query.split(None, 1)[0].upper() in (b"SELECT", b"WITH")

    def _reply_blocks(self, blocks: Iterator[bytes], ask: Ask, headers: dict[str, str]) -> None:
        first = next(blocks, b"")
        named = {"X-ClickHouse-Format": result_format(ask.query, ask.format), "Transfer-Encoding": "chunked"}
        self._head(200, {**_typed(ask), **headers, **named})
        try:
            block = first
            while block:
                self.wfile.write(b"%x\r\n" % len(block) + block + b"\r\n")
                block = next(blocks, b"")
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()
        except StatementError as error:
            # The head has gone out with 200: only a missing last chunk can tell the client that rows are missing.
            self.log_error("answer broken off: %s", error)
            self.close_connection = True

    def _reply_error(self, error: StatementError, query_id: str) -> None:
        text = f"{error}".rstrip()
        if "(version " not in text:
            text = f"{text} (version {self.server.engine.version})"
        headers = {
            "Content-Type": "text/plain; charset=UTF-8",
            "X-ClickHouse-Exception-Code": str(error.code),
            "X-ClickHouse-Query-Id": query_id,
        }
        self._reply(http_status(error.code), f"{text}\n".encode(), headers)

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, {**headers, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        self.send_header("X-ClickHouse-Timezone", "UTC")
        for name, value in headers.items():
            self.send_header(name, value.replace("\r", " ").replace("\n", " "))
        self.end_headers()

    def _check_origin(self) -> None:
        origin = self.headers.get("Origin")
        sites = [f"//{self.headers.get('Host', HOST)}", *([] if origin is None else [origin])]
        try:
            local = all(urlsplit(site).hostname in LOCAL_NAMES for site in sites)
        except ValueError:
            local = False
        if not local:
            raise refusal(AUTHENTICATION_FAILED, "AUTHENTICATION_FAILED", "Requests of other sites are refused")

    def _authenticate(self, interface: dict[str, str]) -> None:
        user = interface.get("user") or self.headers.get("X-ClickHouse-User") or "default"
        password = interface.get("password") or self.headers.get("X-ClickHouse-Key") or ""
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
            except (binascii.Error, UnicodeDecodeError):
                user = ""
        known = user == self.server.username
        if not (hmac.compare_digest(password.encode(), self.server.password.encode()) and known):
            message = f"{user}: Authentication failed: password is incorrect, or there is no user with such name"
            raise refusal(AUTHENTICATION_FAILED, "AUTHENTICATION_FAILED", message)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        sys.stderr.write(f"{self.log_date_time_string()} {format % args}\n")


def _typed(ask: Ask) -> dict[str, str]:
    name = result_format(ask.query, ask.format).lower()
    if name.startswith("json"):
        return {"Content-Type": "application/json; charset=UTF-8"}
    if name.startswith(("csv", "tabseparated", "tsv", "pretty", "vertical", "values", "markdown")):
        return {"Content-Type": "text/plain; charset=UTF-8"}
    return {"Content-Type": "application/octet-stream"}


def _summary(answer: Answer, elapsed_s: float) -> str:
    figures = {
        "read_rows": answer.rows_read,
        "read_bytes": answer.bytes_read,
        "written_rows": answer.rows_written,
        "written_bytes": answer.bytes_written,
        "total_rows_to_read": answer.rows_read,
        "result_rows": answer.result_rows or answer.rows_written,
        "result_bytes": len(answer.body) or answer.bytes_written,
        "elapsed_ns": round(elapsed_s * 1e9),
    }
    return orjson.dumps({name: str(value) for name, value in figures.items()}).decode()


def serve(data: Path, port: int, *, username: str, password: str) -> None:
    """Serve the tables in `data` until SIGTERM or SIGINT. Raises PortTakenError or AlreadyRunningError."""
    lock = FolderLock(data, name="clickhouse.lock", holder="a ClickHouse engine")
    lock.acquire()
    if port:
        require_free({variable_of("clickhouse_port"): port})
    # Opened by a relative path: chdb reads a `?` in a path as the beginning of options.
    os.chdir(data)
    engine = Engine(TABLES_FOLDER, clock=SystemClock())
    server = Server(port, engine, username=username, password=password)
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for the loop below, which runs in this very thread.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    sys.stderr.write(f"ClickHouse {engine.version} ready on http://{HOST}:{server.server_address[1]}\n")
    sys.stderr.flush()
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    with server.answering_changed:
        drained = server.answering_changed.wait_for(lambda: server.answering == 0, timeout=DRAIN_S)
    if not drained:
        # Closing the engine under a running query crashes it. What a query has not finished does not count anyway.
        sys.stderr.write(f"{server.answering} queries still run after {DRAIN_S:.0f} s and are cut off\n")
        sys.stderr.flush()
        os._exit(0)
    engine.close()
    lock.release()


def main() -> int:
    """Read the command line and serve; 1 when it cannot, with the reason on standard error."""
    parser = argparse.ArgumentParser(description="ClickHouse's HTTP interface over an engine in this process.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 chooses a free one")
    arguments = parser.parse_args()
    # One zone for every machine: how a DateTime without a zone reads must not depend on where it runs.
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        settings = load_settings()
        serve(
            arguments.data.resolve(),
            arguments.port,
            username=settings.clickhouse_username,
            password=settings.clickhouse_password,
        )
    except MeteringError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
