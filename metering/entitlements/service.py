"""Answers about entitlements from memory, and reads what was used in the background for as long as somebody asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Final

import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from prometheus_client import CollectorRegistry

from metering.clock import Clock
from metering.config import Settings
from metering.entitlements.answer import NOTHING, entitlement
from metering.entitlements.metrics import EntitlementMetrics
from metering.entitlements.reader import Held, HeldReader
from metering.entitlements.terms import Span
from metering.keys import NotFoundError
from schemas.errors import ClickHouseUnavailableError, MeteringError, RequestError
from schemas.meter import Aggregation
from schemas.quantity import ZERO
from schemas.quota import Entitlement

IDLE_S_MAX: Final = 60.0
"""After so long without a question nothing is read until the next one, which waits for that reading."""

_log = structlog.get_logger(__name__)


class EntitlementService:
    """What the gateway knows. `answer` never waits; `fresh`, `start` and `stop` belong to the event loop."""

    def __init__(self, settings: Settings, clock: Clock, connect: Callable[[], Client] | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._reader = HeldReader(settings, clock, connect)
        self._held: Held | None = None
        self._is_failing = False
        self._metrics: EntitlementMetrics | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._poll: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._asked_at_s = 0.0
        self._reading_over: asyncio.Future[None] | None = None

    async def fresh(self) -> None:
        """Wait for a reading when what is known is too old, as it is for the first question after a pause.

        Ends without one when readings fail or take too long; `answer` then says so.
        """
        if self._poll is None:
            return
        self._asked_at_s = self._clock.monotonic_s()
        self._asked.set()
        if self._young() is None and not self._is_failing:
            if self._reading_over is None:
                self._reading_over = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._reading_over], timeout=self._settings.entitlements_stale_s_max)

    def answer(self, customer: str, meter: str) -> Entitlement:
        """Whether a customer may use a meter, by what was read less than `entitlements_stale_s_max` ago.

        Raises NotFoundError for a customer or a meter that is none; RequestError for a meter whose usage is no quantity
        of a period; ClickHouseUnavailableError when what is known is too old to be told.
        """
        held = self._fresh()
        catalog = held.catalog
        if catalog is None or customer not in catalog.customers or meter not in catalog.meters:
            raise NotFoundError
        about = catalog.meters[meter]
        if any(one.meter.aggregation is Aggregation.TIME_WEIGHTED for one in catalog.versions_of(meter)):
            raise RequestError(
                f"meter {meter!r} is a balance over time, and no quantity of a period",
                where="meter",
                fix="Ask GET /v1/usage, or make a quota of a meter that counts, sums or takes the greatest",
            )
        terms = held.terms[customer].meters.get(meter, NOTHING)
        if terms.spans & held.refused:
            raise RequestError(
                f"meter {meter!r} changed its aggregation within the period, so that its usage is no one number",
                where="meter",
                fix="Ask again in the next period",
            )
        return entitlement(
            customer,
            meter,
            about.unit,
            terms,
            {span: _used(held, span, customer) for span in terms.spans},
            as_of=held.as_of,
            catalog_version=catalog.version,
        )

    def read(self) -> None:
        """Bring what is known up to date now, in the calling thread."""
        self._held = self._reader.read()

    async def start(self, registry: CollectorRegistry) -> None:
        """Read whenever somebody asks, and keep reading for a while; metrics go to `registry`."""
        self._metrics = EntitlementMetrics(registry)
        # A thread of its own: questions that take long must not keep readings waiting.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="entitlements")
        self._poll = asyncio.create_task(self._keep_reading())

    async def stop(self) -> None:
        """End the background reading."""
        if self._poll is not None:
            self._poll.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poll
        self._end_waits()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.shutdown)

    async def _keep_reading(self) -> None:
        while True:
            if self._clock.monotonic_s() - self._asked_at_s > IDLE_S_MAX:
                self._asked.clear()
            await self._asked.wait()
            begun_at_s = self._clock.monotonic_s()
            await self._read_once()
            self._end_waits()
            took_s = self._clock.monotonic_s() - begun_at_s
            if self._metrics is not None:
                self._metrics.read_seconds.observe(took_s)
            # A long reading leaves room for other work before the next, and is not too old when that one is done.
            await asyncio.sleep(max(self._settings.entitlements_interval_s - took_s, min(took_s, 0.5)))

    def _end_waits(self) -> None:
        if self._reading_over is not None:
            self._reading_over.set_result(None)
            self._reading_over = None

    async def _read_once(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self.read)
        except (MeteringError, ClickHouseError, OSError) as error:
            if self._metrics is not None:
                self._metrics.failures.inc()
            if not self._is_failing:
                _log.warning("entitlements_not_read", detail=str(error))
            self._is_failing = True
            return
        if self._is_failing:
            _log.info("entitlements_read_again")
        self._is_failing = False
        if self._metrics is not None and self._held is not None:
            self._metrics.customers.set(len(self._held.terms))

    def _young(self) -> Held | None:
        """What is known, unless it is too old to be told."""
        held = self._held
        if held is None or self._clock.monotonic_s() - held.read_at_s > self._settings.entitlements_stale_s_max:
            return None
        return held

    def _fresh(self) -> Held:
        held = self._young()
        if held is None:
            raise ClickHouseUnavailableError(
                "what was used is not known, or was read too long ago to be told",
                where="entitlements",
                fix="Send the same request again after the pause that Retry-After names",
            )
        return held


def _used(held: Held, span: Span, customer: str) -> Decimal:
    return held.used[span].get(customer, ZERO)
