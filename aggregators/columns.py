"""Arrow tables of what a flush writes, column for column as in schemas/clickhouse/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa

from aggregators import arrays
from aggregators.decide import Decision, accepted_events_of
from aggregators.facts import UNSEEN, TakenRow
from aggregators.recompute import Recomputed
from aggregators.state import MemberRow, Moment, Series, StateRow, Version
from schemas.quantity import ZERO

SeriesByVersion = Mapping[Version, Series]
"""Series by (meter name, meter version)."""


def events_table(decision: Decision) -> pa.Table:
    """Rows of `events`: the accepted ones that are not stored yet."""
    return accepted_events_of(decision).table()


def rollups_table(
    epoch: str, partition: int, states: Mapping[Version, Sequence[StateRow]], series: SeriesByVersion
) -> pa.Table:
    """Rows of `rollups`: the absolute state of each key."""
    parts = [_rollups(None, [])]
    for version, rows in states.items():
        one = series[version]
        if one.folds_values:
            # What saw one event has one number, which is converted once for its four columns.
            alone = [row for row in rows if row[2].events_count == 1 and row[2].value_sum is row[2].value_latest]
            rest = [row for row in rows if row[2].events_count != 1 or row[2].value_sum is not row[2].value_latest]
            parts += [_rollups(one, alone, have_one_value=True), _rollups(one, rest)]
        else:
            parts.append(_rollups(one, rows))
    return _placed(parts, epoch, partition)


def members_table(
    epoch: str, partition: int, members: Mapping[Version, Sequence[MemberRow]], series: SeriesByVersion
) -> pa.Table:
    """Rows of `members`: who came to a key, and who went."""
    parts = [_members(series[version], rows) for version, rows in members.items()]
    return _placed([_members(None, []), *parts], epoch, partition)


def _rollups(series: Series | None, rows: Sequence[StateRow], *, have_one_value: bool = False) -> pa.Table:
    states = [state for _, _, state in rows]
    count = len(states)
    columns = {
        **_key_columns(series, rows),
        "position": pa.array([state.position for state in states], pa.uint64()),
        "events_count": pa.array([state.events_count for state in states], pa.uint64()),
        "digest": arrays.digests([state.digest for state in states]),
    }
    if series is None or not series.folds_values:
        nothing, none = arrays.constant(ZERO, count, arrays.SUM), arrays.constant(None, count, arrays.QUANTITY)
        columns |= {"value_sum": nothing, "value_min": none, "value_max": none, "value_latest": none}
    else:
        latest = pa.array([state.value_latest for state in states], arrays.QUANTITY)
        if have_one_value:
            columns |= {"value_sum": latest.cast(arrays.SUM), "value_min": latest, "value_max": latest}
        else:
            columns["value_sum"] = pa.array([state.value_sum for state in states], arrays.SUM)
            columns["value_min"] = pa.array([state.value_min for state in states], arrays.QUANTITY)
            columns["value_max"] = pa.array([state.value_max for state in states], arrays.QUANTITY)
        columns["value_latest"] = latest
    columns["latest_time"] = arrays.times([state.latest_time_us for state in states])
    columns["latest_offset"] = pa.array([state.latest_offset for state in states], pa.uint64())
    columns["value_moment"] = (
        pa.array([state.value_moment for state in states], arrays.MOMENT)
        if series is not None and series.folds_moments
        else arrays.constant(ZERO, count, arrays.MOMENT)
    )
    return pa.table(columns)


def _members(series: Series | None, members: Sequence[MemberRow]) -> pa.Table:
    return pa.table(
        {
            **_key_columns(series, members),
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
        states: dict[Version, list[StateRow]] = {version: [] for version in series}
        rows: dict[Version, list[MemberRow]] = {version: [] for version in series}
        for one in members:
            rows[one.key[:2]] += one.members
            if not is_folded(one):
                states[one.key[:2]].append((one.day, one.key, one.state))
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


def _key_columns(series: Series | None, rows: Sequence[StateRow] | Sequence[MemberRow]) -> dict[str, Any]:
    """The columns that name a key, of rows of one series; no series, no rows."""
    count = len(rows)
    name, number, first, dimension_names = ("", 0, 0, []) if series is None else _named(series)
    return {
        "meter": arrays.constant(name, count, pa.string()),
        "subject": pa.array([row[0][0] for row in rows], pa.string()),
        "window_start": pa.array([row[1][2] for row in rows], pa.int64()).cast(arrays.SECONDS),
        "dimensions": _dimensions(dimension_names, [row[1][3] for row in rows]),
        "meter_version": arrays.constant(number, count, pa.uint32()),
        "position_first": arrays.constant(first, count, pa.uint64()),
    }


def _named(series: Series) -> tuple[str, int, int, list[str]]:
    return series.name, series.number, series.position_first, series.dimension_names


def _dimensions(names: list[str], values: Sequence[tuple[str, ...]]) -> pa.Array:
    return pa.MapArray.from_arrays(
        pa.array(range(0, len(names) * len(values) + 1, len(names)) if names else [0] * (len(values) + 1), pa.int32()),
        pa.array(names * len(values), pa.string()),
        pa.array(list(chain.from_iterable(values)), pa.string()),
    )


def _placed(parts: Sequence[pa.Table], epoch: str, partition: int) -> pa.Table:
    """Together, with the partition that they are of."""
    table = pa.concat_tables(parts)
    table = table.append_column("epoch", arrays.constant(epoch, table.num_rows, pa.string()))
    return table.append_column("partition", arrays.constant(partition, table.num_rows, pa.uint32()))
