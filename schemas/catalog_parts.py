"""The records of a catalog with the places they stand at, and the names they give: what its rules look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache
from heapq import nsmallest
from typing import Any, Final, TypeAlias, TypeVar, cast, get_args, get_type_hints

import msgspec

from schemas.meter import Aggregation, Meter
from schemas.problem import Path, did_you_mean

Part: TypeAlias = tuple[Path, msgspec.Struct]

T = TypeVar("T", bound=msgspec.Struct)

_LISTED_CHARACTERS_MAX: Final = 200
_GUESSED_NAMES_MAX: Final = 2_000
"""Among more names a misspelt one is not looked for: it would take seconds for each mistake."""
_GUESSES_MAX: Final = 100
"""For more mistakes of a kind no likely name is looked for: they have one cause."""


class Parts:
    """Every record of a catalog with its path, in order, and by type."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self.all = list(parts)
        self._by_type: dict[type[msgspec.Struct], list[Part]] = {}
        for part in self.all:
            self._by_type.setdefault(type(part[1]), []).append(part)

    def of(self, kind: type[T]) -> list[tuple[Path, T]]:
        """The records of one type."""
        return cast("list[tuple[Path, T]]", self._by_type.get(kind, []))

    def balances(self) -> frozenset[str]:
        """The meters that are balances over time, whose usage adds up to no quantity of a period or a day."""
        return frozenset(one.name for _, one in self.of(Meter) if one.aggregation is Aggregation.TIME_WEIGHTED)


class Known:
    """The names there are of a kind of thing, and what is said about a name that is none of them."""

    def __init__(self, noun: str, names: AbstractSet[str]) -> None:
        self.names = names
        self._noun = noun
        self._listed: str | None = None
        self._guesses = 0

    def unknown(self, name: str) -> str:
        """`found 'x', expected a plan (basic, pro); did you mean …?`."""
        if self._listed is None:
            listed = ", ".join(nsmallest(_LISTED_CHARACTERS_MAX, self.names)) or "none"
            cut = len(listed) > _LISTED_CHARACTERS_MAX
            self._listed = listed[:_LISTED_CHARACTERS_MAX] + "…" if cut else listed
        self._guesses += 1
        is_guessed = len(self.names) <= _GUESSED_NAMES_MAX and self._guesses <= _GUESSES_MAX
        hint = did_you_mean(name, self.names) if is_guessed else ""
        return f"found {name!r}, expected a {self._noun} ({self._listed}){hint}"


def parts_below(path: Path, record: msgspec.Struct) -> Iterator[Part]:
    """A record and every record inside it with their paths, outer ones first."""
    yield path, record
    for name, encoded in _inner_fields(type(record)):
        value = getattr(record, name)
        if isinstance(value, msgspec.Struct):
            yield from parts_below((*path, encoded), value)
        elif value:
            for step, item in value.items() if isinstance(value, dict) else enumerate(value):
                yield from parts_below((*path, encoded, step), item)


@lru_cache(maxsize=128)
def _inner_fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    """The fields that can have records inside, with their names in a file."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(
        (field.name, field.encode_name) for field in msgspec.structs.fields(kind) if _has_records(hints[field.name])
    )


def _has_records(kind: Any) -> bool:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return True
    return any(_has_records(one) for one in get_args(kind))
