"""A TCP proxy whose weather can be changed while connections are open."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Final, Self

MODES: Final = ("pass", "hold", "swallow", "reset", "drop_answer", "trickle", "split", "http_503")
"""What is done with what arrives.

`hold`: kept, and forwarded once the mode is another. `swallow`: read and thrown away, the connection stays open.
`reset`: every connection ends with RST, and so does every new one. `drop_answer`: the server does what it is asked, the
answer is thrown away and the connection ends. `trickle`: a byte at a time, slowly. `split`: a few bytes a segment.
`http_503`: an HTTP 503 in the server's place.
"""
CHUNK_BYTES: Final = 65_536
CHECK_S: Final = 0.02
TRICKLE_S: Final = 0.05
SPLIT_BYTES: Final = 7
ANSWER_503: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
LINGER_NOT: Final = struct.pack("ii", 1, 0)


class FaultWire:
    """Forwards connections on `port` of this machine to a server; `spoil` sets the mode, `heal` ends it.

    With `only` a mode concerns the connections whose client has sent these bytes since the mode was set, so that one
    kind of request can be spoilt. `broken` counts what was spoilt: a test must see that its fault happened.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1", listen_port: int = 0) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", listen_port))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._mode = "pass"
        self._only = b""
        self._left = 0
        self.broken = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.heal()
        self._listener.close()

    def aim(self, port: int) -> None:
        """Forward new connections to another port."""
        self._target = (self._target[0], port)

    def spoil(self, mode: str, *, times: int = 1_000_000_000, only: bytes = b"") -> None:
        """From now on, `times` times."""
        assert mode in MODES, mode
        with self._lock:
            self._mode, self._left, self._only = mode, times, only

    def heal(self) -> None:
        """All is well again."""
        self.spoil("pass")

    def _is(self, *modes: str) -> bool:
        return self._mode in modes and self._left > 0

    def _take(self) -> None:
        with self._lock:
            self._left -= 1
            self.broken += 1

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed: the test is over
            if self._is("reset") and not self._only:
                self._take()
                _reset(client)
                continue
            try:
                server = socket.create_connection(self._target)
            except OSError:
                _reset(client)
                continue
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(client, server)
            threading.Thread(target=self._guarded, args=(pair, client, server, True), daemon=True).start()
            threading.Thread(target=self._guarded, args=(pair, server, client, False), daemon=True).start()

    def _guarded(self, pair: _Pair, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        try:
            self._pump(pair, source, sink, is_request)
        except OSError:
            pass  # the other direction has closed the pair
        finally:
            pair.close()

    def _pump(self, pair: _Pair, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        source.settimeout(CHECK_S)
        while True:
            if self._is("reset") and self._concerns(pair, b""):
                self._take()
                pair.reset()
                return
            try:
                chunk = source.recv(CHUNK_BYTES)
            except TimeoutError:
                continue
            if not chunk:
                return
            if is_request:
                self._concerns(pair, chunk)
            if not self._forward(pair, sink, chunk, is_request):
                return

    def _concerns(self, pair: _Pair, chunk: bytes) -> bool:
        """Whether the mode in force concerns this connection; it does once the wanted bytes have been seen."""
        if self._only and self._only in chunk:
            pair.marked_for = self._only
        return not self._only or pair.marked_for == self._only

    def _forward(self, pair: _Pair, sink: socket.socket, chunk: bytes, is_request: bool) -> bool:
        """Send a chunk on, as the weather has it; False ends the connection."""
        if not self._concerns(pair, b""):
            sink.sendall(chunk)
            return True
        while self._is("hold"):
            self._take()
            time.sleep(CHECK_S)
        if self._is("swallow"):
            self._take()
            return True
        if self._is("drop_answer") and not is_request:
            self._take()
            pair.marked_for = b""
            return False
        if self._is("http_503") and is_request:
            self._take()
            pair.client.sendall(ANSWER_503)
            return False
        step = {"trickle": 1, "split": SPLIT_BYTES}.get(self._mode, len(chunk)) if self._left > 0 else len(chunk)
        at = 0
        while at < len(chunk):
            slow = self._is("trickle", "split")
            end = at + (step if slow else len(chunk) - at)
            sink.sendall(chunk[at:end])
            at = end
            if slow:
                self._take()
                time.sleep(TRICKLE_S if self._is("trickle") else 0)
        return True


class _Pair:
    """Both ends of a proxied connection."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.marked_for = b""

    def reset(self) -> None:
        for one in (self.client, self.server):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        self.close()

    def close(self) -> None:
        for one in (self.client, self.server):
            with contextlib.suppress(OSError):  # closed already, by the other direction or the other side
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def _reset(one: socket.socket) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    one.close()
