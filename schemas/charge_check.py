"""Whether the charges fit the meters they name. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from schemas.catalog_parts import Known, Parts
from schemas.charges import (
    DynamicCharge,
    GraduatedPercentageCharge,
    MeteredCharge,
    PercentageCharge,
    Proration,
    TimeUnit,
)
from schemas.meter import Aggregation, Meter
from schemas.problem import Path, Problem


def meter_problems(parts: Parts) -> Iterator[Problem]:
    """The problems of every charge whose meter is there."""
    meters = {meter.name: meter for _, meter in parts.of(Meter)}
    for kind in get_args(MeteredCharge):
        for path, charge in parts.of(kind):
            if charge.meter in meters:
                yield from _dimension_problems(path, charge, meters[charge.meter])
                yield from _balance_problems(path, charge, meters[charge.meter])
                yield from _amount_problems(path, charge, meters)


def _dimension_problems(path: Path, charge: MeteredCharge, meter: Meter) -> Iterator[Problem]:
    """A charge can be grouped only by dimensions that its meter has."""
    known = Known(f"dimension of meter {meter.name!r}", meter.group_by.keys())
    for index, name in enumerate(charge.group_by):
        if name not in known.names:
            yield Problem(path=(*path, "group_by", index), what=known.unknown(name))


def _balance_problems(path: Path, charge: MeteredCharge, meter: Meter) -> Iterator[Problem]:
    """Only a running balance is integrated over time, and it has no usage of its own in an hour or a day."""
    is_balance = meter.aggregation is Aggregation.TIME_WEIGHTED
    if charge.time_unit is not None and not is_balance:
        what = f"expected none: meter {meter.name!r} is a {meter.aggregation.value}, not time_weighted"
        yield Problem(path=(*path, "time_unit"), what=f"found {charge.time_unit.value}, {what}")
    elif charge.time_unit not in (None, TimeUnit.PERIOD) and charge.proration is Proration.NONE:
        what = "expected proration second or day with it: without it the highest balance of the period is charged"
        yield Problem(path=(*path, "time_unit"), what=f"found {charge.time_unit.value}, {what}")
    if charge.bucket is not None and is_balance:
        what = f"expected none: meter {meter.name!r} is a balance, which is the same stock from hour to hour"
        yield Problem(path=(*path, "bucket"), what=f"found {charge.bucket.value}, {what}")


def _amount_problems(path: Path, charge: MeteredCharge, meters: Mapping[str, Meter]) -> Iterator[Problem]:
    """What is read as money must be a sum, and a second meter must have the dimensions of the first."""
    if isinstance(charge, PercentageCharge | GraduatedPercentageCharge):
        yield from _sum_problem((*path, "meter"), meters[charge.meter])
    if isinstance(charge, DynamicCharge) and charge.amount_meter in meters:
        meter = meters[charge.amount_meter]
        yield from _sum_problem((*path, "amount_meter"), meter)
        for name in charge.group_by:
            if name not in meter.group_by and name in meters[charge.meter].group_by:
                what = f"meter {meter.name!r} has no dimension {name!r}, expected those of group_by"
                yield Problem(path=(*path, "amount_meter"), what=what)


def _sum_problem(path: Path, meter: Meter) -> Iterator[Problem]:
    if meter.aggregation is not Aggregation.SUM:
        what = f"found {meter.name!r}, a {meter.aggregation.value}, expected a sum meter: it is read as an amount"
        yield Problem(path=path, what=what)
