"""`metering worker`: fold the log into ClickHouse."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from typing import Annotated

import typer

from aggregators.health import serve_health
from aggregators.worker import Worker
from metering.clock import SystemClock
from metering.config import load_settings
from metering.log import configure_logging

GC_THRESHOLDS = (1_000_000, 10, 100)
"""A worker makes many short-lived objects and few cycles; the default of 700 has it search for cycles all the time."""

SWITCH_INTERVAL_S = 0.02
"""Folding needs the interpreter nearly all the time; handing it around every 5 ms costs more than it gives."""


def worker(
    *,
    accept_log_loss: Annotated[
        bool,
        typer.Option(help="Go on although Kafka dropped records that were never folded; they are recorded as absent."),
    ] = False,
) -> None:
    """Read usage events from Kafka, recognise repeats, and roll them up in ClickHouse, exactly once.

    Start as many as there are partitions to share; each takes over where the ledger ends. SIGTERM or Ctrl-C flushes
    and stops within 20 seconds. Metrics and health are on METERING_WORKER_METRICS_PORT.

    Examples:
      metering worker

      METERING_WORKER_METRICS_PORT=0 metering worker   # a second one on the same machine
    """
    settings = load_settings()
    configure_logging(settings)
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    one = Worker(settings, SystemClock(), accept_log_loss=accept_log_loss)
    with serve_health(settings, one):
        asyncio.run(one.run())
    # All is stored and closed. Giving the memory of what was folded back object by object would take seconds more.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
