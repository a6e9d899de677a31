"""Arrow tables of what a flush writes, column for column as in schemas/clickhouse/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from aggregators import arrays
from aggregators.decide import Decision, accepted_events_of
from aggregators.fold import DayKey, Series, State, StateKey

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
        }
    )


def members_table(
    epoch: str, partition: int, members: Sequence[tuple[DayKey, StateKey, str, int]], series: SeriesByVersion
) -> pa.Table:
    """Rows of `members`: values seen for the first time in their key."""
    return pa.table(
        {
            **_key_columns(epoch, partition, [(day, key) for day, key, _, _ in members], series),
            "member": pa.array([member for _, _, member, _ in members], pa.string()),
            "position": pa.array([position for _, _, _, position in members], pa.uint64()),
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
