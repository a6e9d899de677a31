"""Sends dead letters to the log again, once what kept them out is mended.

A letter is judged first, with the newest catalog: one that would only be rejected again stays where it is. Then its
bytes, untouched, are written to the log with the key they should have, and only after Kafka's acknowledgement the
letter is noted as replayed. Who dies in between, or replays twice, or beside somebody else, sends it twice: its
identity makes the second one a duplicate, so that it counts once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias

import msgspec
from clickhouse_connect.driver.client import Client

from ingest.dead_letters import DeadLetter, LetterFilter, LetterId, LetterState, Sent, letters, note
from ingest.problems import EventError
from ingest.producer import EventProducer, Outcome, Record
from ingest.validate import judge
from metering import audit_log, catalog_store
from metering.audit_log import Action
from metering.clock import Clock
from metering.config import Settings
from metering.kafka import log_epoch
from schemas.admission import Admission
from schemas.errors import KafkaUnavailableError, RequestError
from schemas.topics import USAGE_EVENTS

CONFLICT: Final = "identity_conflict"


class Kept(msgspec.Struct, frozen=True):
    """A letter that was not sent, because it would be rejected again: why, today."""

    id: LetterId
    reason: str
    field: str
    detail: str


class Replay(msgspec.Struct, kw_only=True):
    """What a replay did. `kept` has the first of those that were not sent; `kept_reasons` counts all of them."""

    sent: int = 0
    kept: list[Kept] = []
    kept_reasons: Counter[str] = msgspec.field(default_factory=Counter)


KEPT_SHOWN_MAX: Final = 100


def replay(
    client: Client,
    settings: Settings,
    which: LetterFilter,
    *,
    clock: Clock,
    by: str,
    dry_run: bool = False,
    after_send: Callable[[], None] | None = None,
) -> Replay:
    """Send the open letters that match; returns once all of them are acknowledged and noted.

    `after_send` is called between acknowledgement and note, for tests of what a crash there does.
    Raises RequestError without a catalog, KafkaUnavailableError when Kafka did not take all: those it took are noted.
    """
    catalog = catalog_store.latest(client)
    if catalog is None:
        raise RequestError("no catalog was applied yet", where="catalog", fix="Run `metering apply catalog.yaml`")
    admission = Admission(catalog.meter_versions, catalog.known_types)
    # A letter that is rejected again becomes a new one, which this replay is not to run after.
    now = clock.now()
    which = msgspec.structs.replace(which, until=now if which.until is None else min(which.until, now))
    done = Replay()
    with _sender(settings, dry_run=dry_run) as send:
        after: LetterId | None = None
        while page := letters(client, which, after=after, with_bytes=True):
            after = page[-1].id
            records = _sendable(page, admission, settings, clock, done)
            taken = send(records)
            if after_send:
                after_send()
            note(client, LetterState.REPLAYED, taken, why="", clock=clock, by=by)
            done.sent += len(records)
            if not dry_run and len(taken) < len(records):
                raise KafkaUnavailableError(
                    f"Kafka took {len(taken)} of {len(records)} letters",
                    where=settings.kafka_bootstrap,
                    fix="Replay again: those that it took are noted, and none counts twice",
                )
    if done.sent and not dry_run:
        detail = {"letters": done.sent, "reasons": list(which.reasons), "kept": done.kept_reasons.total()}
        audit_log.record(client, Action.DEAD_LETTERS_REPLAYED, USAGE_EVENTS, detail, clock=clock, by=by)
    return done


def _sendable(
    page: Sequence[DeadLetter], admission: Admission, settings: Settings, clock: Clock, done: Replay
) -> dict[LetterId, Record]:
    """The records to write by letter; the others are counted as kept."""
    raws = [one.raw for one in page]
    verdict = judge(raws, range(len(raws)), admission=admission, now=clock.now(), settings=settings)
    errors = {error.index: error for error in verdict.errors}
    for index, one in enumerate(page):
        if one.reason == CONFLICT and index not in errors:
            errors[index] = EventError(index=index, reason=one.reason, field=one.field, detail=one.detail)
    for index, error in sorted(errors.items()):
        done.kept_reasons[error.reason] += 1
        if len(done.kept) < KEPT_SHOWN_MAX:
            done.kept.append(Kept(page[index].id, error.reason, error.field, error.detail))
    return {page[index].id: record for index, record in verdict.records.items() if index not in errors}


@contextmanager
def _sender(settings: Settings, *, dry_run: bool) -> Iterator[_Send]:
    """Writes records to the log and says which of them Kafka has acknowledged; a dry run writes none."""
    if dry_run:
        yield lambda _: []
        return
    epoch = log_epoch(settings, USAGE_EVENTS)
    producer = EventProducer(settings)
    producer.start()

    def send(records: Mapping[LetterId, Record]) -> list[tuple[LetterId, Sent]]:
        deliveries = asyncio.run(producer.send_all(list(records.values())))
        return [
            (one, Sent(epoch, delivery.partition, delivery.offset))
            for one, delivery in zip(records, deliveries, strict=True)
            if delivery.outcome is Outcome.ACKNOWLEDGED
        ]

    try:
        yield send
    finally:
        producer.close()


_Send: TypeAlias = Callable[[Mapping[LetterId, Record]], list[tuple[LetterId, Sent]]]
