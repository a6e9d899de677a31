"""Answers questions about usage: from rollups, and from events where a boundary or a cut goes through one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from metering.usage.bounds import ROWS_MAX, RowsBound
from metering.usage.counts import Counts
from metering.usage.question import Question, check_question
from metering.usage.reading import check_stored, overflows_of, rows_of
from metering.usage.recount import count_everything, stream_events
from metering.usage.statements import (
    any_gone_statement,
    corrected_elsewhere_statement,
    members_statement,
    recounted_statement,
    recurring_members_statement,
    rollups_statement,
)
from metering.usage.tally import Group, LoggedEvent, Measured, Measurer, Tally
from metering.usage.windows import from_us
from schemas.catalog import AppliedCatalog
from schemas.quantity import EXACT
from schemas.rollup import LogMoment, RollupState
from schemas.usage_query import UsageQuery, UsageRow

RECOUNTED_MAX: Final = 500
"""Windows of subjects that are named to ClickHouse; when there are more, everything is counted from events."""
ATTEMPTS_MAX: Final = 3
"""How often an answer with a cut is tried while corrections come in from other partitions."""


class _OpenKey(msgspec.Struct, frozen=True, kw_only=True):
    """A rollup key that has gone on beyond the cut, so that its row says too much."""

    subject: str
    window_s: int
    version: int
    dimensions: tuple[str, ...]
    epoch: str
    partition: int


OpenKeys = dict[_OpenKey, list[int]]
"""The first offsets of the series to count from events, by key."""


def answer(client: Client, catalog: AppliedCatalog, query: UsageQuery, *, rows_max: int = ROWS_MAX) -> list[UsageRow]:
    """The quantities asked for, exact, ordered by window, who and dimensions; no row where nothing was used.

    `catalog` is a version this database has stored. By customer, usage of subjects that no customer owns is left
    out; it is in the answers by subject and for everything.
    With a cut the answer is the same whenever it is asked. Without one it is what has been folded until now.
    Raises RequestError (see `check_question`), also for an answer of more than `rows_max` rows.
    """
    question = check_question(catalog, query)
    if not question.spans:
        return []
    check_stored(client, question)
    return count(client, question, RowsBound(rows_max)).rows()


def count(client: Client, question: Question, bound: RowsBound) -> Counts:
    """All that a checked question asks for."""
    if question.query.cut is None:
        return _count(client, question, bound)
    for _ in range(ATTEMPTS_MAX):
        recounted = _recounted(client, question)
        if len(recounted) > RECOUNTED_MAX:
            break
        counts = _count(client, msgspec.structs.replace(question, recounted=recounted), bound)
        # A correction that came from another partition meanwhile may have changed rollups between two statements.
        if _recounted(client, question) == recounted:
            return counts
    return count_everything(client, question, bound)


def _recounted(client: Client, question: Question) -> tuple[tuple[str, int], ...]:
    if not any(rows_of(client, corrected_elsewhere_statement())):
        return ()
    return tuple(rows_of(client, recounted_statement(question)))


def _count(client: Client, question: Question, bound: RowsBound) -> Counts:
    counts = Counts(question, bound)
    open_keys: OpenKeys = {}
    _read_rollups(client, question, counts, open_keys)
    any_gone = False
    if question.counts_members:
        [(any_gone,)] = rows_of(client, any_gone_statement(question))
        for who, window_s, asked, members_count in rows_of(client, members_statement(question, any_gone=any_gone)):
            counts.members[_group(question, who, window_s, asked)] = members_count
    if question.plan.split_quarters_s or open_keys or question.recounted:
        _count_events(client, question, counts, open_keys, any_gone=any_gone)
    return counts


def _read_rollups(client: Client, question: Question, counts: Counts, open_keys: OpenKeys) -> None:
    names_of = {span.version.version: sorted(span.version.meter.group_by) for span in question.spans}
    for row in rows_of(client, rollups_statement(question)):
        (who, window_s, asked, is_open, *key), state = row[:12], row[12:]
        if not is_open:
            if state[0]:  # else all its events were taken out again
                counts.add(_group(question, who, window_s, asked), _state(state))
            continue
        subject, key_window_s, version, names, values, epoch, partition, position_first = key
        named = dict(zip(names, values, strict=True))
        open_key = _OpenKey(
            subject=subject,
            window_s=key_window_s,
            version=version,
            dimensions=tuple(named.get(name, "") for name in names_of[version]),
            epoch=epoch,
            partition=partition,
        )
        open_keys.setdefault(open_key, []).append(position_first)


def _count_events(client: Client, question: Question, counts: Counts, open_keys: OpenKeys, *, any_gone: bool) -> None:
    """Count what the rollups left: split rollup windows whole, and the keys that have gone on beyond the cut."""
    split = frozenset(question.plan.split_quarters_s)
    recounted = frozenset(question.recounted)
    measurer = Measurer(question, overflows_of(client, question))
    tallies: dict[Group, Tally] = {}
    fresh: dict[Group, Tally] = {}
    for logged in stream_events(client, question, everything=False):
        measured = measurer.measure(logged)
        if measured is None:
            continue
        in_split = measured.window_s in split or (measured.event.subject, measured.window_s) in recounted
        if not in_split and not _continues(open_keys, logged, measured):
            continue
        # Members of a key that is open are in the table of members, with their own positions; those of a split
        # window are not counted there.
        group = measurer.group(logged, measured)
        (fresh if in_split else tallies).setdefault(group, Tally()).add(logged, measured)
    for group, tally in (*tallies.items(), *fresh.items()):
        counts.add(group, tally.state())
    if question.counts_members and any(tally.members for tally in fresh.values()):
        for who, window_s, asked, member in rows_of(client, recurring_members_statement(question, any_gone=any_gone)):
            known = fresh.get(_group(question, who, window_s, asked))
            if known is not None:
                known.members.discard(member)
        for group, tally in fresh.items():
            counts.members[group] = counts.members.get(group, 0) + len(tally.members)


def _continues(open_keys: OpenKeys, logged: LoggedEvent, measured: Measured) -> bool:
    """Whether the event belongs to a series that the rollups' statement named as open."""
    key = _OpenKey(
        subject=measured.event.subject,
        window_s=measured.window_s,
        version=measured.version.version,
        dimensions=measured.measurement.dimensions,
        epoch=logged.epoch,
        partition=logged.partition,
    )
    return any(first <= logged.offset for first in open_keys.get(key, ()))


def _group(question: Question, who: str, window_s: int, asked: list[str]) -> Group:
    """`window_s` of the first window is the start of its rollup window, which may lie before the range."""
    return Group(who=who, window=max(0, question.plan.index_at(window_s * 1_000_000)), asked=tuple(asked))


def _state(row: tuple[Any, ...]) -> RollupState:
    """The state in the columns from `events` on."""
    events, total, smallest, greatest, latest, moment, digests, first_moment = row
    time_us, epoch, partition, offset = moment
    at = LogMoment(time=from_us(time_us), epoch=epoch, partition=partition, offset=offset)
    return RollupState(
        events_count=events,
        value_sum=_exact(total),
        value_min=None if smallest is None else _exact(smallest),
        value_max=None if greatest is None else _exact(greatest),
        value_latest=None if latest is None else _exact(latest),
        latest_at=None if latest is None else at,
        digest=int(digests),
        value_moment=_exact(first_moment),
    )


def _exact(text: Any) -> Decimal:
    return EXACT.create_decimal(text)
