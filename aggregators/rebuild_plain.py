"""The part of a rebuild that ClickHouse does by itself: it folds plain events where they lie.

What they mean is defined by the Python fold alone. A subject's UTC day with anything that is not plain, was corrected
or has more values than a meter takes is left to it whole, because no state spans two days.
"""

# ruff: noqa: S608 - statements are made of constants, and values are parameters
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from aggregators import plain_states
from aggregators.plain_events import EXTRACTED, ODD_DAYS, Columns
from aggregators.state import DayKey, Series
from schemas.meter import MeterVersion

OFFSETS_A_STATEMENT: Final = 5_000_000
EVENTS_A_SHARD: Final = 4_000_000
"""How many events one statement folds: what it needs of memory and of time stays within bounds."""
SHARDS_MAX: Final = 64
ODD_DAYS_MAX: Final = 100_000
"""With more of them than this, everything is left to the Python fold."""
GROUP_BYTES_MAX: Final = 512 * 1024 * 1024
"""What one statement keeps in memory before it goes on with files."""

_ODD: Final = f"""
INSERT INTO {{scratch:Identifier}}.{ODD_DAYS}
SELECT DISTINCT subject, day FROM {{scratch:Identifier}}.{EXTRACTED}
WHERE shard = {{shard:UInt8}} AND (is_odd OR offset IN (
    SELECT offset FROM {{scratch:Identifier}}.{EXTRACTED} WHERE shard = {{shard:UInt8}}
    GROUP BY offset HAVING count() > 1
))
"""
_ODD_COUNT: Final = f"SELECT count() FROM {{scratch:Identifier}}.{ODD_DAYS}"
_LEFT: Final = f"(subject, day) IN (SELECT subject, day FROM {{scratch:Identifier}}.{ODD_DAYS})"
_FOLDED: Final = f"SELECT count() FROM {{scratch:Identifier}}.{EXTRACTED} WHERE NOT {_LEFT}"
_RANGES: Final = f"""
SELECT min(offset), max(offset)
FROM
(
    SELECT offset, intDiv(row_number() OVER (ORDER BY offset) - 1, {{at_a_time:UInt64}}) AS number
    FROM {{scratch:Identifier}}.{EXTRACTED} WHERE {_LEFT}
)
GROUP BY number ORDER BY number
"""
_SETTINGS: Final[dict[str, int | str]] = {
    "insert_deduplicate": 0,
    "optimize_on_insert": 0,
    "max_bytes_before_external_group_by": GROUP_BYTES_MAX,
    "max_bytes_before_external_sort": GROUP_BYTES_MAX,
    # What is asked of few rows is given an empty text for the others; to leave rows out costs more than it saves, and
    # what several expressions share would be computed for each.
    "short_circuit_function_evaluation": "disable",
    # Else a table of less than 160,000 rows is read by one thread.
    "merge_tree_min_rows_for_concurrent_read": 16_384,
    "merge_tree_min_bytes_for_concurrent_read": 1_048_576,
}


class Left(msgspec.Struct, frozen=True):
    """What the Python fold has to do after ClickHouse; `ranges` are first and last offsets, None stands for all."""

    folded: int
    ranges: list[tuple[int, int]] | None


NOTHING_FOLDED: Final = Left(0, None)


class PlainFold:
    """Folds the plain events of one partition after another into the scratch tables."""

    def __init__(self, live: Client, scratch: Client, versions: Sequence[MeterVersion]) -> None:
        self._live = live
        self._scratch = scratch
        self._names = {"scratch": scratch.database}
        self._versions = versions
        self._columns = Columns(versions)
        self._shards = 1
        for statement in self._columns.create_tables():
            live.command(statement, self._names)

    def extract(self, place: tuple[str, int], next_offset: int) -> Iterator[int]:
        """Take the events of a partition before an offset apart; yields how many offsets each step went through."""
        for table in (EXTRACTED, ODD_DAYS):
            self._live.command(f"TRUNCATE TABLE {{scratch:Identifier}}.{table}", self._names)
        self._shards = min(SHARDS_MAX, -(-next_offset // EVENTS_A_SHARD)) or 1
        for first in range(0, next_offset, OFFSETS_A_STATEMENT):
            last = min(first + OFFSETS_A_STATEMENT, next_offset) - 1
            within = {**_placed(place), "first": first, "last": last, "shards": self._shards}
            for needs in self._columns.needs:
                self._run(*self._columns.extract(needs), within)
            yield last - first + 1

    def fold(
        self, place: tuple[str, int], series: Sequence[Series], odd_days: Sequence[DayKey], events_at_a_time: int
    ) -> Left:
        """Fold what was taken apart, but for days that hold anything odd; `odd_days` are known to."""
        if odd_days:
            self._live.insert(
                ODD_DAYS, list(odd_days), column_names=("subject", "day"), database=self._names["scratch"]
            )
        for shard in range(self._shards):
            self._run(_ODD, {}, {"shard": shard})
            for statement, parameters in plain_states.crowded(self._columns, self._versions):
                self._run(statement, parameters, {"shard": shard})
        odd_count = self._query(_ODD_COUNT)[0][0]
        if odd_count > ODD_DAYS_MAX:
            return NOTHING_FOLDED
        for shard in range(self._shards):
            within = {**_placed(place), "shard": shard}
            for one in series:
                if one.folds_members:
                    self._run(*plain_states.members(self._columns, one), within)
                self._run(*plain_states.rollups(self._columns, one), within)
        ranges = self._query(_RANGES, at_a_time=events_at_a_time) if odd_count else ()
        return Left(self._query(_FOLDED)[0][0], [(first, last) for first, last in ranges])

    def _run(self, statement: str, parameters: Mapping[str, Any], within: Mapping[str, Any]) -> None:
        self._live.command(statement, {**self._names, **parameters, **within}, settings=_SETTINGS)

    def _query(self, statement: str, **parameters: int) -> Sequence[Sequence[int]]:
        rows: Sequence[Sequence[int]] = self._live.query(
            statement, {**self._names, **parameters}, settings=_SETTINGS
        ).result_rows
        return rows


def _placed(place: tuple[str, int]) -> Mapping[str, Any]:
    return {"epoch": place[0], "partition": place[1]}
