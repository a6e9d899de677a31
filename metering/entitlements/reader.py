"""Keeps what holds for every customer, and what they used of it, in memory; each reading brings it up to date.

A reading asks for what has moved since the one before, so that it costs what is new and not what is stored. Everything
is read again when the catalog changes, and whenever a look at the ledger says so (`progress.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from heapq import heappop, heappush
from typing import Final

import msgspec
import structlog
from clickhouse_connect.driver.client import Client

from metering import catalog_store
from metering.clickhouse import connect as connect_to
from metering.clickhouse import unavailable
from metering.clock import Clock
from metering.config import Settings, variable_of
from metering.entitlements.progress import Follower, Look, moved
from metering.entitlements.terms import CustomerTerms, Span, TermsBook
from metering.query_limits import query_limits, within_limits
from metering.usage.answer import answer
from schemas.catalog import AppliedCatalog
from schemas.errors import LimitError, RequestError
from schemas.quantity import ZERO
from schemas.usage_query import UsageQuery

NAMED_MAX: Final = 1_000
"""Customers that are named to ClickHouse; when more have moved, all of a span are read."""

_log = structlog.get_logger(__name__)


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """All that answers are made of. `read_at_s` is of the clock that never runs backwards.

    Without a catalog none was applied. What is in `refused` has no number: the meter changed how it counts meanwhile.
    """

    as_of: datetime
    read_at_s: float
    catalog: AppliedCatalog | None
    terms: Mapping[str, CustomerTerms]
    used: Mapping[Span, Mapping[str, Decimal]]
    refused: frozenset[Span]


class HeldReader:
    """Reads from one thread at a time. What it gave before stays valid, and shows newer usage where it has some."""

    def __init__(self, settings: Settings, clock: Clock, connect: Callable[[], Client] | None = None) -> None:
        self._settings = settings
        self._clock = clock
        # One thread takes half the processor time of several here, and leaves the rest to those who are waited for.
        self._connect = connect or (lambda: connect_to(settings, limits={**query_limits(settings), "max_threads": 1}))
        self._client: Client | None = None
        self._catalog: AppliedCatalog | None = None
        self._forget()

    def read(self) -> Held:
        """What holds and what was used, as of the moment of this call or later.

        Raises ClickHouseUnavailableError, and LimitError for more customers and meters than may be held.
        """
        try:
            with unavailable(self._settings), within_limits(self._settings):
                if self._client is None:
                    self._client = self._connect()
                return self._read(self._client)
        except Exception:
            # Half a reading would pass for a whole one at the next time.
            self._forget()
            self._catalog = None
            if self._client is not None:
                self._client.close()
                self._client = None
            raise

    def _forget(self) -> None:
        self._book: TermsBook | None = None
        self._terms: dict[str, CustomerTerms] = {}
        self._due: list[tuple[datetime, str]] = []
        self._needed: set[Span] = set()
        self._used: dict[Span, dict[str, Decimal]] = {}
        self._refused: set[Span] = set()
        self._follower = Follower()

    def _read(self, client: Client) -> Held:
        now, begun_at_s = self._clock.now(), self._clock.monotonic_s()
        version = catalog_store.latest_version(client)
        if version and (self._book is None or self._catalog is None or self._catalog.version != version):
            self._forget()
            if self._catalog is None or self._catalog.version != version:
                self._catalog = catalog_store.load(client, version)
            self._book = TermsBook(self._catalog)
            self._due = [(now, one.id) for one in self._catalog.catalog.customers]
        if self._catalog is not None and version:
            self._settle(self._catalog, now)
            self._count(client, self._catalog, begun_at_s)
        return Held(
            as_of=now,
            read_at_s=begun_at_s,
            catalog=self._catalog if version else None,
            terms=self._terms,
            used=dict(self._used),
            refused=frozenset(self._refused),
        )

    def _settle(self, catalog: AppliedCatalog, now: datetime) -> None:
        """Say anew what holds for the customers for whom something has ended or begun."""
        book = self._book
        if book is None or not self._due or self._due[0][0] > now:
            return
        terms = dict(self._terms)
        while self._due and self._due[0][0] <= now:
            _, customer = heappop(self._due)
            found = terms[customer] = book.at(catalog.customers[customer], now)
            heappush(self._due, (found.until, customer))
        held_count = sum(len(one.meters) for one in terms.values())
        if held_count > self._settings.entitlements_max:
            raise LimitError(
                f"{held_count} customers and meters have something to say, more than are held",
                where="entitlements",
                setting="entitlements_max",
                fix=f"Raise {variable_of('entitlements_max')}",
            )
        needed = {span for one in terms.values() for meter in one.meters.values() for span in meter.spans}
        used = {span: self._used[span] for span in needed if span in self._used}
        # Spans that are new are missing until they are read: `_count` sees to it before anybody is shown these terms.
        self._used, self._terms = used, terms
        self._needed = needed

    def _count(self, client: Client, catalog: AppliedCatalog, begun_at_s: float) -> None:
        look = self._follower.look(client, begun_at_s)
        if look.is_whole:
            self._refused = set()
            self._used = {span: self._read_span(client, catalog, span) for span in sorted(self._needed, key=_order)}
        else:
            if look.has_moved:
                self._read_moved(client, catalog, look)
            for span in sorted(self._needed - self._used.keys(), key=_order):
                self._used[span] = self._read_span(client, catalog, span)

    def _read_moved(self, client: Client, catalog: AppliedCatalog, look: Look) -> None:
        if not self._used:
            return
        customers: dict[Span, set[str]] = {}
        meters = {span.meter for span in self._used}
        start = min(one.start for one in self._used)
        for meter, subject in moved(client, look, meters=meters, start=start):
            owner = catalog.customer_of(subject)
            terms = None if owner is None else self._terms[owner.id].meters.get(meter)
            if owner is not None and terms is not None:
                for span in terms.spans & self._used.keys():
                    customers.setdefault(span, set()).add(owner.id)
        for span, some in sorted(customers.items(), key=lambda each: _order(each[0])):
            if len(some) > NAMED_MAX:
                self._used[span] = self._read_span(client, catalog, span)
            else:
                self._used[span].update(self._read_span(client, catalog, span, some))

    def _read_span(
        self, client: Client, catalog: AppliedCatalog, span: Span, customers: Iterable[str] | None = None
    ) -> dict[str, Decimal]:
        """What customers used, see `used_by`; nothing where the meter has no number for the span."""
        rows_max = self._settings.entitlements_max
        try:
            return used_by(client, catalog, span.meter, span.start, span.end, customers=customers, rows_max=rows_max)
        except LimitError:
            raise
        except RequestError as error:
            _log.warning("entitlement_not_countable", meter=span.meter, start=span.start.isoformat(), detail=str(error))
            self._refused.add(span)
            return {}


def used_by(
    client: Client,
    catalog: AppliedCatalog,
    meter: str,
    start: datetime,
    end: datetime,
    *,
    customers: Iterable[str] | None,
    rows_max: int,
) -> dict[str, Decimal]:
    """What customers used in [start, end); of all only those who did, of some all of them. Raises as `answer`."""
    named = None if customers is None else tuple(sorted(customers))
    rows = answer(client, catalog, UsageQuery(meter=meter, start=start, end=end, customers=named), rows_max=rows_max)
    return {**dict.fromkeys(named or (), ZERO), **{row.who: row.quantity for row in rows}}


def _order(span: Span) -> tuple[str, datetime, datetime]:
    return span.meter, span.start, span.end
