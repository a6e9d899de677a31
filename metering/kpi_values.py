"""KPIs and their goals, read from the views that define them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

import msgspec
from clickhouse_connect.driver.client import Client

from schemas.quantity import parse_quantity


class KpiValue(msgspec.Struct, frozen=True, kw_only=True):
    """A KPI of a month, in its own unit; `value` is None where there is no answer, `currency` may be empty."""

    month: date
    kpi: str
    currency: str
    value: Decimal | None


class GoalState(msgspec.Struct, frozen=True, kw_only=True):
    """A goal in a month: `state` is on_track, at_risk, missed or unknown."""

    goal: str
    month: date
    kpi: str
    currency: str
    value: Decimal | None
    direction: str
    target: Decimal
    tolerance: Decimal
    missing: Decimal | None
    state: str


def kpi_values(client: Client, *, since: date) -> list[KpiValue]:
    """Every KPI of every month from `since` on, by KPI, currency and month."""
    rows = client.query(
        "SELECT month, kpi, currency, toString(value) FROM kpi_values WHERE month >= {since:Date} "
        "ORDER BY kpi, currency, month",
        {"since": since},
    ).result_rows
    return [
        KpiValue(month=month, kpi=kpi, currency=currency, value=_number(value)) for month, kpi, currency, value in rows
    ]


def goal_states(client: Client, *, since: date) -> list[GoalState]:
    """Every goal in every month from `since` on, by goal and month."""
    rows: Sequence[Sequence[object]] = client.query(
        "SELECT goal, month, kpi, currency, toString(value), direction, toString(target), toString(tolerance), "
        "toString(missing), state FROM kpi_goals WHERE month >= {since:Date} ORDER BY goal, month",
        {"since": since},
    ).result_rows
    numbers = {"value", "target", "tolerance", "missing"}
    return [
        msgspec.convert(
            {
                name: _number(value) if name in numbers else value
                for name, value in zip(GoalState.__struct_fields__, row, strict=True)
            },
            GoalState,
        )
        for row in rows
    ]


def _number(text: object) -> Decimal | None:
    return None if text is None else parse_quantity(str(text))
