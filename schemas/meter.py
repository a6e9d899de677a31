"""Meters: which events count, what is taken from each, and how it is folded.

Pure: `measure` turns one event into what one meter sees of it, and nothing else decides that.
"""

from __future__ import annotations

import enum
import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw

from schemas.errors import EventRejectedError
from schemas.quantity import ZERO, QuantityError, parse_quantity, parse_token
from schemas.usage_event import UsageEvent

WINDOW_S: Final = 900
"""Length of a rollup window: every IANA zone's day starts on a multiple of 15 minutes."""

TEXT_BYTES_MAX: Final = 1_024
"""Longest value of a dimension or of a counted member."""

FieldPath = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_\-]*(\.[A-Za-z_][A-Za-z0-9_\-]*)*$",
        max_length=200,
        description="Where a value stands inside the event's `data`; dots go into objects: `usage.bytes`.",
    ),
]
Name = Annotated[
    str,
    Meta(pattern="^[a-z][a-z0-9_]{0,62}$", description="Lower case letters, digits and underscores; a letter first."),
]


class Aggregation(enum.Enum):
    """How the events of a window become one number. Each value of the enum is its name in the catalog."""

    COUNT = "count"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    AVG = "avg"
    LATEST = "latest"
    UNIQUE_COUNT = "unique_count"


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events count: the text of `field` must be one of `any_of` (and none of `none_of`). Absent reads as ''."""

    field: FieldPath
    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()


class Meter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of a meter, as the catalog says it.

    `value` is required except for `count`. `group_by` names dimensions: name → path.
    An event counts for the version that is in force at the event's own time: from `effective_from` (inclusive, on
    a window's start; absent means always) until the next version's.
    """

    name: Name
    event_type: Annotated[str, Meta(min_length=1, max_length=512)]
    aggregation: Aggregation
    value: FieldPath | None = None
    unit: Annotated[str, Meta(max_length=64)] = ""
    description: str = ""
    filters: tuple[Filter, ...] = ()
    group_by: dict[Name, FieldPath] = {}
    effective_from: datetime | None = None

    def __post_init__(self) -> None:
        """Keep dimensions sorted by name, the order in which every table and measurement has them."""
        msgspec.structs.force_setattr(self, "group_by", dict(sorted(self.group_by.items())))


class MeterVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A meter version with its number and the time span it is in force for, half-open; None is unbounded.

    `introduced_in` is the catalog version that brought it: batches decided with an older catalog did not fold it.
    """

    meter: Meter
    version: int
    introduced_in: int
    start: datetime | None
    end: datetime | None


class Measurement(msgspec.Struct, frozen=True, gc=False):
    """What one meter sees of one event. `dimensions` follow the sorted names of `group_by`."""

    dimensions: tuple[str, ...]
    value: Decimal
    member: str


SHORT_BYTES_MAX: Final = 64
"""Longest JSON text that is remembered once it was read."""
TEXTS_MAX: Final = 20_000
"""How many of them."""

_PRESENT: Final = ""
_NULL: Final = Raw(b"null")
_SCALAR = re.compile(rb'["\-0-9tf]')
_decode_text = msgspec.json.Decoder(str).decode
_texts: dict[bytes | None, str] = {}
"""JSON text → what `scalar_text` makes of it, whatever the path; a cache, so that sharing it changes no answer."""


class Fields(dict[str, bytes | None]):
    """The raw JSON text of an event's fields by path, None for none. Meters share groups of dimensions."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], tuple[str, ...]] = {}

    def text(self, path: str) -> str:
        """`scalar_text` of a field. Groups and members repeat, so short ones are looked up."""
        raw = self[path]
        text = _texts.get(raw)
        if text is None:
            text = scalar_text(path, raw)
            if raw is not None and len(raw) <= SHORT_BYTES_MAX:
                if len(_texts) >= TEXTS_MAX:
                    _texts.clear()
                _texts[raw] = text
        return text

    def group(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """The texts of several fields."""
        group = self._groups.get(paths)
        if group is None:
            group = self._groups[paths] = tuple([self.text(path) for path in paths])
        return group


class EventReader:
    """Reads the fields that a set of meters needs from an event's `data`, each once, as JSON text.

    Built once a catalog version; `read` costs one msgspec decode into a struct of exactly those fields.
    """

    def __init__(self, paths: frozenset[str]) -> None:
        self._paths = tuple(sorted(paths))
        chains = {path: _attributes(path) for path in self._paths}
        self._plain = [(path, chain[0]) for path, chain in chains.items() if len(chain) == 1]
        self._nested = [(path, chain) for path, chain in chains.items() if len(chain) > 1]
        self._nests = any(long.startswith(f"{short}.") for short in self._paths for long in self._paths)
        self._decode = msgspec.json.Decoder(_struct_for(self._paths, "Data")).decode

    def read(self, event: UsageEvent) -> Fields:
        """The raw JSON text of every path; None where it is absent, null, or its parent is no object."""
        if self._nests:
            return self._read_loosely(event)
        try:
            data = self._decode(event.data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return self._read_loosely(event)
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

    def _read_loosely(self, event: UsageEvent) -> Fields:
        """The same for data of an unexpected shape (a list, a number), and for paths read whole and in parts."""
        found = Fields()
        for path in self._paths:
            found[path] = _given(_descend(bytes(event.data), path.split(".")))
        return found


def paths_of(meter: Meter) -> frozenset[str]:
    """Every path a meter reads."""
    values = [meter.value] if meter.value else []
    return frozenset([*values, *(one.field for one in meter.filters), *meter.group_by.values()])


class MeterReading(msgspec.Struct, frozen=True, gc=False):
    """What `measure` needs of a meter, taken apart once, because it asks for every event."""

    filters: tuple[Filter, ...]
    value: str | None
    is_number: bool
    is_member: bool
    dimension_paths: tuple[str, ...]


def reading_of(meter: Meter) -> MeterReading:
    """Take a meter apart."""
    is_member = meter.aggregation is Aggregation.UNIQUE_COUNT
    is_number = not is_member and meter.aggregation is not Aggregation.COUNT
    return MeterReading(meter.filters, meter.value, is_number, is_member, tuple(meter.group_by.values()))


def measure(meter: Meter, fields: Fields) -> Measurement | None:
    """What `meter` sees of an event whose fields were read; None when the event does not count for it.

    An event without the value is not measured: a missing number is not a zero.
    Raises EventRejectedError for a value that is there but is no number, and for a dimension that is no scalar.
    """
    return measure_by(reading_of(meter), fields)


def measure_by(reading: MeterReading, fields: Fields) -> Measurement | None:
    """`measure` for one who asks often."""
    for one in reading.filters:
        text = fields.text(one.field)
        if (one.any_of and text not in one.any_of) or text in one.none_of:
            return None
    value, member = ZERO, _PRESENT
    path = reading.value
    if path is not None:
        raw = fields[path]
        if raw is None:
            return None
        if reading.is_number:
            value = _number(path, raw)
        elif reading.is_member:
            member = fields.text(path)
    return Measurement(fields.group(reading.dimension_paths), value, member)


def scalar_text(path: str, raw: bytes | None) -> str:
    """The text a scalar groups under: a string's content, a number as written, `true`, `false`, '' for none."""
    if raw is None:
        return ""
    if raw[:1] == b'"':
        try:
            text = _decode_text(raw)
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


def _number(path: str, raw: bytes) -> Decimal:
    try:
        return parse_quantity(_decode_text(raw)) if raw[:1] == b'"' else parse_token(raw)
    except QuantityError as error:
        raise EventRejectedError(error.reason, f"data.{path}", f"data.{path}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EventRejectedError("invalid_number", f"data.{path}", f"data.{path} is not a decimal number") from error


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


def _attributes(path: str) -> tuple[str, ...]:
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
        attribute = _attributes(head)[0]
        renames[attribute] = head
        nested = tuple(rest for rest in rests if rest)
        if nested:
            fields.append((attribute, _struct_for(nested, f"{name}_{len(fields)}") | None, None))
        else:
            fields.append((attribute, Raw, _NULL))
    return msgspec.defstruct(name, fields, rename=renames, gc=False)
