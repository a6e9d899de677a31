"""`metering up`: the whole stack on this machine."""

from __future__ import annotations

import sys

import typer

from metering.clock import SystemClock
from metering.config import Settings, load_settings
from metering.embedded.supervisor import Supervisor
from metering.prepare import prepare_services
from metering.stack import children


def up() -> None:
    """Start Kafka, ClickHouse, gateway, worker, dashboard and alerts on this machine, and keep them up until Ctrl-C.

    Data stays in METERING_DATA_DIR and is there again at the next start. A part that is pointed elsewhere by a setting
    (METERING_KAFKA_SERVERS, METERING_CLICKHOUSE_URL) is used there instead of being started.

    Examples:
      metering up

      METERING_DATA_DIR=/srv/metering METERING_GATEWAY_PORT=8080 metering up
    """
    settings = load_settings()
    stack = Supervisor(settings, children(settings, python=sys.executable), prepare=_prepare, clock=SystemClock())
    raise typer.Exit(stack.run())


def _prepare(settings: Settings) -> None:
    prepare_services(settings)
