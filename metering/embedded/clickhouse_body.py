"""The body of an HTTP request, whole or not at all."""

from __future__ import annotations

from email.message import Message
from io import BufferedIOBase

from metering.embedded.clickhouse_statement import StatementError

BODY_BYTES_MAX = 2 * 1024 * 1024 * 1024
LINE_BYTES_MAX = 66


class BrokenBodyError(StatementError):
    """The body cannot be read to its end, so the connection cannot be used any further."""


def read_body(source: BufferedIOBase, headers: Message) -> bytes:
    """Read a body of a given length or in chunks; empty without either. Raises BrokenBodyError.

    A client that dies while it sends rows must not have half of them inserted, so nothing is handed on before the end.
    """
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        return _read_chunks(source)
    text = headers.get("Content-Length", "0")
    if not text.isascii() or not text.isdigit() or int(text) > BODY_BYTES_MAX:
        raise _too_long(f"Content-Length {text!r} is no length up to {BODY_BYTES_MAX}")
    body = source.read(int(text))
    if len(body) < int(text):
        raise _cut_short()
    return body


def _read_chunks(source: BufferedIOBase) -> bytes:
    chunks: list[bytes] = []
    total = 0
    while True:
        head = source.readline(LINE_BYTES_MAX).split(b";")[0].strip()
        try:
            size = int(head, 16)
        except ValueError:
            raise _cut_short() from None
        total += size
        if size < 0 or total > BODY_BYTES_MAX:
            raise _too_long(f"The body is longer than {BODY_BYTES_MAX} bytes")
        chunk = source.read(size)
        end = source.readline(LINE_BYTES_MAX)
        if len(chunk) < size or (size and end != b"\r\n"):
            raise _cut_short()
        if size == 0:
            while end not in (b"\r\n", b"\n", b""):
                end = source.readline(LINE_BYTES_MAX)
            return b"".join(chunks)
        chunks.append(chunk)


def _too_long(message: str) -> BrokenBodyError:
    return BrokenBodyError(f"Code: 36. DB::Exception: {message}. (BAD_ARGUMENTS)")


def _cut_short() -> BrokenBodyError:
    message = "The request ended before its body did; nothing was run"
    return BrokenBodyError(f"Code: 33. DB::Exception: {message}. (CANNOT_READ_ALL_DATA)")
