"""From what a person writes (`--from 2013-01-01 --timezone America/New_York`) to a question. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from schemas.catalog import AppliedCatalog
from schemas.errors import EventRejectedError, RequestError
from schemas.usage_event import parse_time
from schemas.usage_query import By, UsageQuery, Window
from schemas.zone import day_start, zone_of

_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}(-[0-9]{2})?", re.ASCII)


class UsageParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What was written; None and () where nothing was."""

    meter: str
    customers: Sequence[str] = ()
    subjects: Sequence[str] = ()
    start: str | None = None
    end: str | None = None
    window: Window = Window.TOTAL
    timezone: str | None = None
    by: By | None = None
    group_by: Sequence[str] = ()


def query_of(parameters: UsageParameters, catalog: AppliedCatalog, now: datetime) -> UsageQuery:
    """The question that was meant.

    The zone is the one that all customers asked about share, else UTC. `end` is now, `start` the beginning of the
    month that `end` is in. Rows stand for subjects when subjects are asked about and customers are not.
    Raises RequestError for a time or zone that cannot be read.
    """
    timezone = parameters.timezone or _shared_zone(parameters.customers, catalog)
    zone = zone_of(timezone)
    end = now if parameters.end is None else moment_of(parameters.end, zone, "to")
    start = _month_start(end, zone) if parameters.start is None else moment_of(parameters.start, zone, "from")
    by_default = By.SUBJECT if parameters.subjects and not parameters.customers else By.CUSTOMER
    return UsageQuery(
        meter=parameters.meter,
        start=start,
        end=end,
        window=parameters.window,
        timezone=timezone,
        by=parameters.by or by_default,
        subjects=tuple(parameters.subjects) or None,
        customers=tuple(parameters.customers) or None,
        group_by=tuple(parameters.group_by),
    )


def moment_of(text: str, zone: ZoneInfo, where: str) -> datetime:
    """The instant, in UTC, that a text stands for: a day or a month (its beginning in `zone`), or an RFC 3339 time.

    Raises RequestError.
    """
    try:
        if _DAY.fullmatch(text):
            return day_start(date.fromisoformat(text if len(text) > 7 else f"{text}-01"), zone)
        return parse_time(text)
    except (ValueError, OverflowError, EventRejectedError) as error:
        what = error.what if isinstance(error, EventRejectedError) else f"{text!r} is no day: {error}"
        raise RequestError(
            what,
            where=where,
            fix="Use a day such as 2013-01-31 (midnight in the asked zone), a month such as 2013-01, or a time with"
            " its zone such as 2013-01-31T10:30:00-05:00 (in a URL, write + as %2B)",
        ) from error


def _shared_zone(customers: Sequence[str], catalog: AppliedCatalog) -> str:
    zones = {catalog.customers[one].timezone for one in customers if one in catalog.customers}
    return zones.pop() if len(zones) == 1 else "UTC"


def _month_start(end: datetime, zone: ZoneInfo) -> datetime:
    last = end.astimezone(UTC) - timedelta(microseconds=1)
    return day_start(last.astimezone(zone).date().replace(day=1), zone)
