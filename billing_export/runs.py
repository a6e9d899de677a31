"""Keeps runs in ClickHouse: one log, each state a row of its own, claimed with an insert token, never edited."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.run import Run, RunKind, RunState
from schemas.errors import InvariantViolationError, RunError
from schemas.usage_query import Cut, Position

_COLUMNS: Final = [
    "run", "sequence", "period", "number", "kind", "customers", "state", "at", "cut", "catalog_version", "forced",
    "claimed_by", "code_version", "lines_count", "lines_digest",
]  # fmt: skip
_SELECT: Final = f"SELECT {', '.join(_COLUMNS)} FROM runs"  # noqa: S608 - a constant made of constants
_ORDER: Final = (RunState.CLOSING, RunState.CLOSED, RunState.EXPORTED)


def listed(client: Client) -> list[Run]:
    """Every run in its furthest state, in the order of the log."""
    return _furthest(client.query(_SELECT).result_rows)


def of_period(client: Client, period: str) -> list[Run]:
    """The period's runs in their furthest states, in the order of the log."""
    return _furthest(client.query(f"{_SELECT} WHERE period = {{period:String}}", {"period": period}).result_rows)


def find(client: Client, period: str) -> Run | None:
    """The period's newest run in its furthest state, or None while the period is open."""
    found = of_period(client, period)
    return found[-1] if found else None


def by_id(client: Client, run: str) -> Run:
    """The run with this id, such as 2013-01.1. Raises RunError when there is none."""
    found = _furthest(client.query(f"{_SELECT} WHERE run = {{run:String}}", {"run": run}).result_rows)
    if not found:
        raise RunError(f"there is no run {run}", where="runs", fix="Close a period first; an id is such as 2013-01.1")
    return found[0]


def frozen(client: Client, period: str) -> list[Run]:
    """The period's frozen runs, in the order of the log. Raises RunError when there is none, or one is unfinished."""
    found = of_period(client, period)
    unfinished_runs = [one for one in found if not one.is_frozen]
    if not found or unfinished_runs:
        state = "is being closed; its lines are not frozen yet" if found else "was never closed"
        raise RunError(f"period {period} {state}", where="runs", fix=f"Run `metering close --period {period}`")
    return found


def closed(client: Client, period: str) -> Run:
    """The period's newest frozen run. Raises RunError as `frozen` does."""
    return frozen(client, period)[-1]


def closed_at(client: Client, run: Run) -> datetime:
    """When a frozen run was frozen, UTC; `run.at` is later than that for one that was exported since."""
    rows = client.query(
        f"{_SELECT} WHERE run = {{run:String}} AND state = {{state:String}}",
        {"run": run.id, "state": RunState.CLOSED.value},
    ).result_rows
    return _run(rows[0]).at if rows else run.at


def unfinished(client: Client) -> list[Run]:
    """Runs that were claimed and are not frozen, in the order of the log."""
    return [one for one in listed(client) if not one.is_frozen]


def claim(client: Client, run: Run) -> Run:
    """Write the run down as `closing` unless its place in the log is taken; returns the run that holds the place.

    Two closers that claim one place get the same answer: the run of the winner, with its cut and its catalog.
    """
    _insert(client, run, token=f"run-sequence-{run.sequence}")
    rows = client.query(f"{_SELECT} WHERE sequence = {{sequence:UInt32}}", {"sequence": run.sequence}).result_rows
    held = _furthest(rows)
    if len(held) != 1:
        raise InvariantViolationError(
            f"place {run.sequence} of the log of runs is held by {', '.join(one.id for one in held) or 'nobody'}",
            where="runs",
            fix="The insert token of runs did not hold: check its non_replicated_deduplication_window",
        )
    return held[0]


def freeze(client: Client, run: Run) -> Run:
    """Write the run down as `closed`, after all its lines; returns the run that holds.

    Raises InvariantViolationError when somebody else froze it with other lines.
    """
    _insert(client, run, token=f"run-{run.id}-{run.state.value}")
    held = by_id(client, run.id)
    if (held.lines_count, held.lines_digest) != (run.lines_count, run.lines_digest):
        raise InvariantViolationError(
            f"two closers made different lines for run {run.id}: {held.lines_count} ({held.lines_digest}) "
            f"and {run.lines_count} ({run.lines_digest})",
            where="runs",
            fix=f"Run `metering verify --period {run.period}`",
        )
    return held


def mark_exported(client: Client, run: Run, at: datetime) -> Run:
    """Write down that all lines of a frozen run were delivered; a second time changes nothing.

    Raises RunError for a run that is not frozen.
    """
    if not run.is_frozen:
        raise RunError(f"run {run.id} is not frozen", where="runs", fix=f"Run `metering close --period {run.period}`")
    if run.state is not RunState.EXPORTED:
        exported = msgspec.structs.replace(run, state=RunState.EXPORTED, at=at)
        _insert(client, exported, token=f"run-{run.id}-{exported.state.value}")
    return by_id(client, run.id)


def _insert(client: Client, run: Run, *, token: str) -> None:
    """One row; a second insert with the same token is dropped, whatever it says."""
    cut = [(one.epoch, one.partition, one.offset) for one in run.cut.positions]
    row = [
        run.id, run.sequence, run.period, run.number, run.kind.value, list(run.customers), run.state.value, run.at, cut,
        run.catalog_version, int(run.forced), run.claimed_by, run.code_version, run.lines_count, run.lines_digest,
    ]  # fmt: skip
    client.insert("runs", [row], column_names=_COLUMNS, settings={"insert_deduplication_token": token})


def _furthest(rows: Iterable[Any]) -> list[Run]:
    """Each run in its furthest state, in the order of the log."""
    states: dict[str, dict[RunState, list[Run]]] = {}
    for row in rows:
        one = _run(row)
        states.setdefault(one.id, {}).setdefault(one.state, []).append(one)
    found = [_only(of_run) for of_run in states.values()]
    return sorted(found, key=lambda one: (one.sequence, one.period, one.number))


def _only(of_run: Mapping[RunState, list[Run]]) -> Run:
    """The one row of the furthest state. Rows that differ mean that an insert token did not hold."""
    furthest = of_run[max(of_run, key=_ORDER.index)]
    first = furthest[0]
    for other in furthest[1:]:
        if msgspec.structs.replace(other, at=first.at) != first:
            raise InvariantViolationError(
                f"run {first.id} was claimed twice, with different cuts or catalogs",
                where="runs",
                fix="The insert token of runs did not hold: check its non_replicated_deduplication_window",
            )
    return first


def _run(row: Any) -> Run:
    values = dict(zip(_COLUMNS, row, strict=True))
    positions = [tuple(one.values()) if isinstance(one, dict) else tuple(one) for one in values["cut"]]
    return Run(
        id=values["run"],
        sequence=values["sequence"],
        period=values["period"],
        number=values["number"],
        kind=RunKind(values["kind"]),
        customers=tuple(values["customers"]),
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
