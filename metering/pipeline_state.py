"""How the pipeline does, as ClickHouse knows it: what was folded lately, how fresh that is, what was rejected."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

MINUTE: Final = timedelta(minutes=1)
RATE_MINUTES: Final = 5
"""Whole minutes that a rate of now is the mean of."""


class MinuteOfWork(msgspec.Struct, frozen=True, kw_only=True):
    """What workers entered in the ledger within a minute that begins at `start`, UTC."""

    start: datetime
    accepted: int = 0
    duplicate: int = 0
    rejected: int = 0


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """How far the ledger of a partition has come; `folded_to_at` is None where nothing was folded yet."""

    epoch: str
    partition: int
    newest_at: datetime
    folded_to_at: datetime | None
    flushed_at: datetime | None
    accepted: int
    duplicate: int
    rejected: int


class DeadLetterCount(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters by reason, and what became of them."""

    reason: str
    letters: int
    open: int
    replayed: int
    discarded: int


def work_by_minute(client: Client, *, now: datetime, minutes: int) -> list[MinuteOfWork]:
    """The last `minutes` whole minutes before `now`, oldest first, those without work too."""
    end = now.astimezone(UTC).replace(second=0, microsecond=0)
    start = end - minutes * MINUTE
    rows = client.query(
        """SELECT toStartOfMinute(flushed_at) AS minute, sum(accepted), sum(duplicate), sum(rejected)
        FROM positions FINAL
        WHERE flushed_at >= {start:DateTime64(3, 'UTC')} AND flushed_at < {end:DateTime64(3, 'UTC')}
        GROUP BY minute""",
        {"start": start, "end": end},
    ).result_rows
    found: dict[datetime, Sequence[Any]] = {row[0]: row[1:] for row in rows}
    return [
        MinuteOfWork(start=at, **dict(zip(("accepted", "duplicate", "rejected"), found.get(at, ()), strict=False)))
        for at in (start + place * MINUTE for place in range(minutes))
    ]


def freshness(client: Client) -> list[Freshness]:
    """Every partition of every log, in order."""
    names = Freshness.__struct_fields__
    rows = client.query(
        f"SELECT {', '.join(names)} FROM pipeline_freshness ORDER BY epoch, partition"  # noqa: S608 - constants
    ).result_rows
    return [Freshness(**dict(zip(names, row, strict=True))) for row in rows]


def dead_letter_counts(client: Client) -> list[DeadLetterCount]:
    """All dead letters by reason, most open ones first."""
    names = DeadLetterCount.__struct_fields__
    rows = client.query(
        "SELECT reason, sum(letters) AS all_letters, sum(open) AS open_letters, sum(replayed), sum(discarded) "
        "FROM dead_letter_counts GROUP BY reason ORDER BY open_letters DESC, all_letters DESC, reason"
    ).result_rows
    return [DeadLetterCount(**dict(zip(names, row, strict=True))) for row in rows]
