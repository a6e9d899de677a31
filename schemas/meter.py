"""Meters: which events count, what is taken from each, and how it is folded.

Pure: `measure` turns one event into what one meter sees of it, and nothing else decides that.
"""

from __future__ import annotations

import enum
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from schemas.errors import EventRejectedError
from schemas.event_fields import EventReader as EventReader  # noqa: PLC0414 - whoever measures reads fields first
from schemas.event_fields import Fields, decode_text
from schemas.quantity import ZERO, QuantityError, parse_quantity, parse_token

WINDOW_S: Final = 900
"""Length of a rollup window: every IANA zone's day starts on a multiple of 15 minutes."""

OTHER: Final = "other"
"""Stands for the values of a dimension that are more than a meter takes."""
GROUP_VALUES_MAX: Final = 1_000
"""How many values of a dimension a meter takes unless it says another number."""
GROUP_VALUES_MOST: Final = 100_000

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
    TIME_WEIGHTED = "time_weighted"


class TimeUnit(enum.Enum):
    """What a `time_weighted` meter counts time in: a balance of one that lasts this long is a quantity of one."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def seconds(self) -> int:
        """How many seconds it has; a day has 86,400, whatever the clocks of a zone do."""
        return {TimeUnit.SECOND: 1, TimeUnit.MINUTE: 60, TimeUnit.HOUR: 3_600, TimeUnit.DAY: 86_400}[self]


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
    `group_values_max` is how many values of a dimension one day of one subject tells apart: see `taken_values`.
    """

    name: Name
    event_type: Annotated[str, Meta(min_length=1, max_length=512)]
    aggregation: Aggregation
    value: FieldPath | None = None
    unit: Annotated[str, Meta(max_length=64)] = ""
    description: str = ""
    filters: tuple[Filter, ...] = ()
    group_by: dict[Name, FieldPath] = {}
    group_values_max: Annotated[int, Meta(ge=1, le=GROUP_VALUES_MOST)] = GROUP_VALUES_MAX
    time_unit: TimeUnit = TimeUnit.HOUR
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


def taken_values(meter: Meter) -> int | None:
    """How many values of each dimension are told apart on one UTC day of one subject; None where nothing limits it.

    A balance must find the value again that it was begun under, so `time_weighted` meters have no limit.
    """
    if not meter.group_by or meter.aggregation is Aggregation.TIME_WEIGHTED:
        return None
    return meter.group_values_max


_PRESENT: Final = ""


class Measurement(msgspec.Struct, frozen=True, gc=False):
    """What one meter sees of one event. `dimensions` follow the sorted names of `group_by`."""

    dimensions: tuple[str, ...]
    value: Decimal
    member: str


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
            value = read_number(path, raw)
        elif reading.is_member:
            member = fields.text(path)
    return Measurement(fields.group(reading.dimension_paths), value, member)


def read_number(path: str, raw: bytes) -> Decimal:
    """The exact number in a JSON text, quoted or not. Raises EventRejectedError."""
    try:
        return parse_quantity(decode_text(raw)) if raw[:1] == b'"' else parse_token(raw)
    except QuantityError as error:
        raise EventRejectedError(error.reason, f"data.{path}", f"data.{path}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EventRejectedError("invalid_number", f"data.{path}", f"data.{path} is not a decimal number") from error
