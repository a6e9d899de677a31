"""Reading the fields that meters need out of an event's `data`, as JSON text and as the text they group under. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Raw

from schemas.errors import EventRejectedError
from schemas.usage_event import UsageEvent

TEXT_BYTES_MAX: Final = 1_024
"""Longest value of a dimension or of a counted member."""

SHORT_BYTES_MAX: Final = 64
"""Longest JSON text that is remembered once it was read."""
TEXTS_MAX: Final = 20_000
"""How many of them."""

_NULL: Final = Raw(b"null")
_SCALAR = re.compile(rb'["\-0-9tf]')
decode_text = msgspec.json.Decoder(str).decode
_texts: dict[bytes | None, str] = {}
"""JSON text → what `scalar_text` makes of it, whatever the path; a cache, so that sharing it changes no answer."""


class Fields(dict[str, bytes | None]):
    """The raw JSON text of an event's fields by path, None for none. Meters share groups of dimensions."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], tuple[str, ...]] = {}

    def text(self, path: str) -> str:
        """The text of a field."""
        return known_text(path, self[path])

    def group(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """The texts of several fields."""
        group = self._groups.get(paths)
        if group is None:
            group = self._groups[paths] = tuple([self.text(path) for path in paths])
        return group


class EventReader:
    """Reads the fields that a set of meters needs from an event's `data`, each once, as JSON text.

    Built once a catalog version; `read` costs one msgspec decode into a struct of exactly those fields: `decode`, whose
    attributes `attributes_of` names. `nests` says that some path is read whole and in parts, which `decode` cannot.
    """

    def __init__(self, paths: frozenset[str]) -> None:
        self.paths = tuple(sorted(paths))
        chains = {path: attributes_of(path) for path in self.paths}
        self._plain = [(path, chain[0]) for path, chain in chains.items() if len(chain) == 1]
        self._nested = [(path, chain) for path, chain in chains.items() if len(chain) > 1]
        self.nests = any(long.startswith(f"{short}.") for short in self.paths for long in self.paths)
        self.decode = msgspec.json.Decoder(_struct_for(self.paths, "Data")).decode

    def read(self, event: UsageEvent) -> Fields:
        """The raw JSON text of every path; None where it is absent, null, or its parent is no object."""
        return self.read_data(event.data)

    def read_data(self, text: Raw) -> Fields:
        """`read` for one who has the data alone."""
        if self.nests:
            return self._read_loosely(text)
        try:
            data = self.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return self._read_loosely(text)
        found = Fields()
        for path, attribute in self._plain:
            raw = bytes(getattr(data, attribute))
            found[path] = None if raw == b"null" else raw
        for path, chain in self._nested:
            value: Any = data
            for attribute in chain:
                value = getattr(value, attribute)
                if value is None:
                    break
            found[path] = None if value is None else _given(bytes(value))
        return found

    def _read_loosely(self, text: Raw) -> Fields:
        """The same for data of an unexpected shape (a list, a number), and for paths read whole and in parts."""
        found = Fields()
        for path in self.paths:
            found[path] = _given(_descend(bytes(text), path.split(".")))
        return found


def known_text(path: str, raw: bytes | None) -> str:
    """`scalar_text`; groups and members repeat, so short ones are looked up."""
    text = _texts.get(raw)
    if text is None:
        text = scalar_text(path, raw)
        if raw is not None and len(raw) <= SHORT_BYTES_MAX:
            if len(_texts) >= TEXTS_MAX:
                _texts.clear()
            _texts[raw] = text
    return text


def known_texts(raws: Iterable[bytes | None]) -> list[str | None]:
    """The texts that were read before, None for the others."""
    return list(map(_texts.get, raws))


def scalar_text(path: str, raw: bytes | None) -> str:
    """The text a scalar groups under: a string's content, a number as written, `true`, `false`, '' for none."""
    if raw is None:
        return ""
    if raw[:1] == b'"':
        try:
            text = decode_text(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EventRejectedError("invalid_dimension", f"data.{path}", f"data.{path} is no valid text") from error
    elif _SCALAR.match(raw):
        text = raw.decode("ascii")
    else:
        raise EventRejectedError(
            "invalid_dimension", f"data.{path}", f"data.{path} must be a string, number, boolean or null"
        )
    if len(text) * 4 > TEXT_BYTES_MAX and len(text.encode()) > TEXT_BYTES_MAX:
        raise EventRejectedError(
            "invalid_dimension", f"data.{path}", f"data.{path} is longer than {TEXT_BYTES_MAX} bytes"
        )
    return text


def _given(raw: bytes | None) -> bytes | None:
    return None if raw is None or raw == b"null" else raw


def _descend(raw: bytes, steps: list[str]) -> bytes | None:
    for step in steps:
        if raw[:1] != b"{":
            return None
        members = msgspec.json.decode(raw, type=dict[str, Raw])
        if step not in members:
            return None
        raw = bytes(members[step])
    return raw


def attributes_of(path: str) -> tuple[str, ...]:
    """An attribute name for each step; no two different steps share one, or one meter would read another's value."""
    return tuple(f"f_{step.replace('_', '__').replace('-', '_d')}" for step in path.split("."))


def _struct_for(paths: tuple[str, ...], name: str) -> type[msgspec.Struct]:
    """A struct with just these fields; a step on the way to several paths becomes a struct of its own."""
    children: dict[str, list[str]] = {}
    for path in paths:
        head, _, rest = path.partition(".")
        children.setdefault(head, []).append(rest)
    fields: list[tuple[str, Any, Any]] = []
    renames: dict[str, str] = {}
    for head, rests in children.items():
        attribute = attributes_of(head)[0]
        renames[attribute] = head
        nested = tuple(rest for rest in rests if rest)
        if nested:
            fields.append((attribute, _struct_for(nested, f"{name}_{len(fields)}") | None, None))
        else:
            fields.append((attribute, Raw, _NULL))
    return msgspec.defstruct(name, fields, rename=renames, gc=False)
