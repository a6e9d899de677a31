"""Settling which events of a batch are repeats: of what was accepted before it, and of one another."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from aggregators.accepted import AcceptedRows
from aggregators.dedupe import Identity, Standing, is_repeat
from schemas.errors import EventRejectedError
from schemas.usage_event import EventColumns

Lookup = Callable[[Sequence[Identity]], Mapping[Identity, Sequence[Standing]]]
"""Asks the store where identities stand; identities that stand nowhere are absent from the answer."""


class Repeats:
    """The events of one batch, by row: which are repeats, which contradict an earlier one, which are stored already.

    `repeated` and `conflicts` are settled for good. `stored` are no repeats of anything that came before the batch.
    """

    def __init__(
        self,
        events: EventColumns,
        keys: Sequence[int],
        *,
        epoch: str,
        partition: int,
        offsets: Sequence[int],
        digests: Sequence[int],
    ) -> None:
        """The sequences are parallel; `keys` are the identity keys."""
        self._epoch = epoch
        self._partition = partition
        self._events = events
        self._keys = keys
        self._offsets = offsets
        self._digests = digests
        self.repeated: set[int] = set()
        self.conflicts: dict[int, EventRejectedError] = {}
        self.stored: set[int] = set()

    @property
    def settled(self) -> set[int]:
        """Rows whose meters need not be asked by the newest catalog."""
        return self.repeated | self.conflicts.keys() | self.stored

    def against_earlier(self, suspects: Sequence[int], unflushed: Sequence[AcceptedRows], lookup: Lookup) -> None:
        """Settle rows that may have been accepted before: what is not flushed yet is known, the rest is looked up."""
        asked: dict[int, Identity] = {}
        for row in suspects:
            identity = self._events.identity(row)
            earlier = next(
                (found for one in unflushed if (found := one.find(self._keys[row], identity)) is not None), None
            )
            if earlier is None:
                asked[row] = identity
            else:
                self._settle(row, earlier)
        standings = lookup(list(dict.fromkeys(asked.values()))) if asked else {}
        for row, identity in asked.items():
            mine = self._standing(row)
            others = standings.get(identity, ())
            earlier = is_repeat(mine, others)
            if earlier is not None:
                self._settle(row, earlier)
            elif mine in others:
                self.stored.add(row)

    def among_themselves(self, refused: Container[int]) -> None:
        """Settle rows that repeat an earlier row of the batch, unless that one was refused."""
        if len(set(self._keys)) == len(self._keys):
            return
        first: dict[Identity, int] = {}
        for row in range(len(self._keys)):
            if row in self.repeated or row in self.conflicts:
                continue
            identity = self._events.identity(row)
            if identity in first:
                self._settle(row, self._standing(first[identity]))
            elif row not in refused:
                first[identity] = row

    def _settle(self, row: int, earlier: Standing) -> None:
        self.stored.discard(row)
        if earlier.digest == self._digests[row]:
            self.repeated.add(row)
        else:
            self.conflicts[row] = EventRejectedError(
                "identity_conflict",
                "id",
                f"the event at partition {earlier.partition}, offset {earlier.offset} has this identity "
                "and another body",
            )

    def _standing(self, row: int) -> Standing:
        return Standing(self._epoch, self._partition, self._offsets[row], self._digests[row])
