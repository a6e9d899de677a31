"""Telling first from repeat. A Bloom filter says "new" for certain; a "maybe" is settled by what is stored.

An event is a duplicate if its identity was accepted elsewhere in the log before. The decision looks at the log alone,
so a replay decides alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from functools import lru_cache
from itertools import islice
from typing import Final

import msgspec
import xxhash
from rbloom import Bloom

Identity = tuple[str, str, str]
"""(subject, source, id)."""

FALSE_POSITIVE_RATE: Final = 0.000_01
CAPACITY_FIRST: Final = 1_000_000
KEYS_AT_A_TIME: Final = 100_000


class Standing(msgspec.Struct, frozen=True, gc=False):
    """Where an accepted event stands, and the digest of its record."""

    epoch: str
    partition: int
    offset: int
    digest: int


def identity_key(identity: Identity) -> int:
    """64 bits that name an identity, each part length-prefixed.

    ClickHouse computes the same as
    `xxh3(concat(toString(length(subject)), ':', subject, toString(length(source)), ':', source, id))`.
    """
    subject, source, id_ = identity
    return xxhash.xxh3_64_intdigest(_prefix(subject, source) + id_.encode())


def identity_keys(subjects: Sequence[str], sources: Sequence[str], ids: Sequence[str]) -> list[int]:
    """`identity_key` of many."""
    if sources and sources.count(sources[0]) == len(sources):
        by_subject = {subject: _prefix(subject, sources[0]) for subject in set(subjects)}
        prefixes = [by_subject[subject] for subject in subjects]
    else:
        prefixes = [_prefix(subject, source) for subject, source in zip(subjects, sources, strict=True)]
    digest = xxhash.xxh3_64_intdigest
    return [digest(prefix + id_.encode()) for prefix, id_ in zip(prefixes, ids, strict=True)]


@lru_cache(maxsize=65_536)
def _prefix(subject: str, source: str) -> bytes:
    subject_bytes, source_bytes = subject.encode(), source.encode()
    return b"%d:%b%d:%b" % (len(subject_bytes), subject_bytes, len(source_bytes), source_bytes)


class KeyFilter:
    """A set of 64-bit keys that may say "maybe" for a key it never saw, but never "no" for one it did.

    Grows by adding filters of twice the size, so that the error stays small and a check stays a few look-ups.
    """

    def __init__(self, capacity: int = CAPACITY_FIRST) -> None:
        self._capacity = capacity
        self._filters = [Bloom(capacity, FALSE_POSITIVE_RATE)]
        self._count_in_last = 0

    def __contains__(self, key: int) -> bool:
        for one in self._filters:  # noqa: SIM110 - a generator for any() would cost as much as the look-up
            if key in one:
                return True
        return False

    def places(self, keys: Sequence[int]) -> list[int]:
        """Where among `keys` those stand that may have been seen."""
        found: list[int] = []
        for one in self._filters:
            found += [place for place, key in enumerate(keys) if key in one]
        return sorted(set(found)) if len(self._filters) > 1 else found

    def add(self, key: int) -> None:
        """Take in one key."""
        self.update((key,))

    def update(self, keys: Iterable[int]) -> None:
        """Take in many keys."""
        if isinstance(keys, Sized) and len(keys) <= self._room():  # as a batch's nearly always do
            self._filters[-1].update(keys)
            self._count_in_last += len(keys)
            return
        waiting = iter(keys)
        while taken := list(islice(waiting, self._room())):
            self._filters[-1].update(taken)
            self._count_in_last += len(taken)

    def _room(self) -> int:
        """How many keys the last filter can take at once, which is a new one when it was full."""
        if self._count_in_last >= self._capacity:
            self._capacity *= 2
            self._filters.append(Bloom(self._capacity, FALSE_POSITIVE_RATE))
            self._count_in_last = 0
        return min(self._capacity - self._count_in_last, KEYS_AT_A_TIME)


def is_repeat(mine: Standing, others: Iterable[Standing]) -> Standing | None:
    """The standing that makes `mine` a repeat, or None when `mine` is the first.

    What is stored at this very offset is this event itself, read a second time, and stays accepted. A standing at a
    later offset of the same log cannot be earlier than this one; any other log or partition was there before.
    """
    earlier: Standing | None = None
    for other in others:
        if other.epoch == mine.epoch and other.partition == mine.partition:
            if other.offset == mine.offset:
                return None
            if other.offset > mine.offset:
                continue
        earlier = other
    return earlier
