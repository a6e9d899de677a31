"""Whether a day's usage is a drop or a spike against the same weekday of the weeks before. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Context, Decimal
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from billing_export.alerts.decide import passed
from schemas.alert import Alert, AlertRule, Watch
from schemas.quantity import DECIMALS_MAX, EXACT, ZERO
from schemas.zone import day_of, day_start

TOLD_S: Final = 86_400
"""How long a day is looked at after a drop on it may be judged: who was away for longer tells nothing of it."""

DAYS_MIN: Final = 2
"""Of how many weekdays at least there must be usage to be compared with; of one where the rule asks for one."""

_HALF: Final = Decimal("0.5")
_STORED: Final = Decimal(1).scaleb(-DECIMALS_MAX)
_ROUNDING: Final = Context(prec=80)
_WEEK: Final = timedelta(days=7)


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """A local day, [start, end) in UTC; drops on it can be judged from `judged_from` on."""

    day: date
    start: datetime
    end: datetime
    judged_from: datetime


class DayUse(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer used of a meter on a day so far, and on the same weekdays `before`, the latest first."""

    customer: str
    meter: str
    unit: str
    day: Day
    used: Decimal
    before: tuple[Decimal, ...]


def local_day(day: date, zone: ZoneInfo, *, hours_after: int = 0) -> Day:
    """A day of a zone."""
    end = day_start(day + timedelta(days=1), zone)
    return Day(day=day, start=day_start(day, zone), end=end, judged_from=end + timedelta(hours=hours_after))


def open_days(rule: AlertRule, zone: ZoneInfo, now: datetime) -> list[Day]:
    """The days that a rule looks at now: the present one and those that ended lately, the latest first."""
    found = []
    one = local_day(day_of(now, zone), zone, hours_after=rule.hours_after)
    while now < one.judged_from + timedelta(seconds=TOLD_S):
        if one.start < one.end:  # zones have skipped whole days
            found.append(one)
        one = local_day(one.day - timedelta(days=1), zone, hours_after=rule.hours_after)
    return found


def days_before(day: date, weeks: int) -> list[date]:
    """The same weekdays of the weeks before, the latest first."""
    return [day - number * _WEEK for number in range(1, weeks + 1)]


def usual(before: Sequence[Decimal]) -> Decimal | None:
    """The median of the days before, the latest first; None where there is nothing to compare with.

    The days before the first one with usage do not count: somebody who is new has no drop and no spike.
    """
    held = list(before)
    while held and held[-1] == 0:
        held.pop()
    if len(held) < min(DAYS_MIN, len(before)):
        return None
    held.sort()
    middle = len(held) // 2
    if len(held) % 2:
        return held[middle]
    return EXACT.multiply(EXACT.add(held[middle - 1], held[middle]), _HALF)


def day_alerts(rule: AlertRule, use: DayUse, *, as_of: datetime) -> Iterator[Alert]:
    """Every threshold of a drop or a spike that a day has reached; a drop only once it can be judged."""
    limit = usual(use.before)
    if limit is None or limit <= 0:
        return
    if rule.watch is Watch.SPIKE:
        reached = passed(rule.percentages, use.used, limit) if use.used >= rule.quantity_min else []
    elif rule.watch is Watch.DROP and as_of >= use.day.judged_from:
        reached = fallen(rule.percentages, use.used, limit) if limit >= rule.quantity_min else []
    else:
        reached = []
    for threshold in reached:
        yield Alert(
            rule=rule.id,
            watch=rule.watch,
            customer=use.customer,
            meter=use.meter,
            limit_id=use.day.day.isoformat(),
            threshold=threshold,
            period_start=use.day.start,
            period_end=use.day.end,
            limit=limit.quantize(_STORED, context=_ROUNDING),
            value=use.used,
            unit=use.unit,
            as_of=as_of,
        )


def fallen(thresholds: Sequence[int], value: Decimal, limit: Decimal) -> list[int]:
    """The percentages of what is usual that a value is not above, greatest first."""
    hundredfold = EXACT.multiply(max(value, ZERO), Decimal(100))
    return [one for one in sorted(thresholds, reverse=True) if hundredfold <= EXACT.multiply(limit, Decimal(one))]
