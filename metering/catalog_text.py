"""Takes a catalog's text apart: YAML or JSON in, mappings, lists and texts out, and afterwards the lines they stand on.

Every scalar stays the text that stands in the file: 1.10 is 1.10, NO is NO, and no float ever exists. YAML is read
by libyaml's events, JSON by Python's own scanner, so that a hundred thousand customers take seconds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import msgspec
import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from schemas.errors import CatalogError

try:
    from yaml.cyaml import CSafeLoader as _Parser
except ImportError:  # a PyYAML built without libyaml reads the same, slowly
    from yaml import SafeLoader as _Parser  # type: ignore[assignment]

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | bool | Tagged | Repeated | None"
"""What a text is made of. `true` and `false` of JSON are bools; of YAML, they are texts like any other."""

Token: TypeAlias = tuple[str, str, int]
"""`{`, `}`, `[`, `]` or `s` for a scalar; the scalar's text; where it begins: a YAML line from 0, or a JSON offset."""

_NULLS: Final = frozenset(("", "~", "null", "Null", "NULL"))
_YAML_TAG: Final = "tag:yaml.org,2002:"
_BRACKETS: Final = frozenset("{}[]")
_MERGE: Final = "<<"
_SURROGATE = re.compile(r"\\u[dD][89abAB]")
_JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]|[^\s{}\[\],:"]+', re.DOTALL)


class Tagged(msgspec.Struct, frozen=True):
    """A YAML value with a tag of its own, such as `!secret x`: nothing a catalog can have."""

    tag: str
    text: str


class Repeated(msgspec.Struct, frozen=True):
    """A mapping in which `keys` stand again after their `first` values."""

    first: dict[str, Any]
    keys: list[str]


def plain_of(text: str, where: str) -> Plain:
    """What the text is made of. Raises CatalogError, with the line, for what is neither YAML nor JSON."""
    found = _json(text, where) if is_json(text) else None
    return _yaml(text, where) if found is None else found


def is_json(text: str) -> bool:
    """Whether the text is read as JSON, as far as its first letter tells; YAML that begins so is read all the same."""
    return text.lstrip(" \t\r\n")[:1] == "{"


def tokens(text: str) -> Iterator[Token]:
    """The text once more as brackets, keys and scalars in their order, to find lines. The text must have been read."""
    if is_json(text) and _json(text, "") is not None:
        for found in _JSON_TOKEN.finditer(text):
            piece = found.group()
            if piece in _BRACKETS:
                yield piece, "", found.start()
            else:
                yield "s", json.loads(piece) if piece[0] == '"' else piece, found.start()
        return
    get_event: Callable[[], Any] = _Parser(text).get_event
    while not isinstance(event := get_event(), StreamEndEvent):
        line = event.start_mark.line
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            yield "{" if isinstance(event, MappingStartEvent) else "[", "", line
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            yield "}" if isinstance(event, MappingEndEvent) else "]", "", line
        elif isinstance(event, ScalarEvent | AliasEvent):
            yield "s", getattr(event, "value", ""), line


def _json(text: str, where: str) -> Plain:
    """What a JSON text is made of; None when it is no JSON."""
    try:
        found: Plain = json.loads(
            text, object_pairs_hook=_json_mapping, parse_int=str, parse_float=str, parse_constant=str
        )
    except RecursionError as error:
        raise _no_catalog(where, 1, "nested too deeply, expected a catalog") from error
    except ValueError:
        return None
    if _SURROGATE.search(text):
        try:
            msgspec.json.encode(found)
        except UnicodeEncodeError as error:
            raise _no_catalog(where, 1, "a text has one half of a surrogate pair, expected whole letters") from error
    return found


def _json_mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any] | Repeated:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    first: dict[str, Any] = {}
    repeated: list[str] = []
    for key, value in pairs:
        if key in first:
            repeated.append(key)
        else:
            first[key] = value
    return Repeated(first, repeated)


def _yaml(text: str, where: str) -> Plain:
    try:
        return _YamlReader(text, where).document()
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        what = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise _no_catalog(where, 1 if mark is None else mark.line + 1, f"{what}, expected YAML") from error
    except RecursionError as error:
        raise _no_catalog(where, 1, "nested too deeply, expected a catalog") from error
    except yaml.YAMLError as error:
        raise _no_catalog(where, 1, f"{str(error).splitlines()[0]}, expected YAML") from error


def _no_catalog(where: str, line: int, what: str) -> CatalogError:
    return CatalogError([f"{where}:{line}: {what}"], where=where)


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


class _YamlReader:
    """Builds values from libyaml's events, which costs a fifth of building its nodes."""

    def __init__(self, text: str, where: str) -> None:
        self._next: Callable[[], Any] = _Parser(text).get_event
        self._where = where
        self._anchors: dict[str, Plain] = {}

    def document(self) -> Plain:
        self._next()
        if not isinstance(self._next(), DocumentStartEvent):
            raise _no_catalog(self._where, 1, "empty, expected meters, customers, plans and subscriptions")
        value = self._value(self._next())
        self._next()
        if isinstance(event := self._next(), DocumentStartEvent):
            raise _no_catalog(self._where, _line(event), "found a second document, expected one")
        return value

    def _value(self, event: Any) -> Plain:
        kind = type(event)
        if kind is AliasEvent:
            if event.anchor not in self._anchors:
                raise _no_catalog(
                    self._where,
                    _line(event),
                    f"found *{event.anchor}, expected the name of a whole value above it",
                )
            return self._anchors[event.anchor]
        value: Plain
        if kind is ScalarEvent:
            value = event.value
            if value in _NULLS and event.implicit[0] and event.style in (None, ""):
                value = None
        elif kind is MappingStartEvent:
            value = self._mapping()
        else:
            value = self._sequence()
        if event.tag is not None:
            value = _tagged(event.tag, value)
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        return value

    def _sequence(self) -> list[Plain]:
        found: list[Plain] = []
        while type(event := self._next()) is not SequenceEndEvent:
            found.append(self._value(event))
        return found

    def _mapping(self) -> dict[str, Plain] | Repeated:
        found: dict[str, Plain] = {}
        repeated: list[str] = []
        merged: list[Plain] = []
        while type(event := self._next()) is not MappingEndEvent:
            key = event.value if type(event) is ScalarEvent else self._value(event)
            if not isinstance(key, str):
                raise _no_catalog(self._where, _line(event), "found a key that is no text, expected a name")
            value = self._value(self._next())
            if key == _MERGE and type(event) is ScalarEvent and event.implicit[0]:
                merged += value if isinstance(value, list) else [value]
            elif key in found:
                repeated.append(key)
            else:
                found[key] = value
        for each in merged:
            one = each.first if isinstance(each, Repeated) else each
            if not isinstance(one, dict):
                raise _no_catalog(self._where, _line(event), "<< merges something else, expected a mapping")
            for key, value in one.items():
                found.setdefault(key, value)
        return Repeated(found, repeated) if repeated else found


def _tagged(tag: str, value: Plain) -> Plain:
    if tag == f"{_YAML_TAG}null":
        return None
    if tag == "!" or tag.startswith(_YAML_TAG):
        return value
    return Tagged(tag, value if isinstance(value, str) else "")
