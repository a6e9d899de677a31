"""Speaks TLS to the outside and plain TCP to a server behind it, as a load balancer would."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from tests.support.tls_certificates import Pair


@contextmanager
def tls_proxy(target_port: int, pair: Pair) -> Iterator[int]:
    """Give the port on 127.0.0.1 that leads to `target_port` through TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.2)
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                plain, _ = listener.accept()
                threading.Thread(target=_carry, args=(plain, context, target_port), daemon=True).start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        acceptor.join()
        listener.close()


def _carry(plain: socket.socket, context: ssl.SSLContext, target_port: int) -> None:
    with suppress(OSError), closing(plain):
        outside = context.wrap_socket(plain, server_side=True)
        with closing(outside), socket.create_connection(("127.0.0.1", target_port)) as inside:
            back = threading.Thread(target=_pump, args=(inside, outside), daemon=True)
            back.start()
            _pump(outside, inside)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
