"""Knows up to which moment the log has been counted: what is only late must not be taken for what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, TypeAlias

import structlog

from metering.clock import Clock
from metering.config import Settings
from metering.entitlements.progress import Place
from metering.kafka import log_ends, log_epoch
from schemas.errors import MeteringError
from schemas.topics import USAGE_EVENTS

AGAIN_S: Final = 60.0
"""How long Kafka is left alone when it did not answer: it is asked within a turn, and others wait for that."""

LogEnds: TypeAlias = tuple[str, Mapping[int, tuple[int, int]]]
"""The epoch of the log, and (first kept, next offset) by partition."""

_log = structlog.get_logger(__name__)


def log_now(settings: Settings) -> LogEnds:
    """How far the log is. Raises KafkaUnavailableError, or RequestError where there is no topic."""
    return log_epoch(settings, USAGE_EVENTS), log_ends(settings, USAGE_EVENTS)


def is_counted(ledger: Mapping[Place, int], log: LogEnds) -> bool:
    """Whether a ledger, by the last offset of each place, has all that a log held. Pure."""
    epoch, ends = log
    return all(ledger.get((epoch, partition), first - 1) + 1 >= end for partition, (first, end) in ends.items())


class LogReach:
    """Remembers how far the log was at a moment, and waits until the ledger has come there."""

    def __init__(self, ends: Callable[[], LogEnds], clock: Clock) -> None:
        self._ends = ends
        self._clock = clock
        self._log: LogEnds | None = None
        self._asked_at: datetime | None = None
        self._reached_at: datetime | None = None
        self._not_before_s = 0.0

    def has(self, since: datetime, ledger: Mapping[Place, int]) -> bool:
        """Whether all that was written to the log before `since`, which is past, has been counted."""
        if self._reached_at is not None and self._reached_at >= since:
            return True
        if self._asked_at is None or self._asked_at < since:
            self._ask()
        if self._log is None or self._asked_at is None or not is_counted(ledger, self._log):
            return False
        self._reached_at = self._asked_at
        return self._reached_at >= since

    def _ask(self) -> None:
        if self._clock.monotonic_s() < self._not_before_s:
            return
        asked_at = self._clock.now()
        try:
            self._log = self._ends()
        except MeteringError as error:
            self._not_before_s = self._clock.monotonic_s() + AGAIN_S
            _log.warning("alerts_log_not_asked", detail=str(error), again_in_s=AGAIN_S)
        else:
            self._asked_at = asked_at
