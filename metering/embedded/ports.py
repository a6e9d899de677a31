"""Ports on 127.0.0.1: is one free, find one, wait until somebody answers."""

from __future__ import annotations

import errno
import socket

from schemas.errors import EmbeddedError, PortTakenError

HOST = "127.0.0.1"


def is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen on the port now; false as well where the port is not ours to take."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it a port whose last connections are still in TIME_WAIT would look taken; servers set it too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise EmbeddedError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return True


def free_ports(count: int) -> list[int]:
    """Distinct ports that nobody listens on. Another process may still take one before it is used."""
    probes = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def require_free(taken_by: dict[str, int]) -> None:
    """Check every port at once; `taken_by` maps the setting's variable to its port.

    Raises PortTakenError that names each taken port and the variable to change.
    """
    taken = {variable: port for variable, port in taken_by.items() if not is_free(port)}
    if not taken:
        return
    listed = ", ".join(f"{HOST}:{port}" for port in taken.values())
    noun, verb = ("port", "is") if len(taken) == 1 else ("ports", "are")
    raise PortTakenError(
        f"{noun} {listed} {verb} taken by another program",
        fix=f"Stop that program, or choose another port with {' and '.join(taken)}",
    )


def answers(port: int, host: str = HOST) -> bool:
    """Whether something accepts connections on the port."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False
