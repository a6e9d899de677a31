"""Connections for pages: one a thread, kept; one for work beside the pages; and the newest catalog, kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from metering import catalog_store
from metering.clickhouse import connect, unavailable
from metering.config import Settings
from metering.query_limits import query_limits, within_limits
from schemas.catalog import AppliedCatalog
from schemas.errors import ClickHouseUnavailableError, RequestError

_ABSENT_CODES: Final = frozenset({60, 81})


class Database:
    """The ClickHouse of the settings, for any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = threading.local()
        self._catalog: AppliedCatalog | None = None

    @contextmanager
    def client(self) -> Iterator[Client]:
        """The thread's client, each of whose questions may cost what one over HTTP may.

        Raises LimitError, or ClickHouseUnavailableError when ClickHouse is away or has no tables yet.
        """
        try:
            with self._in_our_words():
                if not hasattr(self._threads, "client"):
                    self._threads.client = connect(self._settings, limits=query_limits(self._settings))
                yield self._threads.client
        except (ClickHouseError, ClickHouseUnavailableError):
            held = self._threads.__dict__.pop("client", None)
            if held is not None:
                held.close()
            raise

    @contextmanager
    def own_client(self) -> Iterator[Client]:
        """A client without limits, closed afterwards, for work that takes its time. Raises as `client` does."""
        with self._in_our_words():
            client = connect(self._settings)
            try:
                yield client
            finally:
                client.close()

    def catalog(self, client: Client) -> AppliedCatalog:
        """The newest catalog. Raises RequestError before the first apply."""
        version = catalog_store.latest_version(client)
        if not version:
            raise RequestError("no catalog was applied yet", fix="Run `metering apply catalog.yaml`")
        held = self._catalog
        if held is None or held.version != version:
            held = self._catalog = catalog_store.load(client, version)
        return held

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        try:
            with unavailable(self._settings), within_limits(self._settings):
                yield
        except DatabaseError as error:
            if error.code not in _ABSENT_CODES:
                raise
            raise ClickHouseUnavailableError(
                "ClickHouse has no tables yet", where=self._settings.clickhouse_address, fix="Run `metering migrate`"
            ) from error
