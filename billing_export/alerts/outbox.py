"""Sends what is on record to one target, in order, until it has answered; patiently when it does not."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

import structlog
from clickhouse_connect.driver.client import Client

from billing_export.alerts.metrics import AlertMetrics
from billing_export.alerts.store import Fired, pending, write_outcomes
from billing_export.alerts.targets import Target
from metering.clock import Clock
from schemas.errors import UnavailableError

PAUSE_S_MIN: Final = 1.0
PAUSE_S_MAX: Final = 60.0
SENDS_A_TURN: Final = 20
"""So that a slow target does not keep the next look waiting for long."""

_log = structlog.get_logger(__name__)


class Outbox:
    """What a target is still to get. Begins with what is on record without an answer."""

    def __init__(self, client: Client, target: Target, *, clock: Clock, metrics: AlertMetrics, by: str) -> None:
        self._client = client
        self._target = target
        self._clock = clock
        self._metrics = metrics
        self._by = by
        self._waiting = deque(pending(client, target.name, now=clock.now()))
        self._pause_s = 0.0
        self._not_before_s = 0.0

    def add(self, fired: Iterable[Fired]) -> None:
        """Queue what has come on record."""
        self._waiting += fired

    def send(self) -> None:
        """Send some of what waits. A target that is away is left alone for a while, which doubles each time."""
        for _ in range(SENDS_A_TURN):
            if not self._waiting or self._clock.monotonic_s() < self._not_before_s:
                break
            group = list(islice(self._waiting, self._target.group_max))
            try:
                outcomes = self._target.send(group)
            except UnavailableError as error:
                self._pause_s = min(max(2 * self._pause_s, PAUSE_S_MIN), PAUSE_S_MAX)
                self._not_before_s = self._clock.monotonic_s() + self._pause_s
                _log.warning(
                    "alerts_not_taken",
                    target=self._target.name,
                    waiting=len(self._waiting),
                    detail=str(error),
                    again_in_s=self._pause_s,
                )
                break
            self._pause_s = 0.0
            # Written down after the answer: who is killed in between sends again, with the same id.
            write_outcomes(self._client, self._target.name, outcomes, now=self._clock.now(), by=self._by)
            answered = {one.id for one in outcomes}
            self._waiting = deque(one for one in self._waiting if one.alert.id not in answered)
            for one in outcomes:
                self._metrics.delivered.labels(self._target.name, one.state).inc()
                if one.state == "failed":
                    _log.error("alert_refused", target=self._target.name, alert=one.id, status=one.status)
        self._metrics.pending.labels(self._target.name).set(len(self._waiting))
