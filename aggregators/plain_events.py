"""Which stored events ClickHouse may read by itself, and the statement that takes their fields apart. Pure.

An event is plain when its text leaves no room for two readings: no escapes, each name on the way to a field once within
`data`, and values of the common forms, found by a regular expression and never by way of a float. What is not plain is
marked, and is Python's. The predicate may refuse what it could read; it must never take what it would read otherwise.
"""

# ruff: noqa: S608 - statements are made of constants, and values are parameters
from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from aggregators.state import DAY_S
from schemas.event_fields import TEXT_BYTES_MAX
from schemas.meter import WINDOW_S, MeterVersion, paths_of, reading_of
from schemas.quantity import DECIMALS_MAX, PLAIN_PATTERN

EXTRACTED: Final = "extracted"
ODD_DAYS: Final = "odd_days"

TOKEN_BYTES_MAX: Final = TEXT_BYTES_MAX + 64
"""How much behind a name is looked at: the longest text with its quotes, and some blanks."""

_BLANK: Final = r"[ \\t\\r\\n]*"
_PLAIN_NUMBER: Final = PLAIN_PATTERN.replace("\\", r"\\")
"""As it stands in a text of SQL; every other form of a number is Python's."""
_ANY_NUMBER: Final = r"-?(?:0|[1-9][0-9]*)(?:\\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_NUMBER: Final = rf"^{_BLANK}:{_BLANK}(null|{_PLAIN_NUMBER}|\"{_PLAIN_NUMBER}\"){_BLANK}[,}}]"
_SCALAR: Final = rf"^{_BLANK}:{_BLANK}(\"[^\"\\x00-\\x1f]*\"|null|true|false|{_ANY_NUMBER}){_BLANK}[,}}]"

_DATA: Final = "'\"data\"'"
_EVENTS: Final = """
SELECT subject, type, toUnixTimestamp64Micro(time) AS us, offset, digest, raw, position(raw, '"data"') AS data_at
FROM events
WHERE epoch = {epoch:String} AND partition = {partition:UInt32}
  AND offset >= {first:UInt64} AND offset <= {last:UInt64} AND type = {type:String}
"""
_EXTRACT: Final = """
INSERT INTO {scratch:Identifier}.extracted
    (shard, subject, type, day, window_s, time_us, offset, digest, is_odd%(columns)s)
SELECT
    cityHash64(subject) %% {shards:UInt8}, subject, type,
    intDiv(us, {day_us:Int64}), intDiv(us, {window_us:Int64}) * {window_s:UInt32}, us, offset, digest,
    NOT (position(raw, '\\\\') = 0 AND position(raw, 'metering.event.') = 0
        AND countSubstrings(raw, '"data"') = 1%(plain)s)%(values)s
FROM (%(fields)s)
"""


class Needs(msgspec.Struct, frozen=True):
    """How the fields of one event type are read: as a number, as a text, or both; each path has a number."""

    event_type: str
    numbers: tuple[str, ...]
    texts: tuple[str, ...]


class Columns:
    """The columns of `extracted` for some meter versions. Those of a type that does not read a path stay empty."""

    def __init__(self, versions: Sequence[MeterVersion]) -> None:
        paths = sorted({path for one in versions for path in paths_of(one.meter)})
        self._number_of = {path: number for number, path in enumerate(paths)}
        by_type: dict[str, list[MeterVersion]] = {}
        for one in versions:
            by_type.setdefault(one.meter.event_type, []).append(one)
        self.needs = [_needs(event_type, several) for event_type, several in sorted(by_type.items())]

    def text(self, path: str) -> str:
        """The text of a field, '' where it is absent."""
        return f"text_{self._number_of[path]}"

    def number(self, path: str) -> str:
        """The number in a field, 0 where it is absent."""
        return f"number_{self._number_of[path]}"

    def is_given(self, path: str) -> str:
        """Whether a field is there and not null."""
        return f"given_{self._number_of[path]}"

    def create_tables(self) -> list[str]:
        """The statements that make the tables of the scratch database."""
        fields = "".join(
            f", text_{number} String, number_{number} Decimal(38, {DECIMALS_MAX}), given_{number} UInt8"
            for number in self._number_of.values()
        )
        extracted = (
            "shard UInt8, subject String, type LowCardinality(String), day UInt32, window_s UInt32, time_us Int64, "
            f"offset UInt64, digest UInt128, is_odd UInt8{fields}"
        )
        tables = {
            EXTRACTED: f"({extracted}) ENGINE = MergeTree PARTITION BY shard ORDER BY tuple()",
            ODD_DAYS: "(subject String, day UInt32) ENGINE = MergeTree ORDER BY (subject, day)",
        }
        return [f"CREATE TABLE {{scratch:Identifier}}.{name} {shape}" for name, shape in tables.items()]

    def extract(self, needs: Needs) -> tuple[str, Mapping[str, Any]]:
        """The statement that takes the events of one type apart, and its parameters but for the place."""
        columns, plain, values = [], [], []
        # Each layer names what the next one uses: in one, each use of a name would be analysed again.
        layers: list[list[str]] = [
            ["substring(raw, data_at) AS tail", "countSubstrings(substring(raw, 1, data_at), '{') = 1 AS is_first"],
            [f"(is_first AND {_opens('tail', _DATA)}) AS is_top"],
            *([] for _ in range(6)),
        ]
        parameters: dict[str, Any] = {
            "type": needs.event_type,
            "day_us": DAY_S * 1_000_000,
            "window_us": WINDOW_S * 1_000_000,
            "window_s": WINDOW_S,
        }
        for path in sorted({*needs.numbers, *needs.texts}):
            at = self._number_of[path]
            steps = path.split(".")
            for number, step in enumerate(steps):
                parameters[f"step_{at}_{number}"] = step
                parameters[f"name_{at}_{number}"] = f'"{step}"'
            way = ", ".join(f"{{step_{at}_{number}:String}}" for number in range(len(steps)))
            names = [f"{{name_{at}_{number}:String}}" for number in range(len(steps))]
            counts = [f"count_{at}_{number}" for number in range(len(steps))]
            # Each step opens an object before the next: with no other object open, these are all there are.
            opened = "".join(
                f" AND {_opens(f'substring(tail, position(tail, {name}))', name)}"
                f" AND position(tail, {name}) < position(tail, {following})"
                for name, following in itertools.pairwise(names)
            )
            no_other = f"countSubstrings(before_{at}, '{{') = {len(steps)} AND position(before_{at}, '}}') = 0"
            layers[1] += [
                f"countSubstrings(tail, {name}) AS {count}" for name, count in zip(names, counts, strict=True)
            ]
            layers[1].append(f"position(tail, {names[-1]}) AS at_{at}")
            # Once each: then it does not matter which of two equal keys a parser takes.
            layers[2].append(f"({' AND '.join(f'{one} = 1' for one in counts)}) AS once_{at}")
            layers[2].append(f"substring(tail, 1, at_{at}) AS before_{at}")
            layers[2].append(f"substring(tail, at_{at} + length({names[-1]}), {TOKEN_BYTES_MAX}) AS rest_{at}")
            # Every object that is open there is one of the way; else the whole is parsed.
            layers[3].append(f"(is_top AND {no_other}{opened}) AS is_on_way_{at}")
            unsure = f"if(is_on_way_{at} OR NOT once_{at}, '', raw)"
            layers[4].append(f"(is_on_way_{at} OR JSONHas({unsure}, 'data', {way})) AS leads_{at}")
            # A name that stands nowhere in `data` leads nowhere; nor does one that stands there once, elsewhere.
            misleading = f"if(once_{at} AND NOT leads_{at}, raw, '')"
            layers[5].append(f"(least({', '.join([*counts, '1'])}) = 0 OR isValidJSON({misleading})) AS absent_{at}")
            if path in needs.numbers:
                layers[5].append(f"if(once_{at} AND leads_{at}, extract(rest_{at}, '{_NUMBER}'), '') AS figures_{at}")
                plain.append(f"(absent_{at} OR figures_{at} != '')")
                columns.append(f"number_{at}")
                # Exact: the form is proved, and no number of digits is too many for the type.
                digits = f"replaceAll(figures_{at}, '\"', '')"
                values.append(f"toDecimal128(if(figures_{at} IN ('', 'null'), '0', {digits}), {DECIMALS_MAX})")
            if path in needs.texts:
                inside = f"substring(token_{at}, 2, length(token_{at}) - 2)"
                layers[5].append(f"if(once_{at} AND leads_{at}, extract(rest_{at}, '{_SCALAR}'), '') AS token_{at}")
                layers[6].append(
                    f"multiIf(token_{at} = 'null', '', startsWith(token_{at}, '\"'), {inside}, token_{at}) AS said_{at}"
                )
                plain.append(f"(absent_{at} OR (token_{at} != '' AND length(said_{at}) <= {TEXT_BYTES_MAX}))")
                columns.append(f"text_{at}")
                values.append(f"said_{at}")
            columns.append(f"given_{at}")
            values.append(f"{'figures' if path in needs.numbers else 'token'}_{at} NOT IN ('', 'null')")
        fields = _EVENTS
        for layer in layers:
            fields = f"SELECT *, {', '.join(layer)} FROM ({fields})" if layer else fields
        statement = _EXTRACT % {
            "columns": "".join(f", {one}" for one in columns),
            "fields": fields,
            "plain": "".join(f"\n        AND {one}" for one in plain),
            "values": "".join(f",\n    {one}" for one in values),
        }
        return statement, parameters


def _opens(text: str, name: str) -> str:
    """Whether a text begins with a name and the object that is its value."""
    return f"(startsWith({text}, concat({name}, ':{{')) OR startsWith({text}, concat({name}, ': {{')))"


def _needs(event_type: str, versions: Sequence[MeterVersion]) -> Needs:
    numbers: set[str] = set()
    texts: set[str] = set()
    for one in versions:
        reading = reading_of(one.meter)
        texts.update(reading.dimension_paths)
        texts.update(each.field for each in reading.filters)
        if reading.value is not None:
            (numbers if reading.is_number else texts).add(reading.value)
    return Needs(event_type, tuple(sorted(numbers)), tuple(sorted(texts)))
