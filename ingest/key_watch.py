"""Keeps the API keys at hand, so that a request costs no query, and notes in bulk when each was used."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Protocol

import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from ingest.metrics import GatewayMetrics
from metering import keys_store
from metering.clickhouse import connect, unavailable
from metering.clock import Clock
from metering.config import Settings
from metering.keys import ApiKey, KeyRing
from schemas.errors import MeteringError

POLL_INTERVAL_S: Final = 2.0
"""A key that was revoked is refused after this long and one query, which together is less than five seconds."""

NOTE_INTERVAL_S: Final = 30.0

_log = structlog.get_logger(__name__)


class KeySource(Protocol):
    """Where keys are kept. Called from one thread at a time; raises when it cannot be asked."""

    def load(self) -> list[ApiKey] | None:
        """Every key ever made, or None when that is what was given the last time."""
        ...

    def note_uses(self, uses: Mapping[str, datetime]) -> None:
        """Store when keys were last used."""
        ...


class StoredKeys:
    """The KeySource that asks ClickHouse. Reads the keys only when one was made or ended."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._mark: tuple[int, int] | None = None

    def load(self) -> list[ApiKey] | None:
        with unavailable(self._settings):
            client = self._connected()
            # Asked before the keys are: one that is made in between is seen at the next time.
            mark = keys_store.mark(client)
            if mark == self._mark:
                return None
            keys = keys_store.load(client)
            self._mark = mark
            return keys

    def note_uses(self, uses: Mapping[str, datetime]) -> None:
        with unavailable(self._settings):
            keys_store.note_uses(self._connected(), uses)

    def _connected(self) -> Client:
        if self._client is None:
            self._client = connect(self._settings)
        return self._client


class KeyWatch:
    """Polls a KeySource in the background; without an answer the last known keys stay in use for a while."""

    def __init__(self, source: KeySource, settings: Settings, clock: Clock, metrics: GatewayMetrics) -> None:
        self._source = source
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._failing = False
        self._uses: dict[str, datetime] = {}
        self._noted_at_s = clock.monotonic_s()
        self._read_at_s: float | None = None
        self._poll: asyncio.Task[None] | None = None
        self.ring = KeyRing((), settings.key_pepper)

    @property
    def is_known(self) -> bool:
        """Whether the keys were read, and not too long ago."""
        if self._read_at_s is None:
            return False
        return self._clock.monotonic_s() - self._read_at_s <= self._settings.keys_stale_s_max

    def note_use(self, key: str, now: datetime) -> None:
        """Remember that a key was used; it is stored with others later."""
        self._uses[key] = now

    async def start(self) -> None:
        """Read the keys once and keep reading them."""
        await self._read()
        self._poll = asyncio.create_task(self._keep_reading())

    async def stop(self) -> None:
        """End the background reading and store the last uses."""
        if self._poll is not None:
            self._poll.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poll
        await self._store_uses()

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            await self._read()
            if self._clock.monotonic_s() - self._noted_at_s >= NOTE_INTERVAL_S:
                await self._store_uses()

    async def _read(self) -> None:
        try:
            keys = await asyncio.to_thread(self._source.load)
        except (MeteringError, ClickHouseError, OSError) as error:
            self._metrics.key_failures.inc()
            if not self._failing:
                _log.warning("keys_not_read", detail=str(error), in_use=len(self.ring))
            self._failing = True
            return
        self._failing = False
        self._read_at_s = self._clock.monotonic_s()
        if keys is not None:
            self.ring = KeyRing(keys, self._settings.key_pepper)
            _log.info("keys_in_use", count=len(keys))

    async def _store_uses(self) -> None:
        uses, self._uses = self._uses, {}
        self._noted_at_s = self._clock.monotonic_s()
        if not uses:
            return
        try:
            await asyncio.to_thread(self._source.note_uses, uses)
        except (MeteringError, ClickHouseError, OSError) as error:
            _log.warning("key_uses_not_stored", detail=str(error))
            self._uses = {**uses, **self._uses}
