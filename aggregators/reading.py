"""Whether what Kafka brought goes on where the last fetch of its partition ended. Pure.

A client that fetches in the background may hand over, after a rebalance, what it had fetched before, or lose a fetch
on the way. Counted as read, the offsets between would be events that nobody counts. They are asked for again instead;
only offsets that are missing right after asking for them are missing in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import msgspec


class Follows(Enum):
    """What to do with a fetch."""

    GOES_ON = "goes_on"
    READ_AGAIN = "read_again"
    STALE = "stale"


class Start(msgspec.Struct, frozen=True):
    """`offset` is where its partition is to be read from; for GOES_ON, where the fetch was read from."""

    kind: Follows
    offset: int


class Reading:
    """The offset to be read next of each partition taken over."""

    def __init__(self, starts: Mapping[int, int]) -> None:
        self._next = dict(starts)
        self._asked_again: dict[int, int] = {}

    def restart(self, partition: int, offset: int) -> None:
        """Read a partition from here on, whatever was fetched of it before. One that is gone meanwhile stays gone."""
        if partition in self._next:
            self._next[partition] = offset
            self._asked_again.pop(partition, None)

    def follow(self, partition: int, first: int, last: int) -> Start:
        """Judge a fetch of the offsets `first` to `last`, both with a record; GOES_ON counts it as read.

        After READ_AGAIN the very next fetch of the partition must be judged too: a gap that it shows is believed.
        """
        following = self._next.get(partition)
        if following is None or last < following:
            return Start(Follows.STALE, following or 0)
        if first > following and self._asked_again.get(partition) != following:
            self._asked_again[partition] = following
            return Start(Follows.READ_AGAIN, following)
        self._asked_again.pop(partition, None)
        self._next[partition] = last + 1
        return Start(Follows.GOES_ON, following)
