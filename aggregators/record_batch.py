"""What the worker takes from Kafka at a time: all records one fetch brought for one partition."""

from __future__ import annotations

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
