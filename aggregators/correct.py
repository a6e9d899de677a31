"""Applying corrections: what a batch takes out is found, written down, and counted again.

Nothing of it happens for a batch without corrections. Everything before the batch must be stored when this begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

import msgspec

from aggregators import columns, correction_store
from aggregators.accepted import AcceptedEvents
from aggregators.correction_store import Window
from aggregators.decide import Decision, accepted_events_of
from aggregators.dedupe import Identity
from aggregators.facts import StoredEvent, TakenRow, take_out
from aggregators.partition import LoadDays, Partition
from aggregators.recompute import Measure
from aggregators.recount import Read, Recounting
from aggregators.worker_store import WorkerStore
from schemas.corrections import VOIDED
from schemas.meter import MeterVersion


class Correcting(msgspec.Struct, frozen=True, kw_only=True):
    """What the corrections in a batch, and those before it, take out.

    `rows` are to be written to `corrections`, `offsets` are those of the batch's own events that were taken out before
    they came, and `windows` have to be counted again.
    """

    rows: list[TakenRow]
    offsets: frozenset[int]
    windows: list[Window]

    @property
    def taken(self) -> list[Identity]:
        """Who is taken out."""
        return [row.link.taken for row in self.rows]


def find_taken(decision: Decision, read: Read) -> Correcting:
    """What a decided batch takes out, and which of its events were taken out before they came."""
    here = (decision.epoch, decision.partition)
    said = {one.correction.place: one for one in decision.corrections}
    corrections = [one.correction for one in decision.corrections]
    asked = {*decision.maybe_taken, *(one.identity for one in corrections), *(one.named for one in corrections)}
    stored = read("corrections", lambda client: correction_store.facts_about(client, asked))
    links = take_out(corrections, [row.link for row in stored]) if corrections else []
    own = _own_events(accepted_events_of(decision), {*asked, *(link.taken for link in links)})
    rows = [TakenRow(link, said[link.by.place].kind, said[link.by.place].logged_at_ms, None) for link in links]
    # Of this partition only what stands before an event was there when it came: a log read again must not look ahead.
    rows += [
        row
        for row in stored
        if row.link.taken in own
        and (row.link.by.place[:2] != here or row.link.by.place[2] < own[row.link.taken].place[2])
        and row.link.by.place not in said
    ]
    elsewhere = {row.link.taken for row in rows} - own.keys()
    known = read("corrected events", lambda client: correction_store.events_named(client, elsewhere))
    found: list[TakenRow] = []
    windows: set[Window] = set()
    for row in rows:
        taken = row.link.taken
        events = [own[taken]] if taken in own else [one for one in known.get(taken, []) if _is_past(one, decision)]
        found.append(row._replace(event=events[0] if events else row.event))
        windows.update(correction_store.window_of(one, taken[0]) for one in events if one.type != VOIDED)
    # What came first is folded and counted again, as if the batch had ended between the two: where a batch ends must
    # not decide which values a day keeps.
    offsets = frozenset(
        own[row.link.taken].place[2]
        for row in rows
        if row.link.taken in own
        and row.link.by.place[:2] == here
        and row.link.by.place[2] < own[row.link.taken].place[2]
    )
    return Correcting(rows=found, offsets=offsets, windows=sorted(windows))


def take_in_corrections(
    store: WorkerStore,
    partition: Partition,
    decision: Decision,
    *,
    versions: Sequence[MeterVersion],
    measure: Measure,
    load_days: LoadDays,
) -> list[Identity]:
    """Fold a batch with corrections, all before it being stored; returns who is taken out.

    The states it leaves behind wait for the next flush, like those of any other batch.
    """
    found = find_taken(decision, store.read)
    store.write_corrections(columns.events_table(decision), columns.corrections_table(found.rows))
    partition.take_in(decision, load_days, found.offsets)
    store.write_overflows(partition.take_overflows(partition.place))
    recounting = Recounting(
        store.read,
        versions,
        measure=measure,
        is_past=lambda place: place[:2] != partition.place or place[2] <= decision.last,
        first_of=partition.first_of,
    )
    recomputed = list(recounting.recount(found.windows))
    if not all(partition.is_live(one) for one in recomputed):
        # Of other logs, and of series that were filled in, only what is there is mended.
        written = recounting.written(found.windows)
        recomputed = [
            one
            for one in recomputed
            if partition.is_live(one) or (*one.place, one.series.position_first, one.day, one.key) in written
        ]
    partition.correct(recomputed, load_days)
    return found.taken


def _own_events(accepted: AcceptedEvents, wanted: set[Identity]) -> dict[Identity, StoredEvent]:
    """The batch's own events among the wanted ones."""
    found: dict[Identity, StoredEvent] = {}
    names = ("subject", "source", "id", "type", "time", "epoch", "partition", "offset")
    for part in accepted.parts:
        columns: list[list[Any]] = [part.rows[name].to_pylist() for name in names]
        for subject, source, id_, type_, time, *place in zip(*columns, strict=True):
            if (subject, source, id_) in wanted:
                found[subject, source, id_] = StoredEvent(type_, time.astimezone(UTC), (place[0], place[1], place[2]))
    return found


def _is_past(event: StoredEvent, decision: Decision) -> bool:
    epoch, partition, offset = event.place
    return (epoch, partition) != (decision.epoch, decision.partition) or offset <= decision.last
