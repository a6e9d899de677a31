"""Usage of `time_weighted` meters: from the integral where that is enough, else from each change. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from billing_export.balance import UNIT_SECONDS, BalanceChange, Stock, stock_usage
from billing_export.rate_records import Usage
from billing_export.readings import Used
from billing_export.segments import Segment
from schemas.charges import MeteredCharge, PackageCharge, PercentageCharge, PerUnitCharge, Proration, TimeUnit
from schemas.meter import Aggregation, Meter
from schemas.quantity import ZERO, add


def is_stock(meter: Meter) -> bool:
    """Whether a meter's events raise and lower a balance."""
    return meter.aggregation is Aggregation.TIME_WEIGHTED


def needs_changes(meter: Meter, charge: MeteredCharge) -> bool:
    """Whether each change of the balance is needed: its integral alone does not say what to charge."""
    if not is_stock(meter):
        return False
    if charge.proration is not Proration.SECOND:
        return True
    has_one_price = isinstance(charge, PerUnitCharge | PackageCharge | PercentageCharge)
    return unit_of(charge, meter) is TimeUnit.PERIOD and not has_one_price


def stock_usage_of(
    segment: Segment, charge: MeteredCharge, meter: Meter, used: Sequence[Used], changes: Sequence[Used]
) -> Usage:
    """The usage of one line. `used` has the integral; of `changes`, the first may be the balance at the start."""
    period = segment.last.period
    unit = unit_of(charge, meter)
    count = sum(one.events_count for one in used)
    dimensions = used[0].dimensions if used else {}
    if not needs_changes(meter, charge):
        total = sum((Fraction(one.integral or ZERO) for one in used), Fraction(0))
        seconds = UNIT_SECONDS.get(unit) or Fraction(str((period.end - period.start).total_seconds()))
        return Usage(quantity=total / seconds, events_count=count, dimensions=dimensions)
    opening = ZERO
    for one in changes:
        if not one.events_count:
            opening = add(opening, one.quantity)
    stock = Stock(
        start=segment.start,
        end=segment.end,
        opening=opening,
        changes=tuple([BalanceChange(time=one.at, amount=one.quantity) for one in changes if one.events_count]),
    )
    usage = stock_usage(
        stock,
        whole=(period.start, period.end),
        proration=charge.proration,
        time_unit=unit,
        timezone=segment.last.customer.timezone,
        events_count=count,
    )
    return Usage(
        quantity=usage.quantity,
        events_count=count,
        full_quantity=usage.full_quantity,
        changes=usage.changes,
        dimensions=dimensions,
    )


def unit_of(charge: MeteredCharge, meter: Meter | None = None) -> TimeUnit:
    """What a charge counts the time of a meter's balance in: what it says itself, else what its meter says."""
    if charge.time_unit is not None or meter is None:
        return charge.time_unit or TimeUnit.HOUR
    return TimeUnit(meter.time_unit.value)
