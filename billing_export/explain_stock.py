"""The quantity of a balance as it comes about: after each change, what is billed if nothing changes any more. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import msgspec

from billing_export.balance import UNIT_SECONDS
from billing_export.money import as_quantity
from billing_export.segments import Segment
from billing_export.stocks import unit_of
from metering.usage.tally import LoggedEvent, Measured
from schemas.charges import MeteredCharge, Proration, TimeUnit
from schemas.meter import Meter
from schemas.quantity import ZERO, add
from schemas.zone import zone_of

_INSTANT = timedelta(microseconds=1)


class BalanceShown(msgspec.Struct, frozen=True, kw_only=True):
    """How the windows of a balance are shown: over time, in `time_unit`, and in a sentence what the charge counts."""

    seconds: Fraction
    time_unit: str
    note: str

    def quantity(self, integral: Decimal) -> Decimal:
        """An integral in unit-seconds, in this unit."""
        return as_quantity(Fraction(integral) / self.seconds)


def balance_shown(segment: Segment, charge: MeteredCharge, meter: Meter) -> BalanceShown:
    """Windows in the unit that the charge counts in, so that they add up; in days where it counts highest balances."""
    if charge.proration is not Proration.SECOND:
        counted = "of each local day for the whole day" if charge.proration is Proration.DAY else "of all the time"
        return BalanceShown(
            seconds=Fraction(UNIT_SECONDS[TimeUnit.DAY]),
            time_unit=TimeUnit.DAY.value,
            note=f"Windows show the balance over time; what counts is the highest balance {counted}.",
        )
    unit, period = unit_of(charge, meter), segment.last.period
    whole = Fraction((period.end - period.start) // _INSTANT, 1_000_000)
    return BalanceShown(
        seconds=whole if unit is TimeUnit.PERIOD else Fraction(UNIT_SECONDS[unit]),
        time_unit=unit.value,
        note="Windows show the balance over time, and together they are the quantity.",
    )


class StockSoFar:
    """Counts changes in time order; agrees with `billing_export.balance.stock_usage` after the last of them.

    A balance that is replaced in the same instant lasted no time, and is in neither a day's nor the period's highest.
    """

    def __init__(self, segment: Segment, charge: MeteredCharge, meter: Meter, opening: Decimal) -> None:
        period = segment.last.period
        self._end = segment.end
        self._zone = zone_of(segment.last.customer.timezone)
        self._proration = charge.proration
        self._balance = opening
        self._since = segment.start
        self._highest = ZERO
        self._day_highest = ZERO
        self._days_done = ZERO
        self._integral = Fraction(0)
        unit = unit_of(charge, meter)
        if charge.proration is Proration.NONE:
            self._unit = Fraction(1)
        elif charge.proration is Proration.SECOND:
            whole = Fraction((period.end - period.start) // _INSTANT, 1_000_000)
            self._unit = whole if unit is TimeUnit.PERIOD else Fraction(UNIT_SECONDS[unit])
        else:
            days = Fraction(self._day(period.end - _INSTANT) - self._day(period.start) + 1)
            per_day = UNIT_SECONDS[TimeUnit.DAY]
            self._unit = days if unit is TimeUnit.PERIOD else Fraction(UNIT_SECONDS[unit], per_day)

    @property
    def quantity(self) -> Decimal:
        """What is billed when the balance stays as it is to the end."""
        lasts = self._since < self._end
        match self._proration:
            case Proration.NONE:
                total = Fraction(max(self._highest, self._balance if lasts else ZERO))
            case Proration.SECOND:
                left = Fraction((self._end - self._since) // _INSTANT, 1_000_000)
                total = self._integral + Fraction(self._balance) * left
            case Proration.DAY:
                today = max(self._day_highest, self._balance if lasts else ZERO)
                after = self._day(self._end - _INSTANT) - self._day(self._since) if lasts else 0
                total = Fraction(self._days_done + today) + Fraction(max(self._balance, ZERO)) * after
        return as_quantity(total / self._unit)

    def add(self, _: LoggedEvent, measured: Measured, /) -> None:
        """Count a change."""
        self.change(measured.event.time, measured.measurement.value)

    def change(self, time: datetime, amount: Decimal) -> None:
        """At `time`, not before the last one, the balance goes up or down by `amount`."""
        if time > self._since:
            self._settle(time)
        self._balance = add(self._balance, amount)

    def _settle(self, time: datetime) -> None:
        """The balance lasted until `time`."""
        self._highest = max(self._highest, self._balance)
        self._integral += Fraction(self._balance) * Fraction((time - self._since) // _INSTANT, 1_000_000)
        lasted, first, day = max(self._balance, ZERO), self._day(self._since), self._day(time)
        if day == first:
            self._day_highest = max(self._day_highest, lasted)
        else:
            last = self._day(time - _INSTANT)
            self._days_done = add(self._days_done, max(self._day_highest, lasted))
            self._days_done = add(self._days_done, lasted * (day - first - 1))
            self._day_highest = lasted if last == day else ZERO
        self._since = time

    def _day(self, moment: datetime) -> int:
        return moment.astimezone(self._zone).toordinal()
