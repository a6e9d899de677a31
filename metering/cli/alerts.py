"""`metering alerts`: tell what the catalog asks to be told of."""

from __future__ import annotations

import signal
from threading import Event

from prometheus_client import start_http_server

from billing_export.alerts.metrics import AlertMetrics
from billing_export.alerts.service import run_alerts
from billing_export.alerts.targets import targets_of
from billing_export.delivery_claims import this_process
from metering.cli.connection import whoami
from metering.clock import SystemClock
from metering.config import load_settings
from metering.log import configure_logging


def alerts() -> None:
    """Watch quotas, allowances, budgets, the ends of periods and odd days, and tell when the catalog's alerts say so.

    Alerts go to the Kafka topic usage.alerts.v1, and to METERING_ALERTS_WEBHOOK_URL where that is set, signed. Each is
    told once for a threshold and period. Start a second one anywhere: it stands by until the first is gone.

    Examples:
      metering alerts

      METERING_ALERTS_METRICS_PORT=18083 metering alerts
    """
    settings = load_settings()
    configure_logging(settings)
    clock, metrics, stop = SystemClock(), AlertMetrics(), Event()
    exporter = this_process(whoami().partition("@")[0])
    targets = targets_of(settings, clock)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if settings.alerts_metrics_port:
        start_http_server(settings.alerts_metrics_port, settings.alerts_metrics_host, metrics.registry)
    try:
        run_alerts(settings, targets, clock=clock, metrics=metrics, exporter=exporter, stop=stop)
    finally:
        for one in targets:
            one.close()
