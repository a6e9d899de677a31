"""Notices a partition that has records to read and does not move on, whatever the reason. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping


class Standstill:
    """Looks at positions again and again, and remembers since when each has stood where it is."""

    def __init__(self) -> None:
        self._stood: dict[int, tuple[int, float]] = {}

    def look(
        self, positions: Mapping[int, int], ends: Mapping[int, int], now_s: float, *, paused: Container[int] = ()
    ) -> float:
        """How long, in seconds, the partition that has stood longest has not moved although there is more to read.

        `positions` has the next offset to fold of each assigned partition, `ends` the next offset to be written.
        Those that are `paused` are meant to stand.
        """
        lagging = {number: at for number, at in positions.items() if at < ends.get(number, at) and number not in paused}
        self._stood = {
            number: known if (known := self._stood.get(number)) is not None and known[0] == at else (at, now_s)
            for number, at in lagging.items()
        }
        return max((now_s - since_s for _, since_s in self._stood.values()), default=0.0)
