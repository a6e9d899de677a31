"""Pauses a partition of which too much is rejected, and lets it go on once somebody says so.

Draining such a partition would turn a mistake that is soon mended, such as a type nobody applied, into dead letters by
the million. What was decided is made durable first; the rest stays in Kafka, and the ledger says where it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog

from aggregators.dead_letter_limit import DeadLetterLimit, Rejections
from aggregators.decide import Decision
from aggregators.record_batch import RecordBatch
from aggregators.store import LedgerEnd
from metering.clock import Clock
from metering.partition_pauses import Pause

log = structlog.get_logger(__name__)

RESUME_POLL_S: Final = 2.0

Told = Callable[[int, frozenset[int], Mapping[int, int]], None]
"""Told the generation, every partition that is paused now, and the offset that each one just resumed goes on from."""


class PauseStore(Protocol):
    """What is kept of pauses; each call takes as long as ClickHouse takes to come back."""

    def last_pauses(self) -> Mapping[int, Pause]: ...
    def rejected_offsets(self, partition: int, first: int, following: int) -> list[int]: ...
    def pause(self, partition: int, offset: int, *, records: int, rejected: int) -> Pause: ...


class Pauses:
    """The pauses of one worker. For the fold thread alone, but for `current`, which anybody may read."""

    def __init__(self, store: PauseStore, limit: DeadLetterLimit, clock: Clock, told: Told) -> None:
        self._store = store
        self._limit = limit
        self._clock = clock
        self._told = told
        self._generation = -1
        self._rejections: dict[int, Rejections] = {}
        self._stands: dict[int, int] = {}
        self._resumed: dict[int, int] = {}
        self._looked_s = float("-inf")
        self.current: Mapping[int, Pause] = {}

    def take_over(self, generation: int, ends: Mapping[int, LedgerEnd]) -> None:
        """Begin with partitions where their ledgers end: paused ones stay paused, and no rejection is forgotten."""
        stored = self._store.last_pauses()
        self._generation = generation
        self._resumed = {}
        self._stands = {number: end.next_offset for number, end in ends.items()}
        self.current = {number: one for number, one in stored.items() if number in ends and not one.is_over}
        self._rejections = {}
        for number, end in ends.items():
            resumed_from = stored[number].resumed_from if number in stored else 0
            begun = min(end.starts.values(), default=end.next_offset)
            since = min(max(begun, resumed_from), end.next_offset)
            first = max(since, end.next_offset - self._limit.window_records)
            rejected = (
                self._store.rejected_offsets(number, first, end.next_offset)
                if self._limit.letters_max and first < end.next_offset
                else []
            )
            self._rejections[number] = Rejections(
                self._limit, since=since, following=end.next_offset, rejected=rejected
            )
        for one in self.current.values():
            log.error("partition is still paused", partition=one.partition, offset=one.offset, what=one.said)
        self._told(generation, frozenset(self.current), {})
        for number, end in ends.items():
            # A life that ended between its last flush and its note leaves the note to this one.
            self.pause_if_too_many(number, end.next_offset, lambda: None)

    def skips(self, batch: RecordBatch) -> bool:
        """Whether a batch is not to be taken in: its partition is paused, or it was fetched before it was resumed."""
        if batch.partition in self.current:
            return True
        offset = self._resumed.get(batch.partition)
        if offset is None:
            return False
        if batch.start > offset:
            return True
        del self._resumed[batch.partition]
        return False

    def take_in(self, decision: Decision) -> None:
        """Count the rejections of a decision that was folded."""
        self._rejections[decision.partition].take(decision.last + 1, (one.offset for one in decision.rejected))

    def pause_if_too_many(self, partition: int, offset: int, make_durable: Callable[[], None]) -> None:
        """Pause a partition at its next offset when its limit is passed; all before it is made durable first."""
        found = self._rejections[partition]
        if partition in self.current or not found.is_too_many:
            return
        make_durable()
        one = self._store.pause(partition, offset, records=found.records, rejected=found.rejected)
        self._stands[partition] = offset
        self.current = {**self.current, partition: one}
        log.error("partition paused", partition=partition, offset=offset, what=one.said)
        self._told(self._generation, frozenset(self.current), {})

    def look(self) -> None:
        """Let those go on that somebody has resumed; asks every RESUME_POLL_S while any is paused."""
        if not self.current or self._clock.monotonic_s() - self._looked_s < RESUME_POLL_S:
            return
        stored = self._store.last_pauses()
        self._looked_s = self._clock.monotonic_s()
        resumed = {
            number: self._stands[number]
            for number, one in self.current.items()
            if number in stored and stored[number].resumed_from >= one.offset
        }
        if not resumed:
            return
        for number, offset in resumed.items():
            self._rejections[number] = Rejections(self._limit, since=offset, following=offset)
            log.info("partition resumed", partition=number, offset=offset)
        self._resumed.update(resumed)
        self.current = {number: one for number, one in self.current.items() if number not in resumed}
        self._told(self._generation, frozenset(self.current), resumed)
