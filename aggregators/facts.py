"""Which events a correction takes out: the last word about a fact counts. Pure.

What names an event, and what names a correction of it, is about one fact. A correction takes out the event that it
names and every earlier correction in the log that is about the same fact, except those that name itself: whoever
corrects a correction has the later word, wherever it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from aggregators.dedupe import Identity

Place = tuple[str, int, int]
"""(epoch, partition, offset)."""


class Correction(NamedTuple):
    """An accepted correction: which event it is, which one it names, and where it stands."""

    identity: Identity
    named: Identity
    place: Place


class StoredEvent(NamedTuple):
    """What `corrections` says of an event that is taken out. `time` is UTC."""

    type: str
    time: datetime
    place: Place


class Link(NamedTuple):
    """That an event is taken out; one row of `corrections`."""

    taken: Identity
    by: Correction
    is_named: bool


UNSEEN: Final = StoredEvent("", datetime(1970, 1, 1, tzinfo=UTC), ("", 0, 0))
"""What a row says instead of an event that was not seen yet."""


class TakenRow(NamedTuple):
    """A row of `corrections`; `event` is None while the event that is taken out was not seen."""

    link: Link
    kind: str
    logged_at_ms: int
    event: StoredEvent | None


def take_out(corrections: Sequence[Correction], stored: Iterable[Link]) -> list[Link]:
    """What consecutive corrections of one partition take out, given what `stored` says of the same facts.

    `stored` may hold what comes later in this partition: a worker that reads its log again must not look ahead.
    """
    facts = _Facts()
    first = corrections[0].place
    for link in stored:
        if link.by.place[:2] != first[:2] or link.by.place[2] < first[2]:
            facts.add(link)
    found: list[Link] = []
    for one in corrections:
        taken = facts.named_with(one) - facts.taken_at(first[:2])
        taken.add(one.named)
        links = [Link(identity, one, identity == one.named) for identity in sorted(taken)]
        for link in links:
            facts.add(link)
        found += links
    return found


class _Facts:
    """Who names whom, and what is taken out already."""

    def __init__(self) -> None:
        self._names: dict[Identity, Identity] = {}
        self._named_by: dict[Identity, list[Identity]] = {}
        self._taken: dict[tuple[str, int], set[Identity]] = {}

    def add(self, link: Link) -> None:
        epoch, partition, _ = link.by.place
        self._taken.setdefault((epoch, partition), set()).add(link.taken)
        if link.is_named:
            self._names[link.by.identity] = link.taken
            self._named_by.setdefault(link.taken, []).append(link.by.identity)

    def taken_at(self, partition: tuple[str, int]) -> set[Identity]:
        """What corrections of a partition have taken out so far."""
        return self._taken.get(partition, set())

    def named_with(self, one: Correction) -> set[Identity]:
        """Everything about the fact that a correction is about, but for itself and what names it."""
        root = one.named
        way = {root}
        while (above := self._names.get(root)) is not None and above not in way:
            if above == one.identity:
                return set()  # a circle: all of it names this one
            way.add(above)
            root = above
        found = {root}
        waiting = [root]
        while waiting:
            for identity in self._named_by.get(waiting.pop(), ()):
                if identity != one.identity and identity not in found:
                    found.add(identity)
                    waiting.append(identity)
        return found
