"""What the worker's engine is told, one after the other: a batch to take in, partitions to take over, or to drain."""

from __future__ import annotations

from concurrent.futures import Future

import msgspec

from aggregators.record_batch import RecordBatch


class Assign(msgspec.Struct, frozen=True):
    """Take over partitions: forget everything folded before, read the ledger, answer where to read from."""

    generation: int
    partitions: tuple[int, ...]
    answer: Future[dict[int, int]]


class Drain(msgspec.Struct, frozen=True):
    """Flush everything pending; answered once it is durable."""

    answer: Future[None]


Command = RecordBatch | Assign | Drain
