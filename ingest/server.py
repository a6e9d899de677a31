"""Serves an ASGI application with uvicorn until SIGTERM or SIGINT, finishing what is in flight."""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

import uvicorn

from ingest.http_protocol import bounded_http
from metering.config import Settings, variable_of
from metering.tls import check_server_files
from schemas.errors import PortTakenError, SettingError

BACKLOG: Final = 1024
SHUTDOWN_MARGIN_S: Final = 5
IDLE_CONNECTION_S: Final = 75


def bind(settings: Settings, *, part: str = "gateway") -> socket.socket:
    """A socket on the address of a part: the settings `{part}_host` and `{part}_port`.

    Raises PortTakenError, or SettingError for an address this machine has not.
    """
    check_server_files(settings)
    host, port = getattr(settings, f"{part}_host"), getattr(settings, f"{part}_port")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(
                f"another program listens on {host}:{port}",
                where=part,
                fix=f"Set {variable_of(f'{part}_port')} to a free port",
            ) from error
        raise SettingError(
            f"the {part} cannot bind to {host}:{port} ({error.strerror})", where=variable_of(f"{part}_host")
        ) from error
    return listener


def serve(app: Any, settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT: then take no more connections, answer what was begun, and return."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=bounded_http(settings),
        ssl_certfile=settings.gateway_tls_cert_file or None,
        ssl_keyfile=settings.gateway_tls_key_file or None,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_CONNECTION_S,
        timeout_graceful_shutdown=round(settings.kafka_delivery_timeout_s) + SHUTDOWN_MARGIN_S,
    )
    uvicorn.Server(config).run(sockets=[listener])
