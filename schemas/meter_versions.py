"""Which version of each meter is in force when, as the catalog changes. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.meter import Meter, MeterVersion, taken_values
from schemas.problem import Problem


def measures(meter: Meter) -> tuple[object, ...]:
    """What decides a meter's numbers: when this changes, the meter has a new version."""
    dimensions = tuple(sorted(meter.group_by.items()))
    return (
        meter.event_type,
        meter.aggregation,
        meter.value,
        meter.filters,
        dimensions,
        meter.time_unit,
        taken_values(meter),
    )


def next_meter_versions(
    before: tuple[MeterVersion, ...], meters: Sequence[Meter], catalog_version: int
) -> tuple[tuple[MeterVersion, ...], list[Problem]]:
    """All meter versions once `meters` are applied as catalog version `catalog_version`, and what forbids it.

    A meter that measures something else than before gets the next number; its predecessor ends where it begins.
    Unit and description may change without a new version.
    """
    problems: list[Problem] = []
    result: list[MeterVersion] = []
    for index, meter in enumerate(meters):
        earlier = [one for one in before if one.meter.name == meter.name]
        if not earlier:
            result.append(_version(meter, 1, catalog_version))
            continue
        *older, current = earlier
        found = _problem(meter, current)
        if found:
            problems.append(Problem(path=("meters", index, "effective_from"), what=found))
        elif measures(meter) == measures(current.meter):
            result += [*older, msgspec.structs.replace(current, meter=meter)]
        else:
            closed = msgspec.structs.replace(current, end=meter.effective_from)
            result += [*older, closed, _version(meter, current.version + 1, catalog_version)]
    kept = {meter.name for meter in meters}
    problems += [
        Problem(
            path=("meters",),
            what=f"meter {name!r} was applied before and is missing, expected it to stay: its numbers are on record",
        )
        for name in sorted({one.meter.name for one in before} - kept)
    ]
    return tuple(result), problems


def _version(meter: Meter, number: int, catalog_version: int) -> MeterVersion:
    return MeterVersion(
        meter=meter, version=number, introduced_in=catalog_version, start=meter.effective_from, end=None
    )


def _problem(meter: Meter, current: MeterVersion) -> str:
    if measures(meter) == measures(current.meter):
        if meter.effective_from == current.start:
            return ""
        since = "always" if current.start is None else current.start.isoformat()
        return (
            f"meter {meter.name!r} measures the same as before but effective_from changed, expected it to stay "
            f"({since}): a version's beginning is on record"
        )
    if meter.effective_from is None:
        return (
            f"meter {meter.name!r} measures something else than version {current.version}, expected effective_from: "
            "the time from which the new version counts"
        )
    if current.start is not None and meter.effective_from <= current.start:
        return (
            f"found {meter.effective_from.isoformat()}, expected a time after {current.start.isoformat()}, "
            f"where version {current.version} of meter {meter.name!r} begins"
        )
    return ""
