"""Billing periods: half-open spans of UTC time that begin where a customer's own days begin. Pure arithmetic."""

from __future__ import annotations

import re
from datetime import date, datetime
from functools import lru_cache
from typing import Final

import msgspec

from schemas.errors import RequestError
from schemas.zone import day_start, zone_of

YEAR_MIN: Final = 1970
YEAR_MAX: Final = 2099

_MONTH = re.compile("([0-9]{4})-(0[1-9]|1[0-2])", re.ASCII)


class Period(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """[start, end) in UTC, which is `label` (a month such as 2013-01) on the clocks of `timezone`."""

    start: datetime
    end: datetime
    label: str
    timezone: str

    def next(self) -> Period:
        """The period that begins where this one ends."""
        return _month(*_shifted(self.label, 1), self.timezone)

    def previous(self) -> Period:
        """The period that ends where this one begins."""
        return _month(*_shifted(self.label, -1), self.timezone)

    def contains(self, instant: datetime) -> bool:
        """Whether an instant lies in the period; its end does not."""
        return self.start <= instant < self.end


def month(label: str, timezone: str = "UTC") -> Period:
    """The month `label` (2013-01) in an IANA zone.

    Raises RequestError for a label that is no month of the years 1970 to 2099, and for an unknown zone.
    """
    found = _MONTH.fullmatch(label)
    if found is None or not YEAR_MIN <= int(found.group(1)) <= YEAR_MAX:
        raise RequestError(
            f"{label!r} is no period", where="period", fix=f"Use a month from {YEAR_MIN} to {YEAR_MAX}, such as 2013-01"
        )
    return _month(int(found.group(1)), int(found.group(2)), timezone)


def containing(instant: datetime, timezone: str = "UTC") -> Period:
    """The month that an instant (with a zone) lies in, by the clocks of `timezone`.

    Raises RequestError for an instant outside 1970 to 2099 and for an unknown zone.
    """
    if instant.tzinfo is None:
        raise RequestError(
            f"{instant.isoformat()} has no zone", where="instant", fix="Use a time such as 2013-01-31T00:00:00Z"
        )
    local = instant.astimezone(zone_of(timezone))
    found = month(f"{local.year:04}-{local.month:02}", timezone)
    # Where clocks go back over midnight, the new month's first minutes on the clock still belong to the old one.
    return found if found.start <= instant else found.previous()


def start_of_day(day: date, timezone: str) -> datetime:
    """The instant, in UTC, at which a local day begins. Raises RequestError for an unknown zone."""
    return day_start(day, zone_of(timezone))


@lru_cache(maxsize=4_096)
def _month(year: int, number: int, timezone: str) -> Period:
    following = date(year + number // 12, number % 12 + 1, 1)
    return Period(
        start=start_of_day(date(year, number, 1), timezone),
        end=start_of_day(following, timezone),
        label=f"{year:04}-{number:02}",
        timezone=timezone,
    )


def _shifted(label: str, months: int) -> tuple[int, int]:
    year, _, number = label.partition("-")
    years, zero_based = divmod(int(year) * 12 + int(number) - 1 + months, 12)
    if not YEAR_MIN <= years <= YEAR_MAX:
        raise RequestError(
            f"there is no period beside {label}", where="period", fix=f"Periods are {YEAR_MIN} to {YEAR_MAX}"
        )
    return years, zero_based + 1
