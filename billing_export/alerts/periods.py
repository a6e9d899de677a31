"""The billing periods that customers are in. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from schemas.catalog import AppliedCatalog
from schemas.meter import WINDOW_S
from schemas.period import Period, billing_period_at
from schemas.subscription_life import cadence_of, phases

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WINDOW: Final = timedelta(seconds=WINDOW_S)


def running_periods(catalog: AppliedCatalog, now: datetime) -> tuple[dict[str, list[Period]], datetime]:
    """The periods by customer, each once, and until when they are right.

    Everybody's days begin at a whole quarter of an hour: nothing can change before the next one.
    """
    found: dict[str, list[Period]] = {}
    for subscription in catalog.subscriptions_sorted:
        timezone = catalog.customers[subscription.customer].timezone
        period = billing_period_at(cadence_of(catalog, subscription), now, timezone)
        is_in_it = any(one.start <= now < one.end for one in phases(catalog, subscription, period))
        held = found.setdefault(subscription.customer, [])
        if is_in_it and period not in held:
            held.append(period)
    return found, next_quarter(now)


def next_quarter(now: datetime) -> datetime:
    """The next whole quarter of an hour: no day of anybody begins before it."""
    return now + _WINDOW - (now - _EPOCH) % _WINDOW
