"""Keeps runs in ClickHouse: each state is a row of its own, claimed with an insert token, never edited."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.run import Run, RunState
from schemas.errors import InvariantViolationError, RunError
from schemas.usage_query import Cut, Position

_COLUMNS: Final = [
    "run", "period", "state", "at", "cut", "catalog_version", "forced", "claimed_by", "code_version",
    "lines_count", "lines_digest",
]  # fmt: skip
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM runs"  # noqa: S608 - a constant made of constants


def find(client: Client, period: str) -> Run | None:
    """The period's run in its furthest state, or None while the period is open."""
    rows = client.query(f"{_SELECT} WHERE period = {{period:String}}", {"period": period}).result_rows
    states = [_run(row) for row in rows]
    closed = [one for one in states if one.state is RunState.CLOSED]
    return _only(closed or states, period)


def closed(client: Client, period: str) -> Run:
    """The period's frozen run. Raises RunError while there is none."""
    run = find(client, period)
    if run is None or run.state is not RunState.CLOSED:
        state = "was never closed" if run is None else "is being closed; its lines are not frozen yet"
        raise RunError(f"period {period} {state}", where="runs", fix=f"Run `metering close --period {period}`")
    return run


def listed(client: Client) -> list[Run]:
    """Every run in its furthest state, by period."""
    periods = client.query("SELECT DISTINCT period FROM runs ORDER BY period").result_rows
    found = [find(client, row[0]) for row in periods]
    return [run for run in found if run is not None]


def claim(client: Client, run: Run) -> Run:
    """Write the run down as `closing` unless somebody did so before; returns the run that holds.

    Two closers that claim at the same moment get the same answer: the cut and the catalog of the winner.
    """
    _insert(client, run)
    held = find(client, run.period)
    if held is None:
        raise InvariantViolationError("a run that was just claimed is not there", where=f"runs, {run.id}")
    return held


def freeze(client: Client, run: Run) -> Run:
    """Write the run down as `closed`, after all its lines; returns the run that holds.

    Raises InvariantViolationError when somebody else froze it with other lines.
    """
    _insert(client, run)
    held = closed(client, run.period)
    if (held.lines_count, held.lines_digest) != (run.lines_count, run.lines_digest):
        raise InvariantViolationError(
            f"two closers made different lines for run {run.id}: {held.lines_count} ({held.lines_digest}) "
            f"and {run.lines_count} ({run.lines_digest})",
            where="runs",
            fix=f"Run `metering verify --period {run.period}`",
        )
    return held


def _insert(client: Client, run: Run) -> None:
    """One row; a second insert for the same run and state is dropped by its token, whatever it says."""
    cut = [(one.epoch, one.partition, one.offset) for one in run.cut.positions]
    row = [
        run.id, run.period, run.state.value, run.at, cut, run.catalog_version, int(run.forced), run.claimed_by,
        run.code_version, run.lines_count, run.lines_digest,
    ]  # fmt: skip
    client.insert(
        "runs",
        [row],
        column_names=_COLUMNS,
        settings={"insert_deduplication_token": f"run-{run.id}-{run.state.value}"},
    )


def _only(states: list[Run], period: str) -> Run | None:
    """The one run among rows of one state. Rows that differ mean that an insert token did not hold."""
    if not states:
        return None
    first = states[0]
    for other in states[1:]:
        if msgspec.structs.replace(other, at=first.at) != first:
            raise InvariantViolationError(
                f"period {period} was claimed twice, with different cuts or catalogs",
                where="runs",
                fix="The insert token of runs did not hold: check its non_replicated_deduplication_window",
            )
    return first


def _run(row: Any) -> Run:
    values = dict(zip(_COLUMNS, row, strict=True))
    positions = [tuple(one.values()) if isinstance(one, dict) else tuple(one) for one in values["cut"]]
    return Run(
        id=values["run"],
        period=values["period"],
        state=RunState(values["state"]),
        at=values["at"],
        cut=Cut(positions=tuple(Position(epoch=e, partition=p, offset=o) for e, p, o in positions)),
        catalog_version=values["catalog_version"],
        forced=bool(values["forced"]),
        claimed_by=values["claimed_by"],
        code_version=values["code_version"],
        lines_count=values["lines_count"],
        lines_digest=values["lines_digest"],
    )
