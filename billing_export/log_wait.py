"""Waits until the ledger accounts for everything that is in the log, so that a cut leaves nothing out by haste."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from clickhouse_connect.driver.client import Client

from billing_export.cut import ledger_cut
from metering.clock import Clock
from metering.config import Settings
from metering.kafka import log_ends, log_epoch
from schemas.errors import RunError
from schemas.topics import USAGE_EVENTS
from schemas.usage_query import Cut

POLL_INTERVAL_S: Final = 0.2


def unfolded(cut: Cut, epoch: str, ends: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """Records of each partition that the cut does not reach; `ends` are (first kept, next offset) by partition."""
    reached = {one.partition: one.offset + 1 for one in cut.positions if one.epoch == epoch}
    behind = {partition: end - max(first, reached.get(partition, first)) for partition, (first, end) in ends.items()}
    return {partition: count for partition, count in behind.items() if count > 0}


def wait_for_ledger(client: Client, settings: Settings, *, clock: Clock, timeout_s: float) -> None:
    """Return once the ledger accounts for all that the log held at the call.

    Raises RunError when that takes longer than `timeout_s`, KafkaUnavailableError when Kafka cannot be asked.
    """
    epoch, ends = log_epoch(settings, USAGE_EVENTS), log_ends(settings, USAGE_EVENTS)
    deadline_s = clock.monotonic_s() + timeout_s
    while behind := unfolded(ledger_cut(client), epoch, ends):
        if clock.monotonic_s() > deadline_s:
            raise RunError(
                f"{sum(behind.values())} records of the log are not folded yet",
                where=f"{USAGE_EVENTS}, partitions {', '.join(str(one) for one in sorted(behind))}",
                fix="Start a `metering worker`, or close with --no-wait to bill what was folded",
            )
        time.sleep(POLL_INTERVAL_S)
