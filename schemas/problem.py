"""A mistake in a document, as a value: where it stands, what was found and what was expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list positions from the document's root: ("plans", 0, "charges", 2, "meter")."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake. `what` says what was found and what was expected."""

    path: Path
    what: str


def path_text(path: Path) -> str:
    """The path as it is written for people: `plans[0].charges[2].meter`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` or nothing."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
