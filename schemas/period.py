"""Billing periods: half-open spans of UTC time that begin where a customer's own days begin. Pure arithmetic.

A period has a label, which is how people, files and line items call it:

    2013                        a calendar year
    2013-Q1                     a calendar quarter
    2013-01                     a calendar month
    2013-W05                    an ISO week, Monday to Sunday
    2013-01-31..2013-02-28      from the first local day to the first one after, which is excluded

A cadence says which periods a subscription has. It is a grid over all time, computed from its first day each time,
so that nothing drifts: months from 31 January begin on 28 February and then on 31 March.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final

import msgspec

from schemas.errors import RequestError
from schemas.plan import Anchor, BillingPeriod
from schemas.zone import day_of, day_start, zone_of

YEAR_MIN: Final = 1970
YEAR_MAX: Final = 2099
DAYS_MAX: Final = 3_660
"""The longest period a plan can have."""

_CALENDAR = re.compile(r"([0-9]{4})(?:-(?:Q([1-4])|W([0-9]{2})|(0[1-9]|1[0-2])))?", re.ASCII)
_SPAN = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})\.\.([0-9]{4}-[0-9]{2}-[0-9]{2})", re.ASCII)
_MONTHS: Final = {BillingPeriod.MONTH: 1, BillingPeriod.QUARTER: 3, BillingPeriod.YEAR: 12}
_WEEK_DAYS: Final = 7


class Period(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """[start, end) in UTC, which is `label` on the clocks of `timezone`."""

    start: datetime
    end: datetime
    label: str
    timezone: str

    def contains(self, instant: datetime) -> bool:
        """Whether an instant lies in the period; its end does not."""
        return self.start <= instant < self.end


class Days(msgspec.Struct, frozen=True, kw_only=True):
    """The local days of a label: [first, after). `unit` is the calendar's, None for a span of days."""

    unit: BillingPeriod | None
    first: date
    after: date


class Cadence(msgspec.Struct, frozen=True, kw_only=True):
    """What decides a subscription's billing periods; `start` is its first day.

    The grid has periods before the start and after the end too: whether any of the subscription lies in a period is
    what `schemas.subscription_life.phases` says.
    """

    period: BillingPeriod
    period_days: int | None = None
    anchor: Anchor = Anchor.CALENDAR
    start: date

    @property
    def is_calendar(self) -> bool:
        """Whether its periods are the calendar's own, and are called as the calendar calls them."""
        return self.anchor is Anchor.CALENDAR and self.period is not BillingPeriod.DAYS


@lru_cache(maxsize=16_384)
def parse_label(label: str) -> Days:
    """The days that a label names. Raises RequestError for a text that is no label of the years 1970 to 2099."""
    try:
        if found := _CALENDAR.fullmatch(label):
            year, quarter, week, number = (int(part) if part else None for part in found.groups())
            if year is not None and YEAR_MIN <= year <= YEAR_MAX:
                return _calendar_days(year, quarter, week, number)
        elif found := _SPAN.fullmatch(label):
            first, after = date.fromisoformat(found[1]), date.fromisoformat(found[2])
            if YEAR_MIN <= first.year <= YEAR_MAX and 0 < (after - first).days <= DAYS_MAX:
                return Days(unit=None, first=first, after=after)
    except ValueError:
        pass  # a 53rd week, or a 30 February, that does not exist
    raise RequestError(
        f"{label[:64]!r} is no period",
        where="period",
        fix=f"Use a year, quarter, month, week or span of days from {YEAR_MIN} to {YEAR_MAX}: 2013, 2013-Q1, 2013-01, "
        "2013-W05, 2013-01-31..2013-02-28",
    )


@lru_cache(maxsize=16_384)
def period_of(label: str, timezone: str = "UTC") -> Period:
    """The period with a label, in an IANA zone. Raises RequestError as `parse_label` does, and for an unknown zone."""
    days = parse_label(label)
    zone = zone_of(timezone)
    return Period(start=day_start(days.first, zone), end=day_start(days.after, zone), label=label, timezone=timezone)


def month(label: str, timezone: str = "UTC") -> Period:
    """The month `label` (2013-01) in an IANA zone. Raises RequestError for any other label and an unknown zone."""
    if parse_label(label).unit is not BillingPeriod.MONTH:
        raise RequestError(f"{label!r} is no month", where="period", fix="Use a month such as 2013-01")
    return period_of(label, timezone)


def start_of_day(day: date, timezone: str) -> datetime:
    """The instant, in UTC, at which a local day begins. Raises RequestError for an unknown zone."""
    return day_start(day, zone_of(timezone))


def billing_period(cadence: Cadence, label: str, timezone: str) -> Period | None:
    """The cadence's period with a label, None when none is called so. Raises RequestError for what is no label."""
    days = parse_label(label)
    if cadence.is_calendar:
        return period_of(label, timezone) if days.unit is cadence.period else None
    if days.unit is not None:
        return None
    number = _number_at(cadence, days.first)
    on_grid = _first_day(cadence, number) == days.first and _first_day(cadence, number + 1) == days.after
    return period_of(label, timezone) if on_grid else None


def billing_period_at(cadence: Cadence, at: date | datetime, timezone: str) -> Period:
    """The cadence's period that a local day, or an instant with a zone, lies in.

    Raises RequestError for an instant without a zone, for an unknown zone, and beyond the years 1970 to 2099.
    """
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise RequestError(
                f"{at.isoformat()} has no zone", where="instant", fix="Use a time such as 2013-01-31T00:00:00Z"
            )
        at = day_of(at, zone_of(timezone))
    return _numbered(cadence, _number_at(cadence, at), timezone)


def next_period(cadence: Cadence, period: Period) -> Period:
    """The period that begins where this one, which must be the cadence's, ends. Raises RequestError beyond 2099."""
    return _numbered(cadence, period_number(cadence, period) + 1, period.timezone)


def previous_period(cadence: Cadence, period: Period) -> Period:
    """The period that ends where this one, which must be the cadence's, begins. Raises RequestError before 1970."""
    return _numbered(cadence, period_number(cadence, period) - 1, period.timezone)


def period_number(cadence: Cadence, period: Period) -> int:
    """0 for the period that the cadence's first day lies in, counting up; negative before it."""
    return _number_at(cadence, parse_label(period.label).first)


def _calendar_days(year: int, quarter: int | None, week: int | None, number: int | None) -> Days:
    if week is not None:
        monday = date.fromisocalendar(year, week, 1)
        return Days(unit=BillingPeriod.WEEK, first=monday, after=monday + timedelta(days=_WEEK_DAYS))
    unit, begins = BillingPeriod.YEAR, 1
    if quarter is not None:
        unit, begins = BillingPeriod.QUARTER, quarter * 3 - 2
    elif number is not None:
        unit, begins = BillingPeriod.MONTH, number
    first = date(year, begins, 1)
    return Days(unit=unit, first=first, after=_later(first, _MONTHS[unit]))


@lru_cache(maxsize=16_384)
def _later(day: date, months: int) -> date:
    """The same day of a later month, or its last day where it is too short. Raises ValueError beyond year 9999."""
    years, zero_based = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(years, zero_based + 1, min(day.day, monthrange(years, zero_based + 1)[1]))


def _origin(cadence: Cadence) -> date:
    """The first day of period 0."""
    start = cadence.start
    if not cadence.is_calendar:
        return start
    if cadence.period is BillingPeriod.WEEK:
        return start - timedelta(days=start.weekday())
    months = _MONTHS[cadence.period]
    return date(start.year, (start.month - 1) // months * months + 1, 1)


def _length_days(cadence: Cadence) -> int:
    """The length of a period that is a number of days."""
    if cadence.period is BillingPeriod.WEEK:
        return _WEEK_DAYS
    if cadence.period_days is None:
        raise RequestError("a period in days has no period_days", where="cadence", fix="Give the plan period_days")
    return cadence.period_days


def _first_day(cadence: Cadence, number: int) -> date:
    try:
        if cadence.period in _MONTHS:
            day = _later(_origin(cadence), number * _MONTHS[cadence.period])
        else:
            day = _origin(cadence) + timedelta(days=number * _length_days(cadence))
    except (ValueError, OverflowError) as error:
        raise _beyond() from error
    return day


def _number_at(cadence: Cadence, day: date) -> int:
    """The number of the period that a day lies in."""
    origin = _origin(cadence)
    if cadence.period not in _MONTHS:
        return (day - origin).days // _length_days(cadence)
    months = (day.year - origin.year) * 12 + day.month - origin.month
    number = months // _MONTHS[cadence.period]
    return number if _first_day(cadence, number) <= day else number - 1


def _numbered(cadence: Cadence, number: int, timezone: str) -> Period:
    first, after = _first_day(cadence, number), _first_day(cadence, number + 1)
    return period_of(_label(cadence, first, after), timezone)


def _label(cadence: Cadence, first: date, after: date) -> str:
    year = first.year
    if not cadence.is_calendar:
        label = f"{first.isoformat()}..{after.isoformat()}"
    elif cadence.period is BillingPeriod.YEAR:
        label = f"{year:04}"
    elif cadence.period is BillingPeriod.QUARTER:
        label = f"{year:04}-Q{(first.month + 2) // 3}"
    elif cadence.period is BillingPeriod.MONTH:
        label = f"{year:04}-{first.month:02}"
    else:
        year, week, _ = first.isocalendar()
        label = f"{year:04}-W{week:02}"
    if not YEAR_MIN <= year <= YEAR_MAX:
        raise _beyond()
    return label


def _beyond() -> RequestError:
    return RequestError(
        "there is no such period", where="period", fix=f"Periods begin in the years {YEAR_MIN} to {YEAR_MAX}"
    )
