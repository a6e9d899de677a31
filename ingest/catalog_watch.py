"""Keeps the newest catalog at hand, so that a bad event is refused at the door and not found in the dead letters."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from ingest.metrics import GatewayMetrics
from metering import catalog_store
from metering.clickhouse import connect, unavailable
from metering.clock import Clock
from metering.config import Settings
from schemas.admission import Admission
from schemas.catalog import AppliedCatalog
from schemas.errors import MeteringError

POLL_INTERVAL_S: Final = 2.0
REFRESH_PAUSE_S: Final = 1.0

CatalogSource = Callable[[], AppliedCatalog | None]
"""Says which catalog is newest, None before the first; raises when it cannot know. Called from one thread at a time."""

_log = structlog.get_logger(__name__)


class StoredCatalog:
    """The CatalogSource that asks ClickHouse. Reads the document only when the version number has moved."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._catalog: AppliedCatalog | None = None

    def __call__(self) -> AppliedCatalog | None:
        with unavailable(self._settings):
            if self._client is None:
                self._client = connect(self._settings)
            version = catalog_store.latest_version(self._client)
            if version and (self._catalog is None or self._catalog.version != version):
                self._catalog = catalog_store.load(self._client, version)
        return self._catalog


class CatalogWatch:
    """Polls a CatalogSource in the background; without an answer the last known catalog stays in use."""

    def __init__(self, source: CatalogSource, clock: Clock, metrics: GatewayMetrics) -> None:
        self._source = source
        self._clock = clock
        self._metrics = metrics
        self._version = 0
        self._asked_at_s: float | None = None
        self._failing = False
        self._reading = asyncio.Lock()
        self._refresh: asyncio.Task[None] | None = None
        self._poll: asyncio.Task[None] | None = None
        self.admission: Admission | None = None
        self.catalog: AppliedCatalog | None = None

    @property
    def version(self) -> int:
        """The catalog version in use; 0 for none."""
        return self._version

    async def start(self) -> None:
        """Read the catalog once and keep reading it."""
        await self._read()
        self._poll = asyncio.create_task(self._keep_reading())

    async def stop(self) -> None:
        """End the background reading."""
        for task in (self._poll, self._refresh):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def refresh(self) -> None:
        """Return once a reading that began after this call is done.

        All who wait at the same time share one reading, and readings asked for begin at most once a second.
        """
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self._read_soon())
        await asyncio.shield(self._refresh)

    async def _read_soon(self) -> None:
        if self._asked_at_s is not None:
            pause_s = self._asked_at_s + REFRESH_PAUSE_S - self._clock.monotonic_s()
            await asyncio.sleep(min(max(pause_s, 0.0), REFRESH_PAUSE_S))
        self._refresh = None
        await self._read()

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            await self._read()

    async def _read(self) -> None:
        async with self._reading:
            self._asked_at_s = self._clock.monotonic_s()
            try:
                catalog = await asyncio.to_thread(self._source)
            except (MeteringError, ClickHouseError, OSError) as error:
                self._metrics.catalog_failures.inc()
                if not self._failing:
                    _log.warning("catalog_not_read", detail=str(error), in_use=self._version)
                self._failing = True
                return
            self._failing = False
            if catalog is not None and catalog.version != self._version:
                self.admission = Admission(catalog.meter_versions, catalog.known_types)
                self.catalog = catalog
                self._version = catalog.version
                self._metrics.catalog_version.set(catalog.version)
                _log.info("catalog_in_use", version=catalog.version)
