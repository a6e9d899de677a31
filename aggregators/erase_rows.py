"""What an erasure takes out of tables, and the proof that nothing goes whose copy is not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from metering.clock import Clock
from metering.cluster_client import changed_rows
from schemas.erasure import ERASED

CHUNK_SUBJECTS: Final = 100
SUBJECT_TABLES: Final = ("events", "corrections", "group_overflows", "members", "rollups", "subjects")
"""Tables with a column `subject`."""

_WAIT: Final = {"mutations_sync": 2}
"""A statement ends when the rows are rewritten, not when that is planned."""

_STATE: Final = "window_start, dimensions, meter_version, epoch, partition, position_first"
STATE_KEYS: Final = {
    "rollups": f"meter, {_STATE}",
    "group_overflows": "meter, day, meter_version, epoch, partition, position_first, dimension",
}
"""The sorting keys of tables whose rows keep everything but their subject, without it."""
_COPIES: Final = {
    "events": "epoch, partition, offset, digest",
    "corrections": "epoch, partition, offset",
    "members": f"meter, {_STATE}, position, since",
    **STATE_KEYS,
}
"""What a row and its copy have in common, beside the name that stands for the subject."""

_LETTERS: Final = (
    "key IN {names:Array(String)} OR JSONExtractString(raw, 'subject') IN {names:Array(String)} "
    "OR (key = '' AND JSONExtractString(raw, 'subject') = '' AND arrayExists(one -> position(raw, one) > 0, "
    "{names:Array(String)}))"
)
"""Whose a dead letter is: its key says so, or what can be read of it; of what says nobody's name, the text."""


def count_rows(client: Client, table: str, names: Sequence[str]) -> int:
    """How many rows of a table stand under these subjects."""
    found = client.query(
        f"SELECT count() FROM {table} FINAL WHERE subject IN {{names:Array(String)}}",  # noqa: S608 - a constant of ours
        {"names": list(names)},
    )
    return int(found.result_rows[0][0])


def count_letters(client: Client, names: Sequence[str]) -> tuple[int, int]:
    """(how many dead letters are of these subjects, how many of them are open)."""
    if not names:
        return 0, 0
    rows = client.query(
        "SELECT count(), countIf((epoch, topic, partition, offset) NOT IN (SELECT epoch, topic, partition, offset "  # noqa: S608 - constants
        f"FROM dead_letter_states)) FROM dead_letters FINAL WHERE {_LETTERS}",
        {"names": list(names)},
    ).result_rows
    return int(rows[0][0]), int(rows[0][1])


def left_behind(client: Client, pseudonyms: Mapping[str, str]) -> dict[str, int]:
    """How many rows of each table have no copy under their subject's pseudonym."""
    parameters: dict[str, Any] = {"names": list(pseudonyms), "pseudonyms": list(pseudonyms.values())}
    renamed = "transform(subject, {names:Array(String)}, {pseudonyms:Array(String)}, subject)"
    found: dict[str, int] = {}
    for table, columns in _COPIES.items():
        rows = client.query(
            f"SELECT count() FROM {table} FINAL WHERE subject IN {{names:Array(String)}} AND ({renamed}, {columns}) "  # noqa: S608 - constants
            f"NOT IN (SELECT subject, {columns} FROM {table} WHERE subject IN {{pseudonyms:Array(String)}})",
            parameters,
        ).result_rows
        found[table] = int(rows[0][0])
    return found


def redact_letters(client: Client, names: Sequence[str], *, clock: Clock, by: str) -> None:
    """Take the bytes out of the dead letters of these subjects, and note that nobody can send them again."""
    if not names:
        return
    client.command(
        "INSERT INTO dead_letter_states (epoch, topic, partition, offset, state, why, at, by) "  # noqa: S608 - constants
        "SELECT epoch, topic, partition, offset, 'erased', '', fromUnixTimestamp64Milli({at_ms:Int64}, 'UTC'), "
        "{by:String} "
        f"FROM dead_letters FINAL WHERE {_LETTERS}",
        {"names": list(names), "at_ms": int(clock.now().timestamp() * 1000), "by": by},
    )
    client.command(
        f"ALTER TABLE {changed_rows(client, 'dead_letters')} "
        f"UPDATE key = '', raw = '', detail = {{detail:String}} WHERE {_LETTERS}",
        {"names": list(names), "detail": ERASED},
        settings=_WAIT,
    )


def delete_rows(client: Client, names: Sequence[str]) -> None:
    """Take the rows of these subjects out of every table: their parts are written anew, without them."""
    for table in SUBJECT_TABLES:
        client.command(
            f"ALTER TABLE {changed_rows(client, table)} DELETE WHERE subject IN {{names:Array(String)}}",
            {"names": list(names)},
            settings=_WAIT,
        )
