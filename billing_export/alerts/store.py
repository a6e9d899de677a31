"""What of alerts is on record: those that were found, and what became of their deliveries."""

# ruff: noqa: S608 - the statements are constants, their values server-side parameters
from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from schemas.alert import Alert, Watch

KNOWN_S: Final = 40 * 86_400
"""How long after its period an alert that nobody took is still sent; older ones are left on record."""

_COLUMNS: Final = (
    *("id", "rule", "watch", "customer", "meter", "limit_id", "threshold", "period_start", "period_end"),
    *("limit", "value", "unit", "as_of", "fired_at"),
)
_SELECT: Final = f"""
SELECT {", ".join(f"toString({name})" if name == "id" else name for name in _COLUMNS)} FROM alerts
"""
_KNOWN: Final = "SELECT DISTINCT toString(id) FROM alerts WHERE period_end > {since:DateTime('UTC')}"
_PENDING: Final = f"""{_SELECT}
WHERE period_end > {{since:DateTime('UTC')}}
    AND id NOT IN (SELECT id FROM alert_deliveries WHERE target = {{target:String}})
ORDER BY alerts.fired_at, alerts.threshold, alerts.id LIMIT 1 BY alerts.id
"""
_BY_ID: Final = f"{_SELECT} WHERE id IN {{ids:Array(UUID)}} ORDER BY alerts.fired_at, alerts.id LIMIT 1 BY alerts.id"


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """An alert as it is on record."""

    alert: Alert
    fired_at: datetime


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a target said to an alert, for good: `accepted`, or `failed`."""

    id: str
    state: str
    status: str
    answer: str


def known_ids(client: Client, *, now: datetime) -> set[str]:
    """The alerts on record of periods that run, or ended lately."""
    rows = client.query(_KNOWN, {"since": now - timedelta(seconds=KNOWN_S)}).result_rows
    return {row[0] for row in rows}


def write(client: Client, alerts: Sequence[Alert], *, now: datetime) -> list[Fired]:
    """Put alerts on record, and give what is on record of them: of two who write one, the first is right."""
    for alert in alerts:
        row = [
            *(alert.id, alert.rule, alert.watch.value, alert.customer, alert.meter, alert.limit_id, alert.threshold),
            *(alert.period_start, alert.period_end, alert.limit, alert.value, alert.unit, alert.as_of, now),
        ]
        # One row an insert, as the token is the claim to it.
        settings = {"insert_deduplication_token": f"alert-{alert.id}"}
        client.insert("alerts", [row], column_names=_COLUMNS, settings=settings)
    if not alerts:
        return []
    found = [_fired(row) for row in client.query(_BY_ID, {"ids": [one.id for one in alerts]}).result_rows]
    order = {one.id: place for place, one in enumerate(alerts)}
    return sorted(found, key=lambda one: order[one.alert.id])


def pending(client: Client, target: str, *, now: datetime) -> list[Fired]:
    """What is on record and the target has not answered, oldest first."""
    parameters = {"target": target, "since": now - timedelta(seconds=KNOWN_S)}
    return [_fired(row) for row in client.query(_PENDING, parameters).result_rows]


def write_outcomes(client: Client, target: str, outcomes: Collection[Outcome], *, now: datetime, by: str) -> None:
    """Put on record what a target said."""
    rows = [(one.id, target, one.state, now, one.status, one.answer, by) for one in outcomes]
    if rows:
        columns = ("id", "target", "state", "at", "status", "answer", "by")
        client.insert("alert_deliveries", rows, column_names=columns)


def _fired(row: Sequence[Any]) -> Fired:
    named = dict(zip(_COLUMNS, row, strict=True))
    fired_at = named.pop("fired_at")
    del named["id"]
    named["watch"] = Watch(named["watch"])
    return Fired(alert=Alert(**named), fired_at=fired_at)
