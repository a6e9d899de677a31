"""Arrow tables of what a flush writes, column for column as in schemas/clickhouse/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa

from aggregators import arrays
from aggregators.decide import Decision, accepted_events_of
from aggregators.facts import UNSEEN, TakenRow
from aggregators.fold import DayKey, MemberRow, Moment, Series, State, StateKey
from aggregators.recompute import Recomputed
from schemas.quantity import ZERO

SeriesByVersion = Mapping[tuple[str, int], Series]
"""Series by (meter name, meter version)."""


def events_table(decision: Decision) -> pa.Table:
    """Rows of `events`: the accepted ones that are not stored yet."""
    return accepted_events_of(decision).table()


def rollups_table(
    epoch: str, partition: int, states: Sequence[tuple[DayKey, StateKey, State]], series: SeriesByVersion
) -> pa.Table:
    """Rows of `rollups`: the absolute state of each key."""
    values = [state for _, _, state in states]
    return pa.table(
        {
            **_key_columns(epoch, partition, [(day, key) for day, key, _ in states], series),
            "position": pa.array([state.position for state in values], pa.uint64()),
            "events_count": pa.array([state.events_count for state in values], pa.uint64()),
            "value_sum": pa.array([state.value_sum for state in values], arrays.SUM),
            "value_min": pa.array([state.value_min for state in values], arrays.QUANTITY),
            "value_max": pa.array([state.value_max for state in values], arrays.QUANTITY),
            "value_latest": pa.array([state.value_latest for state in values], arrays.QUANTITY),
            "latest_time": arrays.times([state.latest_time_us for state in values]),
            "latest_offset": pa.array([state.latest_offset for state in values], pa.uint64()),
            "digest": arrays.digests(state.digest for state in values),
            "value_moment": _moments(values, series),
        }
    )


def members_table(epoch: str, partition: int, members: Sequence[MemberRow], series: SeriesByVersion) -> pa.Table:
    """Rows of `members`: who came to a key, and who went."""
    return pa.table(
        {
            **_key_columns(epoch, partition, [(row[0], row[1]) for row in members], series),
            "member": pa.array([row[2] for row in members], pa.string()),
            "position": pa.array([row[3] for row in members], pa.uint64()),
            "since": pa.array([row[4] for row in members], pa.uint64()),
            "gone": pa.array([row[5] for row in members], pa.uint8()),
        }
    )


class RecomputedTables(NamedTuple):
    """Rows of `rollups` and `members`."""

    rollups: pa.Table
    members: pa.Table


def recomputed_tables(
    recomputed: Sequence[Recomputed], is_folded: Callable[[Recomputed], bool] = lambda _: False
) -> list[RecomputedTables]:
    """Rows of what was counted again, a pair of tables for each partition and first position of a series.

    The states of which `is_folded` are written with the fold's own; their members are not.
    """
    parts: dict[tuple[tuple[str, int], int], list[Recomputed]] = {}
    for one in recomputed:
        parts.setdefault((one.place, one.series.position_first), []).append(one)
    tables: list[RecomputedTables] = []
    for ((epoch, partition), _), members in parts.items():
        series = {(one.series.name, one.series.number): one.series for one in members}
        states = [(one.day, one.key, one.state) for one in members if not is_folded(one)]
        rows = [row for one in members for row in one.members]
        tables.append(
            RecomputedTables(
                rollups_table(epoch, partition, states, series), members_table(epoch, partition, rows, series)
            )
        )
    return tables


def corrections_table(rows: Sequence[TakenRow]) -> pa.Table:
    """Rows of `corrections`."""
    links = [row.link for row in rows]
    events = [row.event or UNSEEN for row in rows]
    return pa.table(
        {
            "subject": arrays.texts([link.taken[0] for link in links]),
            "source": arrays.texts([link.taken[1] for link in links]),
            "id": arrays.texts([link.taken[2] for link in links]),
            "epoch": arrays.texts([link.by.place[0] for link in links]),
            "partition": pa.array([link.by.place[1] for link in links], pa.uint32()),
            "offset": pa.array([link.by.place[2] for link in links], pa.uint64()),
            "correction_source": arrays.texts([link.by.identity[1] for link in links]),
            "correction_id": arrays.texts([link.by.identity[2] for link in links]),
            "kind": arrays.texts([row.kind for row in rows]),
            "is_named": pa.array([int(link.is_named) for link in links], pa.uint8()),
            "logged_at": pa.array([row.logged_at_ms for row in rows], arrays.MILLISECONDS),
            "event_known": pa.array([int(row.event is not None) for row in rows], pa.uint8()),
            "event_type": arrays.texts([event.type for event in events]),
            "event_time": arrays.times([Moment(event.time).time_us for event in events]),
            "event_epoch": arrays.texts([event.place[0] for event in events]),
            "event_partition": pa.array([event.place[1] for event in events], pa.uint32()),
            "event_offset": pa.array([event.place[2] for event in events], pa.uint64()),
        }
    )


def dead_letters_table(decision: Decision, catalog_version: int) -> pa.Table:
    """Rows of `dead_letters`: the rejected records, whole."""
    rejected = decision.rejected
    count = len(rejected)
    return pa.table(
        {
            "epoch": arrays.constant(decision.epoch, count, pa.string()),
            "topic": arrays.constant(decision.topic, count, pa.string()),
            "partition": arrays.constant(decision.partition, count, pa.uint32()),
            "offset": pa.array([one.offset for one in rejected], pa.uint64()),
            "reason": pa.array([one.reason for one in rejected], pa.string()),
            "field": pa.array([one.field for one in rejected], pa.string()),
            "detail": pa.array([one.detail.encode("utf-8", "backslashreplace") for one in rejected], pa.binary()),
            "key": pa.array([one.key for one in rejected], pa.binary()),
            "raw": pa.array([one.raw for one in rejected], pa.binary()),
            "logged_at": pa.array([one.logged_at_ms for one in rejected], arrays.MILLISECONDS),
            "catalog_version": arrays.constant(catalog_version, count, pa.uint32()),
        }
    )


def positions_table(
    decisions: Sequence[Decision], catalog_version: int, *, flushed_at: datetime, worker: str, code_version: str
) -> pa.Table:
    """Rows of `positions`: the ledger's entry for each decided batch."""
    count = len(decisions)
    return pa.table(
        {
            "epoch": pa.array([one.epoch for one in decisions], pa.string()),
            "topic": pa.array([one.topic for one in decisions], pa.string()),
            "partition": pa.array([one.partition for one in decisions], pa.uint32()),
            "first": pa.array([one.first for one in decisions], pa.uint64()),
            "last": pa.array([one.last for one in decisions], pa.uint64()),
            "accepted": pa.array([len(one.accepted) for one in decisions], pa.uint64()),
            "duplicate": pa.array([one.duplicate for one in decisions], pa.uint64()),
            "rejected": pa.array([len(one.rejected) for one in decisions], pa.uint64()),
            "absent": pa.array([one.absent for one in decisions], pa.uint64()),
            "digest": arrays.digests(accepted_events_of(one).digest for one in decisions),
            "catalog_version": arrays.constant(catalog_version, count, pa.uint32()),
            "logged_at_last": pa.array([one.logged_at_last_ms for one in decisions], arrays.MILLISECONDS),
            "flushed_at": arrays.constant(flushed_at, count, arrays.MILLISECONDS),
            "worker": arrays.constant(worker, count, pa.string()),
            "code_version": arrays.constant(code_version, count, pa.string()),
        }
    )


def _key_columns(
    epoch: str, partition: int, keys: Sequence[tuple[DayKey, StateKey]], series: SeriesByVersion
) -> dict[str, Any]:
    count = len(keys)
    first = {version: one.position_first for version, one in series.items()}
    return {
        "meter": arrays.texts([key[0] for _, key in keys]),
        "subject": arrays.texts([day[0] for day, _ in keys]),
        "window_start": pa.array([key[2] for _, key in keys], pa.int64()).cast(arrays.SECONDS),
        "dimensions": _dimensions([key for _, key in keys], series),
        "meter_version": pa.array([key[1] for _, key in keys], pa.uint32()),
        "epoch": arrays.constant(epoch, count, pa.string()),
        "partition": arrays.constant(partition, count, pa.uint32()),
        "position_first": pa.array([first[key[0], key[1]] for _, key in keys], pa.uint64()),
    }


def _moments(states: Sequence[State], series: SeriesByVersion) -> pa.Array:
    """Few meters are weighted by time; for the others one zero is converted."""
    if any(one.folds_moments for one in series.values()):
        return pa.array([state.value_moment for state in states], arrays.MOMENT)
    return arrays.constant(ZERO, len(states), arrays.MOMENT)


def _dimensions(keys: Sequence[StateKey], series: SeriesByVersion) -> pa.Array:
    names = {version: one.dimension_names for version, one in series.items()}
    offsets = [0]
    flat_names: list[str] = []
    flat_values: list[str] = []
    for key in keys:
        flat_names += names[key[0], key[1]]
        flat_values += key[3]
        offsets.append(len(flat_values))
    return pa.MapArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(flat_names, pa.string()), pa.array(flat_values, pa.string())
    )
