"""What the worker takes from Kafka at a time: all records one fetch brought for one partition."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from schemas.errors import InvariantViolationError


class RecordBatch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Records of one partition in offset order. The four sequences are parallel.

    `generation` counts assignments: a batch that was fetched before the last rebalance is stale and must be dropped.
    `start` is the offset that the log was read from: offsets from there on that have no record here have none in Kafka.
    `timestamps_ms` is when Kafka wrote each record down, in milliseconds since 1970, UTC.
    """

    topic: str
    partition: int
    generation: int
    start: int
    offsets: Sequence[int]
    timestamps_ms: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]

    def starting_at(self, offset: int) -> RecordBatch:
        """The batch without the records before `offset`, which were taken already.

        Raises InvariantViolationError when it was read from beyond `offset`: what lies between was never handed over.
        """
        if self.start > offset:
            raise InvariantViolationError(
                f"partition {self.partition} is due from offset {offset}, but what came was read from {self.start}: "
                "a batch was lost on its way"
            )
        if not self.offsets or self.offsets[0] >= offset:
            return self
        at = bisect_left(self.offsets, offset)
        return RecordBatch(
            topic=self.topic,
            partition=self.partition,
            generation=self.generation,
            start=offset,
            offsets=self.offsets[at:],
            timestamps_ms=self.timestamps_ms[at:],
            keys=self.keys[at:],
            values=self.values[at:],
        )
