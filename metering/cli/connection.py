"""What commands that work on ClickHouse share: a client for the length of a command, and who runs it."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from metering.clickhouse import connect, unavailable
from metering.cluster_client import refuse_other_shape
from metering.config import Settings
from schemas.errors import RequestError

ABSENT_CODES: Final = frozenset({60, 81})
"""ClickHouse error codes for a table and a database that are not there."""


@contextmanager
def database_client(settings: Settings) -> Iterator[Client]:
    """A client on the settings' database, closed afterwards.

    Raises ClickHouseUnavailableError when nothing answers, RequestError when the database or its tables are not there.
    """
    try:
        with unavailable(settings):
            client = connect(settings)
            try:
                refuse_other_shape(client, settings.clickhouse_cluster)
                yield client
            finally:
                client.close()
    except DatabaseError as error:
        if error.code not in ABSENT_CODES:
            raise
        raise RequestError(
            f"database {settings.clickhouse_database} has no tables yet",
            where=settings.clickhouse_address,
            fix="Run `metering migrate`",
        ) from error


def whoami() -> str:
    """The user and machine that a command is run by: `ada@engine`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
