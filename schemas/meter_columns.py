"""What meters see of many events at once: the same as `measure`, column by column.

Pure. Columns are for values as they most often are; an event with a value that a meter could refuse is left to
`measure`, which says what is wrong with it, and whether a filter keeps it away from that value in the first place.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Final, cast

import msgspec

from schemas.errors import EventRejectedError
from schemas.event_fields import EventReader, attributes_of, known_text, known_texts
from schemas.meter import Measurement, MeterReading, MeterVersion, read_number
from schemas.quantity import ZERO, parse_tokens
from schemas.usage_event import EventColumns

_NULL: Final = b"null"

Raws = list[bytes | None]
"""A field's JSON text in each event; None where it is absent or null."""


class Seen(msgspec.Struct, frozen=True, gc=False):
    """What one meter version sees of the events that count for it: parallel to `rows`, which ascend.

    `values` is empty where the meter takes no number, `members` where it counts none.
    """

    version: MeterVersion
    rows: Sequence[int]
    dimensions: list[tuple[str, ...]]
    values: list[Decimal]
    members: list[str]


def seen_alone(version: MeterVersion, row: int, one: Measurement) -> Seen:
    """What a version sees of a single event."""
    return Seen(version, [row], [one.dimensions], [one.value], [one.member])


def joined(parts: Sequence[Seen]) -> Seen:
    """What one version sees of the events of all parts, which have no event in common."""
    parts = [one for one in parts if one.rows] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    order = sorted((row, part, at) for part, one in enumerate(parts) for at, row in enumerate(one.rows))
    takes_number, takes_member = all(one.values for one in parts), all(one.members for one in parts)
    return Seen(
        parts[0].version,
        [row for row, _, _ in order],
        [parts[part].dimensions[at] for _, part, at in order],
        [parts[part].values[at] for _, part, at in order] if takes_number else [],
        [parts[part].members[at] for _, part, at in order] if takes_member else [],
    )


def without(seen: Seen, rows: Container[int]) -> Seen:
    """The same without some rows."""
    return taken(seen, [at for at, row in enumerate(seen.rows) if row not in rows])


def taken(seen: Seen, places: Sequence[int]) -> Seen:
    """The same of the events at these places alone, which ascend."""
    return Seen(
        seen.version,
        [seen.rows[at] for at in places],
        [seen.dimensions[at] for at in places],
        [seen.values[at] for at in places] if seen.values else [],
        [seen.members[at] for at in places] if seen.members else [],
    )


class ColumnReader:
    """Reads what some meter versions need, from the data of many events."""

    def __init__(self, versions: Sequence[tuple[MeterVersion, MeterReading]], reader: EventReader) -> None:
        self._versions = versions
        self._reader = reader
        self._getters = {path: attrgetter(".".join(attributes_of(path))) for path in reader.paths}

    def see(self, events: EventColumns, rows: Sequence[int]) -> tuple[list[Seen], set[int]]:
        """(what each version sees of these events, the rows that `measure` must look at instead)."""
        datas = events.datas
        is_whole = len(rows) == len(datas)
        fields = _Fields(self._read(datas if is_whole else [datas[row] for row in rows]), len(rows))
        seen = [self._see(version, reading, fields, rows) for version, reading in self._versions]
        if not fields.doubtful:
            return seen, set()
        doubtful = {rows[at] for at in fields.doubtful}
        if len(doubtful) == len(rows):
            return [], doubtful
        return self.see(events, [row for row in rows if row not in doubtful])[0], doubtful

    def _read(self, datas: list[msgspec.Raw]) -> dict[str, Raws]:
        if self._reader.nests:
            return self._read_loosely(datas)
        decode = self._reader.decode
        try:
            decoded = [decode(data) for data in datas]
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return self._read_loosely(datas)
        found: dict[str, Raws] = {}
        for path, get in self._getters.items():
            try:
                values = [get(one) for one in decoded]
            except AttributeError:  # an object on the way is absent
                return self._read_loosely(datas)
            # Cutting one long text is twice as fast as copying many; a line break within a value would show.
            raws: Raws = [*b"\n".join(values).split(b"\n")]
            if len(raws) != len(values):
                raws = [bytes(value) for value in values]
            found[path] = [None if raw == _NULL else raw for raw in raws] if _NULL in raws else raws
        return found

    def _read_loosely(self, datas: list[msgspec.Raw]) -> dict[str, Raws]:
        fields = [self._reader.read_data(data) for data in datas]
        return {path: [one[path] for one in fields] for path in self._reader.paths}

    def _see(self, version: MeterVersion, reading: MeterReading, fields: _Fields, rows: Sequence[int]) -> Seen:
        dimensions = fields.group(reading.dimension_paths)
        values: list[Decimal] = []
        members: list[str] = []
        path = reading.value
        if path is not None and reading.is_number:
            values = fields.numbers(path)
        elif path is not None and reading.is_member:
            members = fields.texts(path)
        is_chosen: list[bool] | None = None
        if path is not None and None in fields.raws[path]:
            is_chosen = [raw is not None for raw in fields.raws[path]]
        for one in reading.filters:
            passes = [
                (not one.any_of or text in one.any_of) and text not in one.none_of for text in fields.texts(one.field)
            ]
            is_chosen = (
                passes if is_chosen is None else [both and each for both, each in zip(is_chosen, passes, strict=True)]
            )
        if is_chosen is None:
            return Seen(version, rows, dimensions, values, members)
        chosen = [at for at, each in enumerate(is_chosen) if each]
        return taken(Seen(version, rows, dimensions, values, members), chosen)


class _Fields:
    """Columns of texts, numbers and groups, each made once for all meters; `doubtful` are places of bad values."""

    def __init__(self, raws: dict[str, Raws], count: int) -> None:
        self.raws = raws
        self._count = count
        self.doubtful: set[int] = set()
        self._texts: dict[str, list[str]] = {}
        self._numbers: dict[str, list[Decimal]] = {}
        self._groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}

    def texts(self, path: str) -> list[str]:
        """The text of a field in each event, '' where it is absent."""
        texts = self._texts.get(path)
        if texts is None:
            raws = self.raws[path]
            known = known_texts(raws)
            texts = cast("list[str]", known)
            if None in known:
                texts = [self._text(path, raw, at) for at, raw in enumerate(raws)]
            self._texts[path] = texts
        return texts

    def group(self, paths: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The texts of several fields in each event."""
        group = self._groups.get(paths)
        if group is None:
            columns = [self.texts(path) for path in paths]
            group = self._groups[paths] = list(zip(*columns, strict=True)) if columns else [()] * self._count
        return group

    def numbers(self, path: str) -> list[Decimal]:
        """The number in a field of each event, ZERO where it is absent."""
        numbers = self._numbers.get(path)
        if numbers is None:
            raws = self.raws[path]
            given = [raw for raw in raws if raw is not None] if None in raws else cast("list[bytes]", raws)
            parsed = parse_tokens(given)
            if parsed is None:
                numbers = [ZERO if raw is None else self._number(path, raw, at) for at, raw in enumerate(raws)]
            elif len(given) == len(raws):
                numbers = parsed
            else:
                waiting = iter(parsed)
                numbers = [ZERO if raw is None else next(waiting) for raw in raws]
            self._numbers[path] = numbers
        return numbers

    def _text(self, path: str, raw: bytes | None, at: int) -> str:
        try:
            return known_text(path, raw)
        except EventRejectedError:
            self.doubtful.add(at)
            return ""

    def _number(self, path: str, raw: bytes, at: int) -> Decimal:
        try:
            return read_number(path, raw)
        except EventRejectedError:
            self.doubtful.add(at)
            return ZERO
