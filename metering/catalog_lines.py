"""Finds the lines on which the mistakes of a catalog stand, once it is known which they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from metering.catalog_text import Token, is_json, tokens
from schemas.problem import Path

_CLOSING: Final = frozenset("]}")


class _Step:
    """A place on the way to a path that is looked for."""

    def __init__(self) -> None:
        self.children: dict[str | int, _Step] = {}
        self.begins: int | None = None


def lines_of(text: str, paths: Iterable[Path]) -> dict[Path, int]:
    """The line of each path, from 1. A missing key is reported where its record begins."""
    wanted = list(paths)
    root = _Step()
    for path in wanted:
        step = root
        for name in path:
            step = step.children.setdefault(name, _Step())
    stream = tokens(text)
    for token in stream:
        _place(token, stream, root)
    begins = {path: _deepest(root, path) for path in wanted}
    if not is_json(text):
        return {path: line + 1 for path, line in begins.items()}
    lines: dict[int, int] = {}
    line, seen = 1, 0
    for offset in sorted(set(begins.values())):
        line, seen = line + text.count("\n", seen, offset), offset
        lines[offset] = line
    return {path: lines[offset] for path, offset in begins.items()}


def _deepest(root: _Step, path: Path) -> int:
    step, found = root, root.begins or 0
    for name in path:
        step = step.children[name]
        if step.begins is None:
            break
        found = step.begins
    return found


def _place(token: Token, stream: Iterator[Token], step: _Step) -> None:
    """Note where a value begins and look on inside it; the stream is then behind it."""
    if step.begins is None:
        step.begins = token[2]
    kind = token[0]
    if kind == "{":
        while (key := next(stream))[0] != "}":
            _child(key[1], stream, step, next(stream))
    elif kind == "[":
        index = 0
        while (value := next(stream))[0] != "]":
            _child(index, stream, step, value)
            index += 1


def _child(name: str | int, stream: Iterator[Token], step: _Step, value: Token) -> None:
    inner = step.children.get(name)
    if inner is not None and inner.begins is None:
        _place(value, stream, inner)
        return
    depth = 1 if value[0] in "{[" else 0
    while depth:
        kind = next(stream)[0]
        if kind in _CLOSING:
            depth -= 1
        elif kind != "s":
            depth += 1
