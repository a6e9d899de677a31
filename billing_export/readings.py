"""What has to be read of the usage before lines can be made: questions, and the answers by customer.

Questions do not depend on answers, so that `close` can ask for thousands of customers at once, and `verify` can
collect all of them and count the events anew in one pass.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, Protocol

import msgspec
from clickhouse_connect.driver.client import Client

from schemas.catalog import AppliedCatalog
from schemas.quantity import ZERO
from schemas.usage_query import By, Cut, UsageQuery, UsageRow, Window

CUSTOMERS_AT_A_TIME: Final = 5_000


class Ask(enum.Enum):
    """What is asked of a meter: one number, numbers by the hour or day, or each event's value in time order."""

    TOTAL = "total"
    HOUR = "hour"
    DAY = "day"
    EVENTS = "events"


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A question about one customer: a meter over [start, end), UTC, by some of its dimensions.

    `timezone` says where hours and days begin; it is empty where that does not matter. The meter and the customer's
    subjects are those of the catalog version.
    """

    catalog_version: int
    meter: str
    group_by: tuple[str, ...]
    start: datetime
    end: datetime
    ask: Ask = Ask.TOTAL
    timezone: str = ""


class Used(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was read: a quantity, and the events behind it as a count and as a sum of digests modulo 2^128.

    `at` is the start of the hour or day, the time of the event, or the start of the reading. An event of a
    time_weighted meter is a change of the balance; the balance at the start comes first, without a count.
    """

    dimensions: dict[str, str]
    at: datetime
    quantity: Decimal
    events_count: int
    digest: int
    integral: Decimal | None = None


Answers = Mapping[tuple[str, Reading], Sequence[Used]]
"""What was read for a customer and a question; nothing where nothing was used."""


class UsageReader(Protocol):
    """Answers questions about many customers, each with a catalog version and as of a cut."""

    def usage(self, catalog: AppliedCatalog, query: UsageQuery) -> Sequence[UsageRow]:
        """A row for each customer, window and dimension value with usage."""
        ...

    def events(self, catalog: AppliedCatalog, reading: Reading, customers: Sequence[str], cut: Cut) -> Iterable[Event]:
        """Each event's value in time order, opening balances of a time_weighted meter first."""
        ...


class ConnectedReader(UsageReader, Protocol):
    """One that can go on on another connection, in another process."""

    def on(self, client: Client) -> UsageReader:
        """The same on another connection."""
        ...


class Event(msgspec.Struct, frozen=True, gc=False):
    """An event's value, or the balance at the start of a reading (`events_count` 0)."""

    customer: str
    dimensions: tuple[str, ...]
    at: datetime
    value: Decimal
    events_count: int
    digest: int


def by_customers(questions: Iterable[tuple[str, Reading]]) -> dict[Reading, list[str]]:
    """The customers that each question is about, each once."""
    found: dict[Reading, dict[str, None]] = {}
    for customer, reading in questions:
        found.setdefault(reading, {})[customer] = None
    return {reading: list(customers) for reading, customers in found.items()}


def query_of(reading: Reading, customers: Sequence[str], cut: Cut) -> UsageQuery:
    """A question as the usage library takes it; not for events."""
    return UsageQuery(
        meter=reading.meter,
        start=reading.start,
        end=reading.end,
        window=Window(reading.ask.value),
        timezone=reading.timezone or "UTC",
        by=By.CUSTOMER,
        customers=tuple(customers),
        group_by=reading.group_by,
        cut=cut,
    )


def read_answers(
    reader: UsageReader, catalog: AppliedCatalog, reading: Reading, customers: Sequence[str], cut: Cut
) -> Iterator[tuple[str, Used]]:
    """(customer, what was read), in time order where that matters."""
    if reading.ask is Ask.EVENTS:
        for one in reader.events(catalog, reading, customers, cut):
            yield (
                one.customer,
                Used(
                    dimensions=dict(zip(reading.group_by, one.dimensions, strict=True)),
                    at=one.at,
                    quantity=one.value,
                    events_count=one.events_count,
                    digest=one.digest,
                ),
            )
        return
    for row in reader.usage(catalog, query_of(reading, customers, cut)):
        used = Used(
            dimensions=row.dimensions,
            at=row.window_start,
            quantity=row.quantity or ZERO,
            events_count=row.events_count,
            digest=row.digest,
            integral=row.integral,
        )
        yield row.who, used
