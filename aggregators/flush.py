"""One flush: what several partitions decided and folded since the last one, ready to be written, and its writing.

The order is what makes it safe: events, members, rollups, dead letters, and the ledger last. Each write can be
repeated; a crash between any two is mended by the next life, which starts at the ledger's end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

import msgspec
import pyarrow as pa

from aggregators import columns
from aggregators.decide import Decision
from aggregators.group_limit import TABLE as OVERFLOWS
from aggregators.partition import Partition
from aggregators.state import DayKey

STEPS: Final = ("events", "members", "rollups", "dead_letters_topic", "dead_letters", "positions")
"""The steps of a flush, in order; fault tests kill the worker at each."""


class DeadLetterSink(Protocol):
    """Takes rejected records to the dead-letter topic and returns once Kafka has acknowledged all of them."""

    def send(self, decision: Decision) -> None: ...


class Flush(msgspec.Struct, frozen=True, kw_only=True):
    """Tables to insert, by step, and the decisions they come from (one a partition).

    `days` has every day with a state in it; until the flush is durable they cannot be read back.
    """

    generation: int
    decisions: list[Decision]
    tables: dict[str, list[pa.Table]]
    catalog_version: int
    days: frozenset[DayKey]


def build_flush(partitions: Sequence[Partition], generation: int, catalog_version: int) -> Flush | None:
    """Take everything pending from the partitions; None when nothing is."""
    decisions: list[Decision] = []
    days: set[DayKey] = set()
    tables: dict[str, list[pa.Table]] = {step: [] for step in (*STEPS, OVERFLOWS)}
    for partition in partitions:
        decision = partition.take_pending()
        if decision is None:
            continue
        days |= partition.fold.dirty_days
        states, members = partition.fold.take_dirty()
        tables["events"].append(columns.events_table(decision))
        tables[OVERFLOWS].append(partition.take_overflows((decision.epoch, decision.partition)))
        tables["members"].append(columns.members_table(decision.epoch, decision.partition, members, partition.series))
        tables["rollups"].append(columns.rollups_table(decision.epoch, decision.partition, states, partition.series))
        tables["dead_letters"].append(columns.dead_letters_table(decision, catalog_version))
        for corrected in columns.recomputed_tables(partition.take_recomputed(), partition.is_live):
            tables["members"].append(corrected.members)
            tables["rollups"].append(corrected.rollups)
        decisions.append(decision)
    if not decisions:
        return None
    return Flush(
        generation=generation,
        decisions=decisions,
        tables=tables,
        catalog_version=catalog_version,
        days=frozenset(days),
    )


def write_flush(
    flush: Flush,
    insert: Callable[[str, pa.Table], None],
    dead_letters: DeadLetterSink,
    *,
    flushed_at: datetime,
    worker: str,
    code_version: str,
    reached: Callable[[str], None],
) -> None:
    """Write a flush, step by step; `reached` is told each step that is done.

    `insert` and `dead_letters` retry by themselves.
    """
    for step in STEPS:
        if step == "dead_letters_topic":
            for decision in flush.decisions:
                if decision.rejected:
                    dead_letters.send(decision)
        elif step == "positions":
            ledger = columns.positions_table(
                flush.decisions,
                flush.catalog_version,
                flushed_at=flushed_at,
                worker=worker,
                code_version=code_version,
            )
            insert(step, ledger)
        else:
            # Which values a day keeps must be known wherever a state has gone by it, so it is written before any.
            for name in (OVERFLOWS, step) if step == "members" else (step,):
                tables = [table for table in flush.tables[name] if table.num_rows]
                if tables:
                    insert(name, pa.concat_tables(tables))
        reached(step)
