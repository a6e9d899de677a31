"""Rows of a `time_weighted` meter: a balance that goes on from window to window, integrated over each. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal

from metering.usage.bounds import RowsBound
from metering.usage.question import Question, changes_balance
from metering.usage.tally import Group, row_of
from schemas.meter import Aggregation
from schemas.quantity import ZERO, add
from schemas.rollup import EMPTY, RollupState, integral, time_weighted
from schemas.usage_query import UsageRow

Balances = dict[tuple[str, tuple[str, ...]], Decimal]
"""The balance at the start of the range by (who, asked dimensions)."""


def balance_rows(
    question: Question,
    states: Mapping[Group, RollupState],
    members: Mapping[Group, int],
    opening: Balances,
    bound: RowsBound,
) -> list[UsageRow]:
    """The rows of a question with an opening window.

    A window has a row where events were counted in it or the balance at its start is not zero. A window in which the
    meter aggregates in another way has its ordinary row; its values move the balance only if they are changes.
    """
    windows: dict[tuple[str, tuple[str, ...]], dict[int, RollupState]] = {one: {} for one in opening}
    for group, state in states.items():
        windows.setdefault((group.who, group.asked), {})[group.window] = state
    rows: list[UsageRow] = []
    for (who, asked), found in windows.items():
        for row in _rows_of(question, (who, asked), found, opening.get((who, asked), ZERO), members):
            rows.append(row)
            bound.check(len(rows))
    return rows


def _rows_of(
    question: Question,
    whose: tuple[str, tuple[str, ...]],
    found: Mapping[int, RollupState],
    balance: Decimal,
    members: Mapping[Group, int],
) -> Iterator[UsageRow]:
    who, asked = whose
    first = 1 if question.has_opening else 0
    for window in range(first, question.plan.count):
        state = found.get(window, EMPTY)
        if not state.events_count and not balance:
            continue
        meter = question.meter_of(window)
        if meter.aggregation is Aggregation.TIME_WEIGHTED:
            start, end = question.plan.bounds(window)
            unit_seconds = integral(balance, state, start, end)
            yield UsageRow(
                who=who,
                window_start=start,
                window_end=end,
                dimensions=dict(zip(question.query.group_by, asked, strict=True)),
                quantity=time_weighted(unit_seconds, meter.time_unit),
                events_count=state.events_count,
                digest=state.digest,
                integral=unit_seconds,
            )
        elif state.events_count:
            group = Group(who=who, window=window, asked=asked)
            yield row_of(question, group, state, members.get(group, 0))
        if changes_balance(meter):
            balance = add(balance, state.value_sum)
