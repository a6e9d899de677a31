"""Time zones: finding one by its IANA name, and when its days begin. The one answer to both, for usage and billing.

A local midnight is not always one instant: clocks are set forward over it and back across it. Days must follow
each other without a gap or an overlap all the same, or usage would be billed never or twice.
"""

from __future__ import annotations

import difflib
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from schemas.errors import RequestError

_INSTANT = timedelta(microseconds=1)


def zone_of(name: str) -> ZoneInfo:
    """The zone with this IANA name, such as `America/New_York`. Raises RequestError for any other text."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        known = {one.lower(): one for one in available_timezones()}
        close = difflib.get_close_matches(name[:64].lower(), known, n=1)
        hint = f"Did you mean {known[close[0]]}?" if close else "Use a name such as Europe/Berlin or UTC"
        raise RequestError(f"{name[:64]!r} is no IANA time zone", where="timezone", fix=hint) from error


@lru_cache(maxsize=65_536)
def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The instant, in UTC, at which a local day begins and the day before it ends.

    Midnight skipped: when the clock is set forward. Midnight twice: the first one, unless the clock went back into
    the day before (as in St. John's until 2011), then the second; ClickHouse tells days apart in the same way.
    A day that a zone skipped altogether (Samoa, 2011-12-30) begins when the next one does.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    first, second = midnight.astimezone(UTC), midnight.replace(fold=1).astimezone(UTC)
    went_back_a_day = second > first and (second - _INSTANT).astimezone(zone).date() < day
    return second if went_back_a_day else first


def day_of(instant: datetime, zone: ZoneInfo) -> date:
    """The local day that an instant (with a zone) belongs to: `day_start(day) <= instant < day_start(day after)`."""
    day = instant.astimezone(zone).date()
    # Where clocks go back over midnight, the new day's first minutes on the clock still belong to the day before.
    return day if day_start(day, zone) <= instant else day - timedelta(days=1)
