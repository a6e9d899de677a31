"""Counts a sample of subjects' days again from their events and compares each rollup row with what comes out.

Days are drawn from the events and from the rollups: of either there may be nothing left that speaks of a day.
Subjects with corrections are left out: what no longer counts is a matter of the whole log, which a rebuild looks at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from clickhouse_connect.driver.client import Client

from aggregators import store
from aggregators.decide import Accepted, Decision
from aggregators.partition import Partition, known_days_filter
from aggregators.state import DAY_S, DayKey, State, StateKey
from aggregators.store import LedgerEnd
from schemas.admission import Admission
from schemas.catalog import AppliedCatalog
from schemas.errors import EventRejectedError
from schemas.meter import Measurement, MeterVersion
from schemas.usage_event import decode_event

_DAYS: Final = """
SELECT subject, day FROM (
    SELECT subject, intDiv(toUnixTimestamp(time), 86400) AS day FROM events GROUP BY subject, day
    UNION ALL
    SELECT subject, intDiv(toUnixTimestamp(window_start), 86400) AS day FROM rollups GROUP BY subject, day
)
WHERE subject NOT IN (SELECT subject FROM corrections)
GROUP BY subject, day ORDER BY sipHash64(subject, day, {seed:UInt64}) LIMIT {days:UInt32}
"""
_EVENTS: Final = """
SELECT epoch, partition, offset, digest, raw FROM events FINAL
WHERE subject = {subject:String} AND time >= {start:DateTime64(6, 'UTC')} AND time < {end:DateTime64(6, 'UTC')}
ORDER BY epoch, partition, offset
"""

Wrong = tuple[str, str, str]
"""(meter, where, what)."""


def check_sample(
    client: Client, catalog: AppliedCatalog, ends: Mapping[str, Mapping[int, LedgerEnd]], *, days: int, seed: int
) -> tuple[int, list[Wrong]]:
    """(how many (subject, day) pairs were counted again, what differs)."""
    chosen = client.query(_DAYS, {"seed": seed, "days": days}).result_rows
    wrong: list[Wrong] = []
    for subject, day in chosen:
        wrong += _check_day(client, catalog, ends, (subject, day))
    return len(chosen), wrong


def _check_day(
    client: Client, catalog: AppliedCatalog, ends: Mapping[str, Mapping[int, LedgerEnd]], day: DayKey
) -> Iterator[Wrong]:
    start = datetime.fromtimestamp(day[1] * DAY_S, UTC)
    parameters = {"subject": day[0], "start": start, "end": start + timedelta(days=1)}
    rows = client.query(_EVENTS, parameters, column_formats={"raw": "bytes"}).result_rows
    logs: dict[tuple[str, int], list[tuple[int, int, bytes]]] = defaultdict(list)
    for epoch, partition, offset, digest, raw in rows:
        logs[epoch, partition].append((offset, int(digest), raw))
    for epoch, by_partition in ends.items():
        for number, end in by_partition.items():
            partition = Partition(end, known_days_filter([]))
            partition.begin_catalog(catalog.version, catalog.meter_versions)
            firsts = {key: one.position_first for key, one in partition.series.items()}
            stored = store.states(client, epoch, number, [day], firsts)[day]
            counted = _counted(partition, catalog.meter_versions, logs[epoch, number], end)
            where = f"{day[0]!r} on {start.date()}, epoch {epoch}, partition {number}"
            yield from _compare(where, stored, counted, end)


def _counted(
    partition: Partition, versions: Sequence[MeterVersion], events: Sequence[tuple[int, int, bytes]], end: LedgerEnd
) -> dict[StateKey, State]:
    """The states that the live series must have, folded from stored events up to the ledger's end."""
    admissions = [(one, Admission((one,), ())) for one in versions]
    accepted: list[Accepted] = []
    for offset, digest, raw in events:
        if offset >= end.next_offset:
            continue
        event = decode_event(raw)
        measured: list[tuple[MeterVersion, Measurement]] = []
        for version, admission in admissions:
            if version.meter.event_type != event.type:
                continue
            if offset < partition.series[version.meter.name, version.version].position_first:
                continue
            try:
                measured += admission.measurements(event)
            except EventRejectedError:
                continue  # accepted before this meter was known, which cannot read it: the live worker skipped it too
        accepted.append(Accepted(event, offset, 0, digest, raw, is_stored=True, measured=measured))
    if not accepted:
        return {}
    decision = Decision(
        epoch="",
        topic="",
        partition=0,
        first=accepted[0].offset,
        last=accepted[-1].offset,
        logged_at_last_ms=0,
        accepted=accepted,
        duplicate=0,
        rejected=[],
        absent=0,
    )
    partition.take_in(decision, lambda days, _series: {one: {} for one in days})
    changed = partition.fold.take_dirty()
    return {key: state for rows in changed.states.values() for _, key, state in rows}


def _compare(
    where: str, stored: Mapping[StateKey, State], counted: Mapping[StateKey, State], end: LedgerEnd
) -> Iterator[Wrong]:
    for key in sorted({*stored, *counted}):
        mine, wanted = stored.get(key), counted.get(key)
        if mine is not None and mine.position >= end.next_offset:
            continue  # a live worker has moved on past the ledger's end that was read
        window = datetime.fromtimestamp(key[2], UTC).isoformat()
        at = f"meter {key[0]}, window {window}, dimensions {list(key[3])}, {where}"
        if mine is None or mine.position < 0:
            yield key[0], at, "the rollup is absent"
        elif wanted is None:
            yield key[0], at, f"a rollup of {mine.events_count} events, but no event counts for it"
        elif _content(mine) != _content(wanted):
            yield key[0], at, f"the rollup says {_content(mine)}, its events {_content(wanted)}"


def _content(state: State) -> tuple[object, ...]:
    members = tuple(sorted((state.members or {}).items()))
    return (
        state.position,
        state.events_count,
        state.value_sum,
        state.value_min,
        state.value_max,
        state.value_latest,
        state.digest,
        members,
    )
