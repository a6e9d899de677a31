"""The head of a request is bounded in size, so that nobody fills the gateway's memory before anything of ours runs."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import uvicorn
from litestar import Litestar, get

import ingest.http_protocol
from ingest.http_protocol import bounded_http
from metering.config import Settings

LIMIT_BYTES = 2_000
WAIT_S = 30.0


@get("/", sync_to_thread=False)
def hello() -> str:
    return "hello"


@contextmanager
def gateway(settings: Settings) -> Iterator[int]:
    """A server as `ingest.server.serve` makes it; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = Litestar([hello], openapi_config=None)
    config = uvicorn.Config(app, http=bounded_http(settings), log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    deadline_s = time.monotonic() + WAIT_S
    while not server.started:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def port() -> Iterator[int]:
    with gateway(msgspec.structs.replace(Settings(), head_bytes_max=LIMIT_BYTES)) as port:
        yield port


def exchange(port: int, *pieces: bytes) -> bytes:
    """Everything that is answered until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
        answered = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
            while got := connection.recv(65_536):
                answered += got
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answered


def head(size_bytes: int) -> bytes:
    """A request for / whose first line and headers count as this many bytes."""
    fixed = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: "
    counted = 1 + (4 + 1 + 4) + (10 + 5 + 4) + (1 + 4)
    return fixed + b"a" * (size_bytes - counted) + b"\r\n\r\n"


def test_a_head_at_the_limit_is_answered_and_one_beyond_it_refused(port: int) -> None:
    fits, too_large = exchange(port, head(LIMIT_BYTES - 100)), exchange(port, head(LIMIT_BYTES + 1))

    assert fits.startswith(b"HTTP/1.1 200")
    assert too_large.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    problem = json.loads(too_large.partition(b"\r\n\r\n")[2])
    assert (problem["code"], problem["setting"]) == ("head_too_large", "head_bytes_max")


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"GET / HTTP/1.1\r\nx: ", id="one header"),
        pytest.param(b"GET /", id="the address"),
        pytest.param(b"GET / HTTP/1.1\r\n", id="many headers"),
    ],
)
def test_a_head_without_an_end_is_refused_as_it_grows(port: int, endless: bytes) -> None:
    more = b"x: y\r\n" * 1_000 if endless.endswith(b"\n") else b"a" * 6_000

    answered = exchange(port, endless, *[more] * 200)

    # What was still on its way when the gateway closed may have reset the connection; more it never answers.
    assert answered == b"" or answered.startswith(b"HTTP/1.1 431")
    assert exchange(port, head(200)).startswith(b"HTTP/1.1 200")


def test_the_second_request_of_a_connection_is_bounded_like_the_first(port: int) -> None:
    small = head(200).replace(b"connection: close", b"connection: keep")

    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
        answers = []
        for request in (small, small, head(LIMIT_BYTES + 1)):
            connection.sendall(request)
            answers.append(connection.recv(65_536)[:12])

    assert answers == [b"HTTP/1.1 200", b"HTTP/1.1 200", b"HTTP/1.1 431"]


def test_a_refusal_is_never_taken_for_the_answer_to_an_earlier_request(port: int) -> None:
    small = head(200).replace(b"connection: close", b"connection: keep")

    answered = exchange(port, small + small + head(LIMIT_BYTES + 1))

    assert b"431" not in answered


def test_a_body_does_not_count_as_a_head(port: int) -> None:
    request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9000\r\n\r\n" + b"b" * 9_000

    assert exchange(port, request).startswith(b"HTTP/1.1 200")


def test_what_is_no_http_is_told_so(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
        context = ssl.create_default_context()
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(connection, server_hostname="x")

    problem = json.loads(exchange(port, b"\x16\x03\x01 hello\r\n\r\n").partition(b"\r\n\r\n")[2])
    assert (problem["status"], problem["code"]) == (400, "bad_http")


def test_a_connection_that_never_says_anything_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest.http_protocol, "HEAD_TIMEOUT_S", 0.2)
    with gateway(Settings()) as port:
        answers = [exchange(port), exchange(port, b"GET / HT")]

    for answered in answers:
        assert answered.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert json.loads(answered.partition(b"\r\n\r\n")[2])["code"] == "head_too_slow"
