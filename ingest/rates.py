"""How fast each key may go: a bucket for each that fills with time and is emptied by what the key does. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

BURST_S: Final = 2.0
"""A bucket holds as much as this many seconds give."""

KEYS_MAX: Final = 10_000
"""Buckets kept; one that is dropped is full again, as it would be after a few seconds anyway."""


class Rates:
    """`per_s` units a second for each key, on average; 0 is no limit."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, units: int, now_s: float) -> int:
        """Take units out and return 0; or, where the bucket is empty, take none and return after how many seconds.

        What is more than the bucket holds is let through once and paid back by waiting: a batch cannot be cut.
        """
        if not self._per_s:
            return 0
        full = max(1.0, self._per_s * BURST_S)
        level, at_s = self._buckets.get(key, (full, now_s))
        level = min(full, level + (now_s - at_s) * self._per_s)
        if level <= 0:
            return max(1, math.ceil(-level / self._per_s))
        self._buckets[key] = (level - units, now_s)
        self._buckets.move_to_end(key)
        if len(self._buckets) > KEYS_MAX:
            self._buckets.popitem(last=False)
        return 0
