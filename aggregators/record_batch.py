"""What the worker takes from Kafka at a time: all records one fetch brought for one partition."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec


class RecordBatch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Records of one partition in offset order. The four sequences are parallel.

    `generation` counts assignments: a batch that was fetched before the last rebalance is stale and must be dropped.
    `timestamps_ms` is when Kafka wrote each record down, in milliseconds since 1970, UTC.
    """

    topic: str
    partition: int
    generation: int
    offsets: Sequence[int]
    timestamps_ms: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]

    def starting_at(self, offset: int) -> RecordBatch:
        """The batch without the records before `offset`, which were taken already."""
        if not self.offsets or self.offsets[0] >= offset:
            return self
        start = bisect_left(self.offsets, offset)
        return RecordBatch(
            topic=self.topic,
            partition=self.partition,
            generation=self.generation,
            offsets=self.offsets[start:],
            timestamps_ms=self.timestamps_ms[start:],
            keys=self.keys[start:],
            values=self.values[start:],
        )
