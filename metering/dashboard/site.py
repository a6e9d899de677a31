"""What every page is made with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from litestar import Request

from metering.clock import Clock
from metering.config import Settings
from metering.dashboard.database import Database
from metering.dashboard.guard import Guard
from metering.dashboard.held import PATIENCE_S, Held, HeldByName
from metering.dashboard.pages import Pages
from metering.keys import NotFoundError, Principal
from metering.principal import principal_of

T = TypeVar("T")


class Site:
    """Settings, clock, database, templates and guard of one dashboard. `patience_s` is that of `Held`."""

    def __init__(self, settings: Settings, clock: Clock, guard: Guard, *, patience_s: float = PATIENCE_S) -> None:
        self.settings = settings
        self.clock = clock
        self.guard = guard
        self.pages = Pages(guard)
        self.database = Database(settings)
        self._patience_s = patience_s

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run what waits for ClickHouse or Kafka beside the event loop."""
        return await asyncio.to_thread(work)

    def held(self, name: str, count: Callable[[], T], *, fresh_s: float = 0.0) -> Held[T]:
        """A number that is counted beside the pages, anew when it is older than `fresh_s` (0: as the setting says)."""
        fresh_s = fresh_s or self.settings.dashboard_fresh_s
        return Held(name, count, self.clock, fresh_s=fresh_s, patience_s=self._patience_s)

    def held_by_name(self, kind: str, *, fresh_s: float = 0.0) -> HeldByName[Any]:
        """Numbers of one kind that are counted beside the pages, each by its name."""
        return HeldByName(partial(self.held, fresh_s=fresh_s), kind)


def who_sees_everybody(request: Request[Any, Any, Any]) -> Principal:
    """Who asks, if it may see all customers. Raises NotFoundError for the key of one customer."""
    principal = principal_of(request)
    if principal.customer:
        raise NotFoundError
    return principal


def only_customer(principal: Principal, wanted: str) -> str:
    """The customer to show. Raises NotFoundError for another than the principal's own, whether there is one or not."""
    if principal.customer and wanted not in ("", principal.customer):
        raise NotFoundError
    return principal.customer or wanted
