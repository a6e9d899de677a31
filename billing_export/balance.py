"""Stocks: a balance that events raise and lower, and what of it is billed. Exact; nothing is sampled.

A balance is a step function of time: a change holds from its own instant on, and changes of one instant are one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from billing_export.proration import Span, local_days
from billing_export.rate_number import EXACT
from billing_export.rate_records import Change, Usage
from schemas.charges import Proration, TimeUnit
from schemas.errors import InvariantViolationError
from schemas.quantity import ZERO

_INSTANT: Final = dt.timedelta(microseconds=1)

UNIT_SECONDS: Final = {TimeUnit.SECOND: 1, TimeUnit.MINUTE: 60, TimeUnit.HOUR: 3_600, TimeUnit.DAY: 86_400}
"""Seconds of each time unit that has a fixed length; a day has 24 hours here, whatever the clock did."""


class BalanceChange(msgspec.Struct, frozen=True, kw_only=True):
    """At `time` (an instant with a zone) the balance went up by `amount`, or down where it is negative."""

    time: dt.datetime
    amount: Decimal


class Stock(msgspec.Struct, frozen=True, kw_only=True):
    """A balance over [start, end): what it was when the span began, and its changes in it, in time order."""

    start: dt.datetime
    end: dt.datetime
    opening: Decimal = ZERO
    changes: tuple[BalanceChange, ...] = ()


class Level(msgspec.Struct, frozen=True):
    """The balance was `amount` from `start` to before `end`."""

    start: dt.datetime
    end: dt.datetime
    amount: Decimal


def levels(stock: Stock) -> Iterator[Level]:
    """The balance as spans of one amount each, without gaps. Raises InvariantViolationError for changes out of order.

    A change before the start or after the end is refused too: it belongs to the opening balance, or to nobody.
    """
    instants = [stock.start, *(one.time for one in stock.changes), stock.end]
    for before, after in pairwise(instants):
        if after < before:
            raise InvariantViolationError(f"a change at {before.isoformat()} is out of order", where="balance")
    amount, since = stock.opening, stock.start
    for change in stock.changes:
        if change.time > since:
            yield Level(since, change.time, amount)
            since = change.time
        amount = EXACT.add(amount, change.amount)
    if since < stock.end:
        yield Level(since, stock.end, amount)


def closing(stock: Stock) -> Decimal:
    """The balance at the end."""
    amount = stock.opening
    for change in stock.changes:
        amount = EXACT.add(amount, change.amount)
    return amount


def highest(stock: Stock) -> Decimal:
    """The highest balance that lasted any time, at least zero."""
    return max([ZERO, *(one.amount for one in levels(stock))])


def integral(stock: Stock) -> Decimal:
    """The balance added up over time, in unit-seconds, exact: 3 units for an hour are 10800."""
    total = ZERO
    for one in levels(stock):
        total = EXACT.fma(one.amount, Decimal((one.end - one.start) // _INSTANT), total)
    return EXACT.scaleb(total, -6)


def highest_by_day(stock: Stock, timezone: str) -> dict[dt.date, Decimal]:
    """The highest balance of each local day that the stock's span touches, at least zero."""
    found = dict.fromkeys(local_days((stock.start, stock.end), timezone), ZERO)
    zone = ZoneInfo(timezone)
    for one in levels(stock):
        first = one.start.astimezone(zone).date()
        last = (one.end - _INSTANT).astimezone(zone).date()
        while first <= last:
            found[first] = max(found[first], one.amount)
            first += dt.timedelta(days=1)
    return found


def stock_usage(
    stock: Stock, *, whole: Span, proration: Proration, time_unit: TimeUnit, timezone: str, events_count: int = 0
) -> Usage:
    """What a charge of a `time_weighted` meter prices. `stock` covers the active part of the billing period `whole`.

    By second: the exact integral over the time unit. By day: each local day counts its highest balance, for a day.
    None: the highest balance. The unit `period` divides by the length of the whole period: seats for the whole
    period count 1 each; the full seats choose the tier of the prorated ones, the highest number of them that of a
    volume charge.
    """
    if proration is Proration.NONE:
        return Usage(quantity=highest(stock), events_count=events_count)
    steps = _by_second(stock, whole) if proration is Proration.SECOND else _by_day(stock, whole, timezone)
    periods = sum((Fraction(one.prorated) for one in steps), Fraction(0))
    if time_unit is TimeUnit.PERIOD:
        return Usage(quantity=periods, events_count=events_count, full_quantity=highest(stock), changes=tuple(steps))
    if proration is Proration.SECOND:
        return Usage(quantity=Fraction(integral(stock)) / UNIT_SECONDS[time_unit], events_count=events_count)
    days = sum((Fraction(one) for one in highest_by_day(stock, timezone).values()), Fraction(0))
    return Usage(quantity=days * UNIT_SECONDS[TimeUnit.DAY] / UNIT_SECONDS[time_unit], events_count=events_count)


def _by_second(stock: Stock, whole: Span) -> list[Change]:
    """Each change with what it counts of the whole period: the part from its instant to the stock's end."""
    length = (whole[1] - whole[0]) // _INSTANT
    given = [(stock.start, stock.opening), *((one.time, one.amount) for one in stock.changes)]
    return [
        Change(full=amount, prorated=Fraction(amount) * Fraction((stock.end - time) // _INSTANT, length))
        for time, amount in given
        if amount
    ]


def _by_day(stock: Stock, whole: Span, timezone: str) -> list[Change]:
    """The same for a balance that only changes at midnight, to the highest of the day that begins."""
    length = sum(1 for _ in local_days(whole, timezone))
    days = list(highest_by_day(stock, timezone).values())
    changes: list[Change] = []
    for index, (before, now) in enumerate(pairwise([ZERO, *days])):
        if now != before:
            amount = EXACT.subtract(now, before)
            changes.append(Change(full=amount, prorated=Fraction(amount) * Fraction(len(days) - index, length)))
    return changes
