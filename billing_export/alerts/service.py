"""Runs the watcher for as long as it is asked to, in one process at a time; others stand by."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from threading import Event
from typing import Final

import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError

from billing_export.alerts.day_watch import DayWatch
from billing_export.alerts.log_reach import log_now
from billing_export.alerts.metrics import AlertMetrics
from billing_export.alerts.targets import Target
from billing_export.alerts.watcher import Watcher
from billing_export.delivery_claims import Claim, Exporter
from metering.clickhouse import connect, unavailable
from metering.clock import Clock
from metering.cluster_client import refuse_other_shape
from metering.config import Settings
from metering.entitlements.reader import HeldReader
from schemas.errors import MeteringError, RunError

CLAIM: Final = "alerts"
STANDBY_S: Final = 2.0
RETRY_S: Final = 2.0

_log = structlog.get_logger(__name__)


def run_alerts(
    settings: Settings,
    targets: Sequence[Target],
    *,
    clock: Clock,
    metrics: AlertMetrics,
    exporter: Exporter,
    stop: Event,
) -> None:
    """Look every `alerts_interval_s` until `stop` is set, whenever no other process does.

    What it was in the middle of when ClickHouse went away, or another took over, is found again: alerts on record are
    not put there twice, and those without an answer are sent again with the same id.
    """
    is_failing = is_standing_by = False
    while not stop.is_set():
        try:
            with unavailable(settings):
                client = connect(settings)
                try:
                    refuse_other_shape(client, settings.clickhouse_cluster)
                    claim = Claim(
                        client, target=CLAIM, run=CLAIM, exporter=exporter, clock=clock, lease_s=settings.alerts_lease_s
                    )
                    with claim:
                        _log.info("alerts_active")
                        is_failing = is_standing_by = False
                        metrics.active.set(1)
                        reader = HeldReader(settings, clock)
                        days = DayWatch(
                            client, clock, ends=partial(log_now, settings), rows_max=settings.entitlements_max
                        )
                        watcher = Watcher(client, reader, targets, days, clock=clock, metrics=metrics, by=str(exporter))
                        while not stop.is_set():
                            claim.renew()
                            watcher.turn()
                            stop.wait(settings.alerts_interval_s)
                finally:
                    metrics.active.set(0)
                    client.close()
        except RunError as error:
            if not is_standing_by:
                _log.info("alerts_standing_by", detail=str(error))
            is_standing_by = True
            stop.wait(STANDBY_S)
        except (MeteringError, ClickHouseError, OSError) as error:
            metrics.failures.inc()
            if not is_failing:
                _log.warning("alerts_turn_failed", detail=str(error))
            is_failing = True
            stop.wait(RETRY_S)
