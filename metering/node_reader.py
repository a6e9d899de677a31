"""Reads YAML nodes into the records of `schemas`, driven by their types, and collects every mistake on the way."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from schemas.catalog_check import SECTION_OF, Part, Reference
from schemas.charges import CHARGE_MODELS
from schemas.problem import Path, Problem, did_you_mean
from schemas.quantity import QuantityError, parse_quantity

TAG_PREFIX: Final = "tag:yaml.org,2002:"
SHOWN_CHARACTERS_MAX: Final = 60


class _Unreadable:
    """Stands for a value that could not be read; its problem is on the list."""


UNREADABLE: Final = _Unreadable()

_EXPECTED: Final[dict[Any, str]] = {
    datetime: "a time such as 2013-01-31T00:00:00Z",
    date: "a date such as 2013-01-31",
    Decimal: "a decimal number such as 12 or 0.5",
}


class NodeReader:
    """`read` a node as a type; `problems` has every mistake, `parts` every record that was built, with its path.

    `references` has every name of another section's entry, also those in records that could not be built.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.parts: list[Part] = []
        self.references: list[Reference] = []

    def read(self, node: Node, kind: Any, path: Path) -> Any:
        """The value of `node` as `kind`, or UNREADABLE once its mistakes are on the list."""
        base, description = _unwrap(kind)
        if _is_null(node):
            return None if _takes_null(base) else self._fail(path, f"empty, expected {_expected(base, description)}")
        base = _without_null(base)
        if _is_charge(base):
            return self._charge(node, path)
        if isinstance(base, type) and issubclass(base, msgspec.Struct):
            return self._record(node, base, path)
        if get_origin(base) is tuple:
            return self._list(node, get_args(base)[0], path)
        if get_origin(base) is dict:
            return self._map(node, get_args(base), path)
        return self._scalar(node, kind, base, description, path)

    def _fail(self, path: Path, what: str) -> _Unreadable:
        self.problems.append(Problem(path=path, what=what))
        return UNREADABLE

    def _entries(self, node: Node, path: Path, expected: str) -> dict[str, Node] | None:
        """The keys of a mapping with merged ones (`<<`) after its own; None when it is no mapping."""
        if not isinstance(node, MappingNode):
            self._fail(path, f"found {_shown(node)}, expected {expected}")
            return None
        found: dict[str, Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if key.tag == f"{TAG_PREFIX}merge":
                continue
            if name in found:
                self._fail((*path, name), "stands twice in one mapping, expected once")
            found[name] = value
        for key, value in _merged(node):
            found.setdefault(str(key.value), value)
        return found

    def _record(self, node: Node, kind: type[msgspec.Struct], path: Path, *, tagged: bool = False) -> Any:
        fields = _fields(kind)
        entries = self._entries(node, path, f"a mapping with {', '.join(fields)}")
        if entries is None:
            return UNREADABLE
        if tagged:
            entries.pop("model", None)
        hints = _hints(kind)
        values: dict[str, Any] = {}
        for name, child in entries.items():
            if name in fields:
                attribute = fields[name].name
                values[attribute] = value = self.read(child, hints[attribute], (*path, name))
                if name in SECTION_OF and isinstance(value, str):
                    self.references.append(((*path, name), SECTION_OF[name], value))
            else:
                listed = ", ".join(fields)
                self._fail((*path, name), f"unknown key, expected one of {listed}{did_you_mean(name, fields)}")
        readable = all(value is not UNREADABLE for value in values.values())
        for name, field in fields.items():
            if field.required and field.name not in values:
                expected = _expected(*_unwrap(hints[field.name]))
                self._fail((*path, name), f"missing, expected {expected}")
                readable = False
        if not readable:
            return UNREADABLE
        record = kind(**values)
        self.parts.append((path, record))
        return record

    def _charge(self, node: Node, path: Path) -> Any:
        """A record of the type that its `model` names."""
        entries = self._entries(node, path, "a mapping with model and id")
        if entries is None:
            return UNREADABLE
        listed = ", ".join(CHARGE_MODELS)
        if "model" not in entries:
            return self._fail((*path, "model"), f"missing, expected one of {listed}")
        model = str(entries["model"].value)
        if model not in CHARGE_MODELS:
            return self._fail(
                (*path, "model"),
                f"found {_shown(entries['model'])}, expected one of {listed}{did_you_mean(model, CHARGE_MODELS)}",
            )
        # A key that stands twice was reported above; reading on would report it again.
        known = len(self.problems)
        record = self._record(node, CHARGE_MODELS[model], path, tagged=True)
        self.problems[known:] = [one for one in self.problems[known:] if one not in self.problems[:known]]
        return record

    def _list(self, node: Node, kind: Any, path: Path) -> Any:
        if not isinstance(node, SequenceNode):
            return self._fail(path, f"found {_shown(node)}, expected a list")
        values = [self.read(child, kind, (*path, index)) for index, child in enumerate(node.value)]
        return UNREADABLE if any(value is UNREADABLE for value in values) else tuple(values)

    def _map(self, node: Node, kinds: tuple[Any, Any], path: Path) -> Any:
        entries = self._entries(node, path, "a mapping of name to path")
        if entries is None:
            return UNREADABLE
        values: dict[str, Any] = {}
        readable = True
        for name, child in entries.items():
            fault = _fault(name, kinds[0])
            if fault:
                self._fail((*path, name), fault)
            values[name] = self.read(child, kinds[1], (*path, name))
            readable = readable and not fault and values[name] is not UNREADABLE
        return values if readable else UNREADABLE

    def _scalar(self, node: Node, kind: Any, base: Any, description: str, path: Path) -> Any:
        expected = _expected(base, description)
        if not isinstance(node, ScalarNode) or not str(node.tag).startswith(TAG_PREFIX):
            return self._fail(path, f"found {_shown(node)}, expected {expected}")
        text = str(node.value)
        if base is Decimal:
            try:
                return parse_quantity(text.strip())
            except QuantityError as error:
                return self._fail(path, f"{error}, expected {expected}")
        fault = _fault(text, kind)
        if fault:
            return self._fail(path, fault)
        value = msgspec.convert(text, kind, strict=False)
        return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else value


@lru_cache(maxsize=64)
def _fields(kind: type[msgspec.Struct]) -> dict[str, FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


@lru_cache(maxsize=64)
def _hints(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _merged(node: MappingNode) -> Iterator[tuple[Node, Node]]:
    for key, value in node.value:
        if key.tag == f"{TAG_PREFIX}merge":
            for one in value.value if isinstance(value, SequenceNode) else [value]:
                if isinstance(one, MappingNode) and one is not node:
                    yield from one.value


def _fault(text: str, kind: Any) -> str:
    """What is wrong with a scalar's text, or nothing."""
    base, description = _unwrap(kind)
    base = _without_null(base)
    try:
        msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        shown = text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"
        return f"found {shown!r}, expected {_expected(base, description)}{did_you_mean(text, _words(base))}"
    return ""


def _unwrap(kind: Any) -> tuple[Any, str]:
    """The type inside Annotated, looked for through `| None` too, and the description its Meta carries."""
    if get_origin(kind) is Annotated:
        base, *extras = get_args(kind)
        described = [one.description for one in extras if isinstance(one, Meta) and one.description]
        return base, described[-1] if described else ""
    if _takes_null(kind):
        inner, description = _unwrap(_without_null(kind))
        return inner | None, description
    return kind, ""


def _takes_null(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)


def _without_null(kind: Any) -> Any:
    if not _takes_null(kind):
        return kind
    members = [one for one in get_args(kind) if one is not type(None)]
    return members[0] if len(members) == 1 else Union[tuple(members)]  # noqa: UP007 - members are known at run time only


def _is_charge(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and set(get_args(kind)) == set(CHARGE_MODELS.values())


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == f"{TAG_PREFIX}null"


def _expected(base: Any, description: str) -> str:
    if description:
        return description[0].lower() + description[1:].rstrip(".")
    base = _without_null(base)
    if words := _words(base):
        return f"one of {', '.join(words)}"
    if get_origin(base) is tuple:
        return "a list"
    if get_origin(base) is dict or (isinstance(base, type) and issubclass(base, msgspec.Struct)):
        return "a mapping"
    return _EXPECTED.get(base, "a text")


def _words(kind: Any) -> list[str]:
    """The words an enum takes; empty for any other type."""
    is_enum = isinstance(kind, type) and issubclass(kind, enum.Enum)
    return [str(member.value) for member in kind] if is_enum else []


def _shown(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    text = str(node.value)
    tag = "" if str(node.tag).startswith(TAG_PREFIX) else f" tagged {node.tag}"
    return repr(text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…") + tag
