"""Writes down who did what with catalog, keys, runs, dead letters and erasures. Entries are only ever added."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from metering.clock import Clock

DETAIL_BYTES_MAX: Final = 64_000

_ONCE: Final = uuid.UUID("c4b4ab8c-6d1c-4b5c-9d0a-0c7a3b1f5e92")
"""Names entries of what has a moment of its own."""


class Action(enum.Enum):
    """Everything that is written down."""

    CATALOG_APPLIED = "catalog.applied"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    KEY_ROTATED = "key.rotated"
    RUN_CLOSED = "run.closed"
    RUN_EXPORTED = "run.exported"
    DEAD_LETTERS_REPLAYED = "dead_letters.replayed"
    DEAD_LETTERS_DISCARDED = "dead_letters.discarded"
    PARTITION_RESUMED = "partition.resumed"
    CUSTOMER_ERASED = "customer.erased"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log. `object` is what the action was done to."""

    at: datetime
    by: str
    action: str
    object: str
    detail: dict[str, Any]


def record(
    client: Client,
    action: Action,
    object_: str,
    detail: Mapping[str, Any] | None = None,
    *,
    clock: Clock,
    by: str,
    at: datetime | None = None,
) -> None:
    """Add an entry, after what it tells of has been done. `detail` must hold no secret and no personal data.

    `at` is for what happens once and has a moment of its own: entries of the same are then one, whoever makes them.
    Raises ValueError for a detail that is no JSON or longer than DETAIL_BYTES_MAX.
    """
    text = msgspec.json.encode(dict(detail or {})).decode()
    if len(text) > DETAIL_BYTES_MAX:
        raise ValueError(f"the detail of {action.value} has {len(text)} bytes, at most {DETAIL_BYTES_MAX} fit")
    id_ = uuid.uuid4() if at is None else uuid.uuid5(_ONCE, f"{action.value} {object_}")
    client.insert(
        "audit_log",
        [(at or clock.now(), by, action.value, object_, text, id_)],
        column_names=("at", "by", "action", "object", "detail", "id"),
    )


def entries(client: Client, *, action: Action | None = None, of: str = "", limit: int = 1_000) -> list[Entry]:
    """The newest entries, newest first; about the object `of` alone, unless that is empty."""
    rows = client.query(
        "SELECT at, by, action, object, detail FROM audit_log FINAL "
        "WHERE ({action:String} = '' OR action = {action:String}) AND ({of:String} = '' OR object = {of:String}) "
        "ORDER BY at DESC, id LIMIT {limit:UInt32}",
        {"action": action.value if action else "", "of": of, "limit": limit},
    ).result_rows
    return [
        Entry(at=at, by=by, action=done, object=object_, detail=msgspec.json.decode(detail))
        for at, by, done, object_, detail in rows
    ]
