"""What corrections come to, in plain Python over plain names: which event takes which out, when members go.

Says by brute force what the code under test finds with look-ups; shares nothing with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

Place = tuple[str, int, int]
"""(epoch, partition, offset)."""


class Correctable(Protocol):
    """An event with a name of its own, a place in the log, and perhaps the name of the event that it corrects."""

    @property
    def name(self) -> str: ...
    @property
    def corrects(self) -> str | None: ...
    @property
    def place(self) -> Place: ...


class Taken(NamedTuple):
    """That one event takes another out; `is_named` when it names it."""

    name: str
    by: Correctable
    is_named: bool


def taken_out(log: Iterable[Correctable]) -> list[Taken]:
    """Who takes out whom in a log, given in the order of arrival: the last word about a fact counts."""
    names: dict[str, str] = {}  # correction -> what it names
    taken: list[Taken] = []
    for event in log:
        target = event.corrects
        if target is None:
            continue
        root, way = target, {target}
        while root in names and names[root] not in way:
            root = names[root]
            way.add(root)
        # What names this correction is a later word than it, although it came before.
        fact = _below(root, {one: named for one, named in names.items() if one != event.name}, without=event.name)
        earlier = {
            one.name for one in taken if one.by.place[:2] == event.place[:2] and one.by.place[2] < event.place[2]
        }
        found = {target} | (fact - earlier - {event.name})
        taken += [Taken(name, event, name == target) for name in sorted(found)]
        names[event.name] = target
    return taken


def _below(root: str, names: Mapping[str, str], *, without: str) -> set[str]:
    """The root and all that names it, or names what names it."""
    found, size = {root}, 0
    while len(found) > size:
        size = len(found)
        found |= {one for one, named in names.items() if named in found and without not in (one, named)}
    return found


class MemberRow(NamedTuple):
    """One row of `members` but for its key."""

    position: int
    since: int
    gone: int


def member_rows(events: Sequence[tuple[Place, Sequence[Place]]]) -> list[MemberRow]:
    """The rows of a member in one key: `events` brought it, each given with the places of what took it out.

    Of another log or partition a correction has no place in this one, so it ends its event's time where that began;
    that the member was gone later, if it was, is said besides.
    """
    came: list[int] = []
    went: list[int] = []
    said: list[int] = []
    for (epoch, partition, offset), outs in events:
        ends = [out[2] for out in outs if out[:2] == (epoch, partition)]
        if ends and min(ends) <= offset:
            continue
        came.append(offset)
        if len(ends) < len(outs):
            went.append(offset)
            said += [min(ends)] if ends else []
        elif ends:
            went.append(min(ends))
    rows: list[MemberRow] = []
    is_there = False
    for at in sorted({*came, *went, *said}):
        held = sum(one <= at for one in came) - sum(one <= at for one in went)
        flickers = not is_there and not held and at in came
        if is_there != bool(held) or flickers or (at in said and not held):
            if flickers and not rows:
                rows.append(MemberRow(at, 0, 0))
            rows.append(MemberRow(at, at + 1 if rows else 0, int(not held)))
        is_there = bool(held)
    return rows
