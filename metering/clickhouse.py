"""Connections to ClickHouse: one client a thread, UTC everywhere, errors in this project's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver import options
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import (
    ClickHouseError,
    DatabaseError,
    DataError,
    NotSupportedError,
    ProgrammingError,
)

from metering.cluster_client import ClusterClient, cluster_settings
from metering.cluster_tables import everywhere
from metering.config import Settings
from metering.tls import checked_file
from schemas.errors import ClickHouseUnavailableError, SettingError

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
CONNECT_TIMEOUT_S: Final = 5
SHOWN_REASON_MAX: Final = 200

PASSING_CODES: Final = frozenset({75, 159, 202, 209, 210, 225, 241, 242, 243, 252, 279, 285, 286, 319, 999})
"""ClickHouse error codes that trying again may cure: a disk that is full (in a write, or before it), timeouts,
overload, memory, read-only replica, too many parts, unknown write status; Keeper, a shard or replicas away."""

# An insert would ask whether its rows are a DataFrame, and import pandas for that where it is installed: half a
# second of processor time and 40 MiB in every process, for nothing that is used here.
for _name in ("pd", "pd_time_test"):
    vars(options).setdefault(_name, None)


def connect(settings: Settings, *, database: str | None = None, limits: Mapping[str, int] | None = None) -> Client:
    """A client for the calling thread, on `database` (the settings' unless given); each query has these `limits`.

    Inserts may touch any number of monthly partitions, because a backfill does.
    Raises ClickHouseUnavailableError when nothing answers.
    """
    url = urlsplit(settings.clickhouse_address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise SettingError(
            f"{settings.clickhouse_address!r} is no address",
            where="METERING_CLICKHOUSE_URL",
            fix="Use http(s)://host:port",
        )
    cluster = settings.clickhouse_cluster
    spread = cluster_settings(settings.clickhouse_timeout_s) if cluster else {}
    arguments: dict[str, Any] = {
        "interface": url.scheme,
        "host": url.hostname,
        "port": url.port or (8443 if url.scheme == "https" else 8123),
        "username": settings.clickhouse_username,
        "password": settings.clickhouse_password,
        "database": settings.clickhouse_database if database is None else database,
        "compress": False if url.hostname in LOOPBACK else "lz4",
        "connect_timeout": CONNECT_TIMEOUT_S,
        "send_receive_timeout": settings.clickhouse_timeout_s,
        "autogenerate_session_id": False,
        "tz_mode": "aware",
        "ca_cert": checked_file(settings, "clickhouse_ca_file") or None,
        # Servers may put small inserts together, and forget the tokens of those after a week; claims are for good.
        "settings": {"max_partitions_per_insert_block": 0, "async_insert": 0, **spread, **(limits or {})},
    }
    with unavailable(settings):
        return ClusterClient(cluster, **arguments) if cluster else clickhouse_connect.get_client(**arguments)


def ensure_database(settings: Settings) -> None:
    """Create the settings' database when it is absent. Its name is checked by the settings, so it can stand in DDL."""
    client = connect(settings, database="default")
    try:
        with unavailable(settings):
            on_cluster = f" {everywhere(settings.clickhouse_cluster)}" if settings.clickhouse_cluster else ""
            client.command(
                f"CREATE DATABASE IF NOT EXISTS {{database:Identifier}}{on_cluster}",
                {"database": settings.clickhouse_database},
            )
    finally:
        client.close()


@contextmanager
def unavailable(settings: Settings) -> Iterator[None]:
    """Turn "nothing answers" into ClickHouseUnavailableError; leave real errors of a statement as they are."""
    try:
        yield
    except ClickHouseError as error:
        if not is_passing(error):
            raise
        raise ClickHouseUnavailableError(
            f"ClickHouse does not answer ({_reason(error)})",
            where=settings.clickhouse_address,
            fix="Start it with `metering up`, or set METERING_CLICKHOUSE_URL",
        ) from error


def _reason(error: ClickHouseError) -> str:
    """The end of the chain of causes, which says what happened; the rest says through which hands it went."""
    cause: BaseException = error
    while cause.__cause__ is not None or cause.__context__ is not None:
        cause = cause.__cause__ or cause.__context__ or cause
    text = str(cause) or str(error)
    return text.splitlines()[0][:SHOWN_REASON_MAX]


def is_passing(error: Exception) -> bool:
    """Whether trying the same statement again later may succeed: no answer at all, or one of PASSING_CODES."""
    if not isinstance(error, DatabaseError) or isinstance(error, (ProgrammingError, DataError, NotSupportedError)):
        return False
    return error.code is None or error.code in PASSING_CODES
