"""A TCP proxy that refuses requests, or delivers them and drops the answer."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65_536


class BrokenWire:
    """Forwards connections to a server. `break_next` spoils that many exchanges, then all is well again.

    `refuse`: the request never reaches the server. `drop_answer`: the server has done it, but nobody hears.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._mode = "pass"
        self._left = 0
        self.broken = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.close()

    def break_next(self, mode: str, times: int) -> None:
        with self._lock:
            self._mode, self._left = mode, times

    def _takes(self, mode: str) -> bool:
        """Whether this exchange is one to spoil in this way."""
        with self._lock:
            if self._mode != mode or self._left == 0:
                return False
            self._left -= 1
            self.broken += 1
            return True

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed: the test is over
            server = socket.create_connection(self._target)
            for source, sink, mode in ((client, server, "refuse"), (server, client, "drop_answer")):
                threading.Thread(target=self._pump, args=(source, sink, mode), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, mode: str) -> None:
        try:
            while chunk := source.recv(CHUNK_BYTES):
                if self._takes(mode):
                    break
                sink.sendall(chunk)
        except OSError:
            pass  # the other direction has closed the pair
        finally:
            for one in (source, sink):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
                one.close()
