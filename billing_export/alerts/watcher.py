"""Looks at what was used and spent, and tells what the catalog asks to be told: one turn at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import structlog
from clickhouse_connect.driver.client import Client

from billing_export.alerts.day_watch import DayWatch
from billing_export.alerts.decide import period_alerts, spend_alerts, usage_alerts
from billing_export.alerts.metrics import AlertMetrics
from billing_export.alerts.outbox import Outbox
from billing_export.alerts.periods import running_periods
from billing_export.alerts.spend import SpendWatch
from billing_export.alerts.store import known_ids, write
from billing_export.alerts.targets import Target
from metering.clock import Clock
from metering.entitlements.reader import HeldReader
from schemas.alert import OF_A_DAY, Alert, Watch
from schemas.catalog import AppliedCatalog
from schemas.period import Period

WRITES_A_TURN: Final = 100
"""Each is an insert of its own. When everybody drops at once, neither the claim nor a quota shall wait for that."""

_log = structlog.get_logger(__name__)


class Watcher:
    """Holds what was told before, so that nothing is told twice; on record it is what a successor begins with."""

    def __init__(
        self,
        client: Client,
        reader: HeldReader,
        targets: Sequence[Target],
        days: DayWatch,
        *,
        clock: Clock,
        metrics: AlertMetrics,
        by: str,
    ) -> None:
        self._client = client
        self._reader = reader
        self._days = days
        self._clock = clock
        self._metrics = metrics
        self._known = known_ids(client, now=clock.now())
        self._waiting: dict[str, Alert] = {}
        self._outboxes = [Outbox(client, one, clock=clock, metrics=metrics, by=by) for one in targets]
        self._spend = SpendWatch(client, clock)
        self._periods: dict[str, list[Period]] = {}
        self._periods_until: datetime | None = None
        self._version = 0

    def turn(self) -> None:
        """Look once, put on record what is new, and send what waits. Raises what ClickHouse raises."""
        begun_at_s = self._clock.monotonic_s()
        for alert in self._found():
            if alert.id not in self._known:
                self._waiting.setdefault(alert.id, alert)
        new = sorted(self._waiting.values(), key=lambda alert: alert.watch in OF_A_DAY)[:WRITES_A_TURN]
        fired = write(self._client, new, now=self._clock.now())
        for alert in new:
            self._known.add(alert.id)
            del self._waiting[alert.id]
        for one in fired:
            self._metrics.fired.labels(one.alert.watch.value).inc()
            _log.info(
                "alert_fired",
                alert=one.alert.id,
                rule=one.alert.rule,
                customer=one.alert.customer,
                threshold=one.alert.threshold,
            )
        for outbox in self._outboxes:
            outbox.add(fired)
            outbox.send()
        self._metrics.turn_seconds.observe(self._clock.monotonic_s() - begun_at_s)

    def _found(self) -> Iterator[Alert]:
        held = self._reader.read()
        if held.catalog is None:
            return
        yield from usage_alerts(held)
        rules = held.catalog.catalog.alerts
        watched = {rule.watch for rule in rules}
        if Watch.PERIOD_END in watched:
            yield from period_alerts(rules, self._running(held.catalog, held.as_of), now=held.as_of)
        if Watch.BUDGET in watched:
            yield from spend_alerts(rules, self._spend.spent(held), as_of=held.as_of)
        yield from self._days.found(held)

    def _running(self, catalog: AppliedCatalog, now: datetime) -> dict[str, list[Period]]:
        """The running billing periods by customer; worked out when the catalog changes and when a day may begin."""
        if self._version != catalog.version or self._periods_until is None or now >= self._periods_until:
            self._periods, self._periods_until = running_periods(catalog, now)
            self._version = catalog.version
        return self._periods
