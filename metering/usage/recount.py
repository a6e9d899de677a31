"""Counts usage straight from the events, one by one: what rollups cannot say, and the proof of what they do say."""

from __future__ import annotations

from collections.abc import Iterator

from clickhouse_connect.driver.client import Client

from metering.usage.bounds import ROWS_MAX, RowsBound
from metering.usage.counts import Counts
from metering.usage.question import Question, check_question
from metering.usage.reading import check_stored, overflows_of, rows_of
from metering.usage.statements import events_statement
from metering.usage.tally import Group, LoggedEvent, Measurer, Tally
from schemas.catalog import AppliedCatalog
from schemas.usage_query import UsageQuery, UsageRow


def recount(client: Client, catalog: AppliedCatalog, query: UsageQuery, *, rows_max: int = ROWS_MAX) -> list[UsageRow]:
    """The answer to a question, from `events` alone; `answer` must give the same.

    Events are streamed: memory grows with the rows of the answer (and the members it counts), not with the events.
    Raises RequestError as `answer` does.
    """
    question = check_question(catalog, query)
    if not question.spans:
        return []
    check_stored(client, question)
    return count_everything(client, question, RowsBound(rows_max)).rows()


def count_everything(client: Client, question: Question, bound: RowsBound) -> Counts:
    """All that a question asks for, from `events` alone."""
    measurer = Measurer(question, overflows_of(client, question))
    tallies: dict[Group, Tally] = {}
    for logged in stream_events(client, question, everything=True):
        measured = measurer.measure(logged)
        if measured is None:
            continue
        group = measurer.group(logged, measured)
        tally = tallies.get(group)
        if tally is None:
            tally = tallies[group] = Tally()
            if not question.has_opening:
                bound.check(len(tallies))
        tally.add(logged, measured)
    counts = Counts(question, bound)
    for group, tally in tallies.items():
        counts.add(group, tally.state())
        counts.members[group] = len(tally.members)
    return counts


def stream_events(client: Client, question: Question, *, everything: bool) -> Iterator[LoggedEvent]:
    """The stored events of a question, in no order, a block at a time; see `events_statement` for `everything`."""
    statement = events_statement(question, everything=everything)
    for who, epoch, partition, offset, digest, raw in rows_of(client, statement):
        yield LoggedEvent(
            who=who, epoch=epoch, partition=partition, offset=offset, digest=int(digest), raw=raw.encode()
        )
