"""The events behind a line, by page in time order, each with what it adds to the line's quantity.

What an event adds is how much the quantity changes when it is counted after all those before it: its value for a sum,
1 for a count, 1 or nothing for a member, the rise of a maximum. So all pages add up to the quantity, whatever the
meter does. Memory grows with a page, and with the members of a unique count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Protocol

from clickhouse_connect.driver.client import Client

from billing_export.explain_records import EventPage, EventShown
from metering.usage.question import Question, check_question
from metering.usage.reading import overflows_of, rows_of
from metering.usage.statements import events_statement
from metering.usage.tally import Group, LoggedEvent, Measured, Measurer, Tally, row_of
from schemas.catalog import AppliedCatalog
from schemas.meter import Aggregation
from schemas.quantity import ZERO, add, format_quantity
from schemas.rollup import DIGEST_MODULUS
from schemas.usage_query import UsageQuery


class Counting(Protocol):
    """Adds events up, one after the other in time order."""

    @property
    def quantity(self) -> Decimal:
        """What the quantity is so far."""

    def add(self, logged: LoggedEvent, measured: Measured, /) -> None:
        """Count an event."""


def event_page(
    client: Client,
    catalog: AppliedCatalog,
    query: UsageQuery,
    dimensions: dict[str, str],
    *,
    counting: Callable[[Question], Counting],
    page: int,
    page_size: int,
    opening: Decimal | None = None,
) -> EventPage:
    """A page, counted from 1, of the events of one customer that a question is about, with these dimensions.

    A page beyond the last has no events. `query` names one customer and a cut; `opening` is the balance at its start.
    """
    question = check_question(catalog, query, with_balance=False)
    asked = tuple(dimensions[name] for name in query.group_by)
    running = counting(question)
    at_first = before = running.quantity
    shown: list[EventShown] = []
    page_sum = ZERO
    count = digest = 0
    first = (page - 1) * page_size
    for logged, measured in _counted(client, question, asked):
        running.add(logged, measured)
        adds, before = add(running.quantity, -before), running.quantity
        digest = (digest + logged.digest) % DIGEST_MODULUS
        if first <= count < first + page_size:
            shown.append(_shown(logged, measured, adds))
            page_sum = add(page_sum, adds)
        count += 1
    return EventPage(
        page=page,
        pages=-(-count // page_size),
        page_size=page_size,
        events_count=count,
        events=tuple(shown),
        page_sum=format_quantity(page_sum),
        quantity=format_quantity(before),
        digest=f"{digest:032x}",
        opening_balance=None if opening is None else format_quantity(opening),
        opening_adds=None if opening is None else format_quantity(at_first),
    )


class Tallied:
    """The quantity of a meter that has no balance: window by window where a charge is priced by them."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._measurer = Measurer(question)
        self._tallies: dict[Group, Tally] = {}
        self._quantities: dict[Group, Decimal] = {}
        self.quantity = ZERO

    def add(self, logged: LoggedEvent, measured: Measured, /) -> None:
        """Count an event."""
        group = self._measurer.group(logged, measured)
        tally = self._tallies.setdefault(group, Tally())
        tally.add(logged, measured)
        now = row_of(self._question, group, tally.state(), len(tally.members)).quantity
        self.quantity = add(self.quantity, add(now, -self._quantities.get(group, ZERO)))
        self._quantities[group] = now


def _counted(client: Client, question: Question, asked: tuple[str, ...]) -> Iterator[tuple[LoggedEvent, Measured]]:
    """The events that count, in time order."""
    if not question.spans:
        return
    measurer = Measurer(question, overflows_of(client, question))
    for who, epoch, partition, offset, digest, raw in rows_of(
        client, events_statement(question, everything=True, in_order=True)
    ):
        logged = LoggedEvent(
            who=who, epoch=epoch, partition=partition, offset=offset, digest=int(digest), raw=raw.encode()
        )
        measured = measurer.measure(logged)
        if measured is not None and measurer.group(logged, measured).asked == asked:
            yield logged, measured


def _shown(logged: LoggedEvent, measured: Measured, adds: Decimal) -> EventShown:
    event, measurement = measured.event, measured.measurement
    is_member = measured.version.meter.aggregation is Aggregation.UNIQUE_COUNT
    is_count = measured.version.meter.aggregation is Aggregation.COUNT
    value = measurement.member if is_member else "1" if is_count else format_quantity(measurement.value)
    return EventShown(
        time=event.time,
        subject=event.subject,
        source=event.source,
        id=event.id,
        value=value,
        adds=format_quantity(adds),
        epoch=logged.epoch,
        partition=logged.partition,
        offset=logged.offset,
        corrects=" ".join(event.corrects) if event.corrects else "",
    )
