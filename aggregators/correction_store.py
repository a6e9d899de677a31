"""What a worker and a rebuild read of corrections, and of the events around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from clickhouse_connect.driver.client import Client

from aggregators.dedupe import Identity
from aggregators.facts import Correction, Link, Place, StoredEvent, TakenRow
from aggregators.state import DayKey, StateKey
from aggregators.store import chunks
from schemas.meter import WINDOW_S

Window = tuple[str, int]
"""(subject, start of a 15-minute window in seconds since 1970)."""

_TAKEN_KEYS: Final = """
SELECT DISTINCT
    xxh3(concat(toString(length(subject)), ':', subject, toString(length(source)), ':', source, id)) AS key
FROM corrections
"""
_LINK: Final = """
SELECT subject, source, id, correction_source, correction_id, epoch, partition, offset, is_named, kind,
    toUnixTimestamp64Milli(logged_at), event_known, event_type, event_time, event_epoch, event_partition, event_offset
FROM corrections FINAL
"""
_ABOUT: Final = f"""{_LINK}
WHERE subject IN {{subjects:Array(String)}}
    AND ((subject, source, id) IN {{identities:Array(Tuple(String, String, String))}}
        OR (subject, correction_source, correction_id) IN {{identities:Array(Tuple(String, String, String))}})
"""
_EVENTS: Final = """
SELECT subject, source, id, type, time, epoch, partition, offset
FROM events FINAL WHERE (subject, source, id) IN {identities:Array(Tuple(String, String, String))}
ORDER BY logged_at, epoch, partition, offset
"""
_WITHIN: Final = """subject IN {subjects:Array(String)} AND type IN {types:Array(String)}
    AND time >= {start:DateTime('UTC')} AND time < {end:DateTime('UTC')}
    AND (subject, toUnixTimestamp(toStartOfFifteenMinutes(time))) IN {windows:Array(Tuple(String, UInt32))}"""
_WINDOW_EVENTS: Final = f"SELECT epoch, partition, offset, digest, raw FROM events FINAL WHERE {_WITHIN}"  # noqa: S608 - constants
_WINDOW_OUTS: Final = f"""
SELECT subject, source, id, epoch, partition, offset FROM corrections FINAL
WHERE subject IN {{subjects:Array(String)}}
    AND (subject, source, id) IN (SELECT subject, source, id FROM events WHERE {_WITHIN})
"""  # noqa: S608 - constants
_WINDOW_ROWS: Final = """
SELECT DISTINCT subject, meter, meter_version, toUnixTimestamp(window_start), mapValues(dimensions), epoch, partition,
    position_first
FROM rollups
WHERE meter IN {meters:Array(String)} AND subject IN {subjects:Array(String)}
    AND window_start >= {start:DateTime('UTC')} AND window_start < {end:DateTime('UTC')}
    AND (subject, toUnixTimestamp(window_start)) IN {windows:Array(Tuple(String, UInt32))}
"""


class StoredRaw(NamedTuple):
    """An event as `events` has it."""

    place: Place
    digest: int
    raw: bytes


RowKey = tuple[str, int, int, DayKey, StateKey]
"""(epoch, partition, position_first, day, key): a row of `rollups`."""


def taken_keys(client: Client) -> Iterator[int]:
    """`identity_key` of everything that is taken out, or will be when it comes."""
    with client.query_column_block_stream(_TAKEN_KEYS) as blocks:
        for (keys,) in blocks:
            yield from keys


def facts_about(client: Client, identities: Iterable[Identity]) -> list[TakenRow]:
    """The rows of `corrections` on the facts that any of the identities is about, however far they are linked."""
    known: set[Identity] = set()
    found: dict[tuple[Identity, Place], TakenRow] = {}
    waiting = sorted(set(identities))
    while waiting:
        known.update(waiting)
        for row in _rows(client, _ABOUT, waiting):
            found[row.link.taken, row.link.by.place] = row
        reached = {one for row in found.values() for one in (row.link.taken, row.link.by.identity)}
        waiting = sorted(reached - known)
    return list(found.values())


def events_named(client: Client, identities: Iterable[Identity]) -> dict[Identity, list[StoredEvent]]:
    """What is stored of the identities, in the order in which it was written down."""
    found: dict[Identity, list[StoredEvent]] = {}
    for chunk in chunks(sorted(set(identities))):
        for subject, source, id_, type_, time, *place in client.query(_EVENTS, {"identities": chunk}).result_rows:
            event = StoredEvent(type_, time.replace(tzinfo=UTC), (place[0], place[1], place[2]))
            found.setdefault((subject, source, id_), []).append(event)
    return found


def window_events(client: Client, windows: Sequence[Window], types: Sequence[str]) -> list[StoredRaw]:
    """All events of the types in the windows."""
    parameters = {**_parameters(windows), "types": list(types)}
    rows = client.query(_WINDOW_EVENTS, parameters, column_formats={"raw": "bytes"}).result_rows
    return [StoredRaw((epoch, partition, offset), int(digest), raw) for epoch, partition, offset, digest, raw in rows]


def window_outs(client: Client, windows: Sequence[Window], types: Sequence[str]) -> dict[Identity, list[Place]]:
    """The places of the corrections that take out any of these events."""
    found: dict[Identity, list[Place]] = {}
    parameters = {**_parameters(windows), "types": list(types)}
    for subject, source, id_, epoch, partition, offset in client.query(_WINDOW_OUTS, parameters).result_rows:
        found.setdefault((subject, source, id_), []).append((epoch, partition, offset))
    return found


def window_rows(client: Client, windows: Sequence[Window], meters: Sequence[str]) -> set[RowKey]:
    """Which rollups are written for the windows."""
    found: set[RowKey] = set()
    parameters = {**_parameters(windows), "meters": list(meters)}
    for subject, meter, version, window_s, dimensions, epoch, partition, first in client.query(
        _WINDOW_ROWS, parameters
    ).result_rows:
        day = (subject, window_s // 86_400)
        found.add((epoch, partition, first, day, (meter, version, window_s, tuple(dimensions))))
    return found


def window_of(event: StoredEvent, subject: str) -> Window:
    """The window that an event counts in."""
    time_s = int(event.time.timestamp())
    return subject, time_s - time_s % WINDOW_S


def _parameters(windows: Sequence[Window]) -> dict[str, Any]:
    return {
        "windows": list(windows),
        "subjects": sorted({subject for subject, _ in windows}),
        "start": datetime.fromtimestamp(min(start_s for _, start_s in windows), UTC),
        "end": datetime.fromtimestamp(max(start_s for _, start_s in windows) + WINDOW_S, UTC),
    }


def _rows(client: Client, statement: str, identities: Sequence[Identity]) -> Iterator[TakenRow]:
    for chunk in chunks(identities):
        parameters = {"identities": chunk, "subjects": sorted({subject for subject, _, _ in chunk})}
        for row in client.query(statement, parameters).result_rows:
            subject, source, id_, by_source, by_id, epoch, partition, offset, is_named, kind, logged_at_ms, *event = row
            taken = (subject, source, id_)
            # What is superseded is named by nobody in this row; `named` says something only where `is_named` is 1.
            by = Correction((subject, by_source, by_id), taken, (epoch, partition, offset))
            known, type_, time, *place = event
            stored = StoredEvent(type_, time.replace(tzinfo=UTC), (place[0], place[1], place[2])) if known else None
            yield TakenRow(Link(taken, by, bool(is_named)), kind, logged_at_ms, stored)
