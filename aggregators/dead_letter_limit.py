"""When too much of a partition is rejected for it to be read on. Pure.

The answer depends on the log alone: on which of the last records before an offset were rejected, whichever worker
folded them and in whatever batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec


class DeadLetterLimit(msgspec.Struct, frozen=True, kw_only=True):
    """Passed by more than `letters_max` rejections that are more than `percent_max` percent of the last records.

    `window_records` says how many the last ones are. A `letters_max` of 0 is no limit.
    """

    letters_max: int
    percent_max: int
    window_records: int


class Rejections:
    """The rejected ones among the last records of a partition, from `since` on."""

    def __init__(self, limit: DeadLetterLimit, *, since: int, following: int, rejected: Iterable[int] = ()) -> None:
        """`following` is the offset after the last record, `rejected` has the offsets of rejected ones before it."""
        self._limit = limit
        self._since = since
        self._following = since
        self._rejected: deque[int] = deque()
        self.take(following, rejected)

    def take(self, following: int, rejected: Iterable[int]) -> None:
        """Take in what came up to `following`: the offsets of its rejected records, in order."""
        self._following = following
        self._rejected.extend(rejected)
        first = self._first
        while self._rejected and self._rejected[0] < first:
            self._rejected.popleft()

    @property
    def _first(self) -> int:
        return max(self._since, self._following - self._limit.window_records)

    @property
    def records(self) -> int:
        """How many records are looked back on."""
        return self._following - self._first

    @property
    def rejected(self) -> int:
        """How many of these were rejected."""
        return len(self._rejected)

    @property
    def is_too_many(self) -> bool:
        """Whether the limit is passed."""
        limit = self._limit
        return 0 < limit.letters_max < self.rejected and self.rejected * 100 > limit.percent_max * self.records
