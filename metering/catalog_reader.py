"""Reads a catalog's mappings, lists and texts into the records of `schemas`, driven by their types.

Every mistake is collected on the way. A record whose types are plain is converted at once; any other, and any with
a mistake, is read field by field.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import FieldInfo

from metering.catalog_text import Plain, Repeated, Tagged
from metering.catalog_types import expected, is_charge, takes_null, unwrap, without_null, words
from schemas.catalog_check import Reference, references_in
from schemas.catalog_parts import Part, parts_below
from schemas.charges import CHARGE_MODELS
from schemas.problem import Path, Problem, did_you_mean
from schemas.quantity import QuantityError, parse_quantity

SHOWN_CHARACTERS_MAX: Final = 60


class _Unreadable:
    """Stands for a value that could not be read; its problem is on the list."""


UNREADABLE: Final = _Unreadable()


class CatalogReader:
    """`read` a value as a type; `problems` has every mistake, `parts` every record that was built, with its path.

    `references` has the names of other sections' entries in records that could not be built.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.parts: list[Part] = []
        self.references: list[Reference] = []

    def read(self, value: Plain, kind: Any, path: Path) -> Any:
        """`value` as `kind`, or UNREADABLE once its mistakes are on the list."""
        base, description, is_null, form = _shape(kind)
        if value is None:
            return None if is_null else self._fail(path, f"empty, expected {expected(base, description)}")
        if form is _Form.SCALAR:
            return self._scalar(value, kind, path)
        if form is _Form.RECORD:
            return self._record(value, base, path)
        if form is _Form.LIST:
            return self._list(value, get_args(base)[0], path)
        if form is _Form.MAP:
            return self._map(value, get_args(base), path)
        return self._charge(value, path)

    def _fail(self, path: Path, what: str) -> _Unreadable:
        self.problems.append(Problem(path=path, what=what))
        return UNREADABLE

    def _mapping(self, value: Plain, path: Path, wanted: str) -> dict[str, Plain] | None:
        """The mapping, or None; keys that stand twice are put on the list."""
        if isinstance(value, Repeated):
            for name in value.keys:
                self._fail((*path, name), "stands twice in one mapping, expected once")
            return value.first
        if isinstance(value, dict):
            return value
        self._fail(path, f"found {_shown(value)}, expected {wanted}")
        return None

    def _quick(self, value: dict[str, Plain], kind: type[msgspec.Struct], path: Path) -> Any:
        """The record when there is nothing to say about it, else None."""
        if not _is_quick(kind) or not _slow_fields(kind).isdisjoint(value):
            return None
        try:
            record = msgspec.convert(value, kind, strict=False)
        except (msgspec.ValidationError, UnicodeEncodeError):
            return None
        self.parts += parts_below(path, record)
        return record

    def _record(self, value: Plain, kind: type[msgspec.Struct], path: Path, *, tagged: bool = False) -> Any:
        fields = _fields(kind)
        entries = self._mapping(value, path, f"a mapping with {_needed(kind)}")
        if entries is None:
            return UNREADABLE
        if entries is value and (quick := self._quick(entries, kind, path)) is not None:
            return quick
        hints = _hints(kind)
        values: dict[str, Any] = {}
        for name, child in entries.items():
            if name in fields:
                attribute = fields[name].name
                values[attribute] = self.read(child, hints[attribute], (*path, name))
            elif not (tagged and name == "model"):
                listed = ", ".join(fields)
                self._fail((*path, name), f"unknown key, expected one of {listed}{did_you_mean(name, fields)}")
        readable = all(one is not UNREADABLE for one in values.values())
        for name, field in fields.items():
            if field.required and field.name not in values:
                self._fail((*path, name), f"missing, expected {expected(*unwrap(hints[field.name]))}")
                readable = False
        if not readable:
            self.references += references_in(kind, values, path)
            return UNREADABLE
        record = kind(**values)
        self.parts.append((path, record))
        return record

    def _charge(self, value: Plain, path: Path) -> Any:
        """A record of the type that its `model` names."""
        listed = ", ".join(CHARGE_MODELS)
        entries = value.first if isinstance(value, Repeated) else value
        if not isinstance(entries, dict):
            return self._fail(path, f"found {_shown(value)}, expected a mapping with model and id")
        if "model" not in entries:
            return self._fail((*path, "model"), f"missing, expected one of {listed}")
        model = entries["model"]
        if not isinstance(model, str) or model not in CHARGE_MODELS:
            hint = did_you_mean(model, CHARGE_MODELS) if isinstance(model, str) else ""
            return self._fail((*path, "model"), f"found {_shown(model)}, expected one of {listed}{hint}")
        return self._record(value, CHARGE_MODELS[model], path, tagged=True)

    def _list(self, value: Plain, kind: Any, path: Path) -> Any:
        if not isinstance(value, list):
            return self._fail(path, f"found {_shown(value)}, expected a list")
        values = [self.read(one, kind, (*path, index)) for index, one in enumerate(value)]
        return UNREADABLE if any(one is UNREADABLE for one in values) else tuple(values)

    def _map(self, value: Plain, kinds: tuple[Any, Any], path: Path) -> Any:
        entries = self._mapping(value, path, "a mapping")
        if entries is None:
            return UNREADABLE
        values: dict[str, Any] = {}
        readable = True
        for name, child in entries.items():
            fault = _is_fault(name, kinds[0])
            if fault:
                self._fail((*path, name), _fault(name, kinds[0]))
            values[name] = self.read(child, kinds[1], (*path, name))
            readable = readable and not fault and values[name] is not UNREADABLE
        return values if readable else UNREADABLE

    def _scalar(self, value: Plain, kind: Any, path: Path) -> Any:
        base, description, _, _ = _shape(kind)
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, str):
            return self._fail(path, f"found {_shown(value)}, expected {expected(base, description)}")
        if base is Decimal:
            try:
                return parse_quantity(value.strip())
            except QuantityError as error:
                return self._fail(path, f"{error}, expected {expected(base, description)}")
        try:
            found = msgspec.convert(value, kind, strict=False)
        except msgspec.ValidationError:
            return self._fail(path, _fault(value, kind))
        return found.astimezone(UTC) if isinstance(found, datetime) and found.tzinfo else found


class _Form(enum.Enum):
    SCALAR = enum.auto()
    RECORD = enum.auto()
    CHARGE = enum.auto()
    LIST = enum.auto()
    MAP = enum.auto()


class _Shape(NamedTuple):
    """What a type asks for, taken apart once: the type without None, what is expected, whether null is fine."""

    base: Any
    description: str
    is_null: bool
    form: _Form


@lru_cache(maxsize=1_024)
def _shape(kind: Any) -> _Shape:
    base, description = unwrap(kind)
    is_null = takes_null(base)
    base = without_null(base)
    form = _Form.SCALAR
    if is_charge(base):
        form = _Form.CHARGE
    elif isinstance(base, type) and issubclass(base, msgspec.Struct):
        form = _Form.RECORD
    elif get_origin(base) in (tuple, dict):
        form = _Form.LIST if get_origin(base) is tuple else _Form.MAP
    return _Shape(base, description, is_null, form)


@lru_cache(maxsize=64)
def _fields(kind: type[msgspec.Struct]) -> dict[str, FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


@lru_cache(maxsize=64)
def _hints(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


@lru_cache(maxsize=64)
def _needed(kind: type[msgspec.Struct]) -> str:
    """The keys that must be there, or, where none must, those that may."""
    fields = _fields(kind)
    return ", ".join([name for name, field in fields.items() if field.required] or fields)


@lru_cache(maxsize=64)
def _is_quick(kind: type[msgspec.Struct]) -> bool:
    """Whether any record of the type can be converted at once: those with required numbers never can."""
    return not any(field.required and field.encode_name in _slow_fields(kind) for field in _fields(kind).values())


@lru_cache(maxsize=64)
def _slow_fields(kind: type[msgspec.Struct]) -> frozenset[str]:
    """The keys that must be read one by one: numbers have their own door, and times are turned to UTC."""
    hints = _hints(kind)
    return frozenset(name for name, field in _fields(kind).items() if _is_slow(hints[field.name]))


def _is_slow(kind: Any) -> bool:
    base, _, _, form = _shape(kind)
    if form in (_Form.LIST, _Form.MAP):
        return any(_is_slow(one) for one in get_args(base) if one is not Ellipsis)
    if form is _Form.RECORD:
        return bool(_slow_fields(base))
    return form is _Form.CHARGE or base in (Decimal, datetime)


def _fault(text: str, kind: Any) -> str:
    """What is wrong with a scalar's text."""
    base, description, _, _ = _shape(kind)
    return f"found {_shown(text)}, expected {expected(base, description)}{did_you_mean(text, words(base))}"


def _is_fault(text: str, kind: Any) -> bool:
    try:
        msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        return True
    return False


def _shown(value: Plain) -> str:
    if isinstance(value, dict | Repeated):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text, tag = (value.text, f" tagged {value.tag}") if isinstance(value, Tagged) else (str(value), "")
    return repr(text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…") + tag
