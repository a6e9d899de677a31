"""The statements that fold plain events into the states of their keys, as `aggregators.state` does. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from aggregators.plain_events import Columns
from aggregators.state import Series
from schemas.meter import MeterVersion, reading_of
from schemas.quantity import DECIMALS_MAX
from schemas.usage_event import TIME_MAX, TIME_MIN

_KEY_COLUMNS: Final = "meter, subject, window_start, dimensions, meter_version, epoch, partition, position_first"
_FOLDED_COLUMNS: Final = "value_sum, value_min, value_max, value_latest, latest_time, latest_offset, value_moment"

_KEY: Final = """
{meter:String}, subject, toDateTime(window_s, 'UTC'),
CAST(({names:Array(String)}, CAST([%(dimensions)s] AS Array(String))) AS Map(LowCardinality(String), String)),
{version:UInt32}, {epoch:String}, {partition:UInt32}, beginning
"""
_FROM: Final = """
FROM {scratch:Identifier}.extracted
WHERE shard = {shard:UInt8} AND type = {type:String} AND time_us >= {start_us:Int64} AND time_us < {end_us:Int64}
  AND (subject, day) NOT IN (SELECT subject, day FROM {scratch:Identifier}.odd_days)%(chosen)s
GROUP BY subject, window_s, if(offset >= {first:UInt64}, {first:UInt64}, 0) AS beginning%(grouped)s
"""
_ROLLUPS: Final = f"""
INSERT INTO {{scratch:Identifier}}.rollups ({_KEY_COLUMNS}, position, events_count, digest%(folded_columns)s)
WITH bitShiftLeft(toUInt128(time_us), 64) + toUInt128(offset) AS moment
SELECT {_KEY}, max(offset), count(), sumWithOverflow(digest)%(folded)s
{_FROM}
"""
_MEMBERS: Final = f"""
INSERT INTO {{scratch:Identifier}}.members ({_KEY_COLUMNS}, member, position, since, gone)
SELECT {_KEY}, %(member)s, min(offset), 0, 0
{_FROM}, %(member)s
"""
_CROWDED: Final = """
INSERT INTO {scratch:Identifier}.odd_days
SELECT subject, day FROM {scratch:Identifier}.extracted
WHERE shard = {shard:UInt8} AND type = {type:String} AND NOT is_odd
GROUP BY subject, day HAVING %(crowded)s
"""


def rollups(columns: Columns, series: Series) -> tuple[str, Mapping[str, Any]]:
    """The statement that writes the rows of `rollups`, and its parameters but for the place."""
    reading = reading_of(series.version.meter)
    folded, folded_columns = "", ""
    if series.folds_values and reading.value is not None:
        value = columns.number(reading.value)
        wide = f"toDecimal256({value}, {DECIMALS_MAX})"
        since = "toDecimal64(time_us - toInt64(window_s) * 1000000, 6) / 1000000"
        moment = f"sum({wide} * ({since}))" if series.folds_moments else "0"
        folded_columns = f", {_FOLDED_COLUMNS}"
        # Of equal times the greater offset is the latest.
        folded = (
            f", sum({wide}), min({value}), max({value}), argMax({value}, moment), "
            "fromUnixTimestamp64Micro(toInt64(bitShiftRight(max(moment), 64)), 'UTC'), "
            f"toUInt64(bitAnd(max(moment), toUInt128(18446744073709551615))), {moment}"
        )
    return _filled(_ROLLUPS, columns, series, folded=folded, folded_columns=folded_columns)


def members(columns: Columns, series: Series) -> tuple[str, Mapping[str, Any]]:
    """The same for the rows of `members` of a meter that counts them."""
    path = reading_of(series.version.meter).value
    return _filled(_MEMBERS, columns, series, member="''" if path is None else columns.text(path))


def crowded(columns: Columns, versions: Sequence[MeterVersion]) -> list[tuple[str, Mapping[str, Any]]]:
    """The statements that find days with more values of a dimension than a meter takes: their order decides."""
    limits = sorted(
        {
            (one.meter.event_type, path, Series(one, 0).group_values_max)
            for one in versions
            for path in one.meter.group_by.values()
            if Series(one, 0).group_values_max is not None
        }
    )
    found: list[tuple[str, Mapping[str, Any]]] = []
    for event_type in sorted({one[0] for one in limits}):
        own = [(columns.text(path), values_max) for type_, path, values_max in limits if type_ == event_type]
        parameters = {f"limit_{at}": values_max for at, (_, values_max) in enumerate(own)}
        conditions = " OR ".join(f"uniqExact({text}) > {{limit_{at}:UInt64}}" for at, (text, _) in enumerate(own))
        found.append((_CROWDED % {"crowded": conditions}, {"type": event_type, **parameters}))
    return found


def _filled(statement: str, columns: Columns, series: Series, **parts: str) -> tuple[str, Mapping[str, Any]]:
    version = series.version
    reading = reading_of(version.meter)
    parameters: dict[str, Any] = {
        "meter": series.name,
        "version": series.number,
        "first": series.position_first,
        "type": version.meter.event_type,
        "names": series.dimension_names,
        "start_us": _microseconds(version.start or TIME_MIN),
        "end_us": _microseconds(version.end or TIME_MAX),
    }
    chosen = [] if reading.value is None else [columns.is_given(reading.value)]
    for at, one in enumerate(reading.filters):
        text = columns.text(one.field)
        if one.any_of:
            parameters[f"any_{at}"] = list(one.any_of)
            chosen.append(f"has({{any_{at}:Array(String)}}, {text})")
        if one.none_of:
            parameters[f"none_{at}"] = list(one.none_of)
            chosen.append(f"NOT has({{none_{at}:Array(String)}}, {text})")
    dimensions = [columns.text(path) for path in reading.dimension_paths]
    filled = statement % {
        "dimensions": ", ".join(dimensions),
        "grouped": "".join(f", {one}" for one in dimensions),
        "chosen": "".join(f" AND {one}" for one in chosen),
        **parts,
    }
    return filled, parameters


def _microseconds(time: datetime) -> int:
    since = time - TIME_MIN
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
