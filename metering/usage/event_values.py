"""Reads usage event by event, in order, for prices that depend on single events and on balances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from metering.usage.answer import count
from metering.usage.bounds import RowsBound
from metering.usage.question import NAMES_BYTES_MAX, Question, check_question, name_bytes
from metering.usage.reading import check_stored, overflows_of, rows_of
from metering.usage.statements import events_statement
from metering.usage.tally import Measurer
from metering.usage.windows import plan_windows
from schemas.catalog import AppliedCatalog
from schemas.errors import RequestError
from schemas.meter import Aggregation
from schemas.usage_event import TIME_MIN, EventColumns, columns_of, decode_event, decode_events
from schemas.usage_query import By, Cut, UsageQuery, Window
from schemas.zone import zone_of

EVENTS_AT_A_TIME: Final = 5_000
_NO_BOUND: Final = RowsBound(2**63)


class EventValuesQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A question for single values of one meter over [start, end), both UTC with any microsecond.

    `customers` None means all of the catalog; there may be any number of them. `group_by` names dimensions of the
    meter. With `cut`, as of that prefix of the log.
    """

    meter: str
    start: datetime
    end: datetime
    customers: tuple[str, ...] | None = None
    group_by: tuple[str, ...] = ()
    cut: Cut | None = None


class EventValue(msgspec.Struct, frozen=True, gc=False):
    """What a meter sees of one event. `dimensions` follow the query's group_by; `value` is 1 for a `count` meter."""

    customer: str
    dimensions: tuple[str, ...]
    time: datetime
    value: Decimal
    digest: int


class OpeningBalance(msgspec.Struct, frozen=True, gc=False):
    """The balance that a `time_weighted` meter has at the start of a query; never 0."""

    customer: str
    dimensions: tuple[str, ...]
    balance: Decimal


def event_values(client: Client, catalog: AppliedCatalog, query: EventValuesQuery) -> Iterator[EventValue]:
    """Every event that counts, ordered by customer, then time, then epoch, partition and offset.

    Streamed: ClickHouse sorts, memory here does not grow with the events.
    Raises RequestError as `answer` does, and for a `unique_count` meter, whose events have no value.
    """
    for part in _parts(query):
        question = check_question(catalog, part, with_balance=False)
        if question.counts_members:
            raise RequestError(f"meter {query.meter!r} counts members, so its events have no value", where="meter")
        if question.spans:
            check_stored(client, question)
            yield from _values(client, question)


def opening_balances(client: Client, catalog: AppliedCatalog, query: EventValuesQuery) -> Iterator[OpeningBalance]:
    """The sum of all values before the start of the query, ordered by customer and dimensions; zeros are left out.

    Read from rollups; `end` only says which versions of the meter are asked about. Raises RequestError as `answer`
    does, and unless the meter is `time_weighted` within the range.
    """
    for part in _parts(query):
        question = check_question(catalog, part)
        if not question.has(Aggregation.TIME_WEIGHTED):
            raise RequestError(f"meter {query.meter!r} has no balance: it is not time_weighted", where="meter")
        if not question.has_opening:
            continue
        check_stored(client, question)
        start = question.query.start
        before = msgspec.structs.replace(
            question,
            query=msgspec.structs.replace(question.query, start=TIME_MIN, end=start),
            plan=plan_windows(TIME_MIN, start, Window.TOTAL, zone_of("UTC")),
        )
        for (customer, dimensions), balance in sorted(count(client, before, _NO_BOUND).opening.items()):
            if balance:
                yield OpeningBalance(customer, dimensions, balance)


def _values(client: Client, question: Question) -> Iterator[EventValue]:
    measurer = Measurer(question, overflows_of(client, question))
    rows = rows_of(client, events_statement(question, everything=True, in_order=True))
    while block := list(islice(rows, EVENTS_AT_A_TIME)):
        events = _decoded([raw.encode() for *_, raw in block])
        seen = measurer.values(events, [row[1:4] for row in block])
        for row, (who, _, _, _, digest, _) in enumerate(block):
            found = seen.get(row)
            if found is not None:
                dimensions, value = found
                yield EventValue(who, dimensions, events.times[row], value, int(digest))


def _decoded(raws: list[bytes]) -> EventColumns:
    """The events of records that were accepted; corrections are decoded one by one."""
    return decode_events(raws) or columns_of([decode_event(raw) for raw in raws])


def _parts(query: EventValuesQuery) -> Iterator[UsageQuery]:
    """The query in pieces that ClickHouse takes, in the order of customers."""
    for customers in _pieces(query.customers):
        yield UsageQuery(
            meter=query.meter,
            start=query.start,
            end=query.end,
            by=By.CUSTOMER,
            customers=customers,
            group_by=query.group_by,
            cut=query.cut,
        )


def _pieces(customers: Sequence[str] | None) -> Iterator[tuple[str, ...] | None]:
    if customers is None:
        yield None
        return
    piece: list[str] = []
    size_bytes = 0
    for customer in sorted(set(customers)):
        if piece and size_bytes + name_bytes(customer) > NAMES_BYTES_MAX:
            yield tuple(piece)
            piece, size_bytes = [], 0
        piece.append(customer)
        size_bytes += name_bytes(customer)
    if piece:
        yield tuple(piece)
