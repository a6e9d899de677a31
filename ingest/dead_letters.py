"""Dead letters as ClickHouse keeps them: which there are, why, and what became of each."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from metering.clock import Clock
from schemas.errors import RequestError

PAGE_LETTERS: Final = 500


class LetterState(enum.Enum):
    """What became of a letter."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"
    ERASED = "erased"


class LetterId(msgspec.Struct, frozen=True, order=True):
    """Where the rejected record stands in the log."""

    epoch: str
    topic: str
    partition: int
    offset: int


class Sent(msgspec.Struct, frozen=True):
    """Where a replayed record stands now."""

    epoch: str
    partition: int
    offset: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A rejected record. `key` and `raw` are its bytes, empty where they were not asked for.

    `why`, `state_at` and `state_by` tell of a letter that is no longer open.
    """

    id: LetterId
    reason: str
    field: str
    detail: str
    logged_at: datetime
    catalog_version: int
    bytes_count: int
    key: bytes = b""
    raw: bytes = b""
    state: LetterState = LetterState.OPEN
    why: str = ""
    state_at: datetime | None = None
    state_by: str = ""
    sent: Sent | None = None


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters: None and () for all. `places` are (partition, offset)."""

    state: LetterState | None = LetterState.OPEN
    reasons: Sequence[str] = ()
    epoch: str = ""
    places: Sequence[tuple[int, int]] | None = None
    since: datetime | None = None
    until: datetime | None = None


class ReasonCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many letters have a reason, when the first and the last came, and what one of them says."""

    reason: str
    letters: int
    first_at: datetime
    last_at: datetime
    example: str


_MATCHING: Final = """
FROM dead_letters AS letter FINAL
LEFT JOIN (
    SELECT epoch, topic, partition, offset,
        argMax((state, why, at, by, sent_epoch, sent_partition, sent_offset), at) AS newest
    FROM dead_letter_states GROUP BY epoch, topic, partition, offset
) AS known USING (epoch, topic, partition, offset)
WHERE ({state:String} = '' OR if(known.newest.1 = '', 'open', known.newest.1) = {state:String})
    AND (empty({reasons:Array(String)}) OR has({reasons:Array(String)}, letter.reason))
    AND ({epoch:String} = '' OR epoch = {epoch:String})
    AND ({everywhere:UInt8} OR (partition, offset) IN (
        SELECT place.1, place.2 FROM (
            SELECT arrayJoin(arrayZip({partitions:Array(UInt32)}, {offsets:Array(UInt64)})) AS place)))
    AND letter.logged_at >= fromUnixTimestamp64Milli({since_ms:Int64}, 'UTC')
    AND letter.logged_at < fromUnixTimestamp64Milli({until_ms:Int64}, 'UTC')
"""
_YEAR_2200_MS: Final = 7_258_118_400_000


def letters(
    client: Client,
    which: LetterFilter,
    *,
    limit: int = PAGE_LETTERS,
    after: LetterId | None = None,
    with_bytes: bool = False,
) -> list[DeadLetter]:
    """The letters that match, in the order of the log, from the one behind `after` on."""
    raw = "letter.key, letter.raw" if with_bytes else "'', ''"
    rows = client.query(
        f"""SELECT epoch, topic, partition, offset, letter.reason, letter.field, letter.detail, letter.logged_at,
            letter.catalog_version, length(letter.raw), {raw},
            known.newest.1, known.newest.2, known.newest.3, known.newest.4,
            known.newest.5, known.newest.6, known.newest.7
        {_MATCHING} AND (epoch, topic, partition, offset) >
            ({{after_epoch:String}}, {{after_topic:String}}, {{after_partition:Int64}}, {{after_offset:Int64}})
        ORDER BY epoch, topic, partition, offset LIMIT {{limit:UInt32}}""",
        {**_parameters(which), **_after(after), "limit": limit},
        query_formats={"String": "bytes"},
    ).result_rows
    return [_letter(row) for row in rows]


def counts(client: Client, which: LetterFilter) -> list[ReasonCount]:
    """The letters that match, counted by reason, most first."""
    rows = client.query(
        "SELECT letter.reason, count() AS found, min(letter.logged_at), max(letter.logged_at), any(letter.detail) "
        + _MATCHING
        + " GROUP BY letter.reason ORDER BY found DESC, letter.reason",
        _parameters(which),
    ).result_rows
    return [
        ReasonCount(reason=reason, letters=found, first_at=first, last_at=last, example=example)
        for reason, found, first, last, example in rows
    ]


def find(client: Client, partition: int, offset: int, *, epoch: str = "") -> DeadLetter:
    """One letter with its bytes. Raises RequestError when there is none, or one in each of several logs."""
    which = LetterFilter(state=None, epoch=epoch, places=[(partition, offset)])
    found = letters(client, which, with_bytes=True)
    where = f"{partition}/{offset}"
    if not found:
        raise RequestError("there is no such dead letter", where=where, fix="`metering dead-letters list` shows them")
    if len(found) > 1:
        raise RequestError(
            f"{len(found)} logs have one there: {', '.join(one.id.epoch for one in found)}",
            where=where,
            fix="Name the log with --epoch",
        )
    return found[0]


def note(
    client: Client,
    state: LetterState,
    noted: Sequence[tuple[LetterId, Sent | None]] | Sequence[tuple[LetterId, Sent]],
    *,
    why: str,
    clock: Clock,
    by: str,
) -> None:
    """Write down what became of letters; a later note about a letter takes the place of an earlier one."""
    now = clock.now()
    rows = [
        (one.epoch, one.topic, one.partition, one.offset, state.value, why, *_place(sent), now, by)
        for one, sent in noted
    ]
    if rows:
        client.insert("dead_letter_states", rows, column_names=_STATE_COLUMNS)


_STATE_COLUMNS: Final = (
    "epoch",
    "topic",
    "partition",
    "offset",
    "state",
    "why",
    "sent_epoch",
    "sent_partition",
    "sent_offset",
    "at",
    "by",
)


def _place(sent: Sent | None) -> tuple[str, int, int]:
    return ("", 0, 0) if sent is None else (sent.epoch, sent.partition, sent.offset)


def _parameters(which: LetterFilter) -> dict[str, Any]:
    places = which.places or ()
    return {
        "state": which.state.value if which.state else "",
        "reasons": list(which.reasons),
        "epoch": which.epoch,
        "everywhere": int(which.places is None),
        "partitions": [partition for partition, _ in places],
        "offsets": [offset for _, offset in places],
        "since_ms": 0 if which.since is None else round(which.since.timestamp() * 1000),
        "until_ms": _YEAR_2200_MS if which.until is None else round(which.until.timestamp() * 1000),
    }


def _after(after: LetterId | None) -> dict[str, Any]:
    epoch, topic, partition, offset = ("", "", -1, -1) if after is None else msgspec.structs.astuple(after)
    return {"after_epoch": epoch, "after_topic": topic, "after_partition": partition, "after_offset": offset}


def _letter(row: Sequence[Any]) -> DeadLetter:
    epoch, topic, partition, offset, reason, field, detail, logged_at, version, size, key, raw, *known = row
    state, why, state_at, state_by, sent_epoch, sent_partition, sent_offset = known
    is_open = not _text(state)
    return DeadLetter(
        id=LetterId(_text(epoch), _text(topic), partition, offset),
        reason=_text(reason),
        field=_text(field),
        detail=_text(detail),
        logged_at=logged_at,
        catalog_version=version,
        bytes_count=size,
        key=key,
        raw=raw,
        state=LetterState.OPEN if is_open else LetterState(_text(state)),
        why=_text(why),
        state_at=None if is_open else state_at,
        state_by=_text(state_by),
        sent=Sent(_text(sent_epoch), sent_partition, sent_offset) if sent_epoch else None,
    )


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
