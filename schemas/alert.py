"""Alerts: what the catalog asks to be told of, and what is told."""

from __future__ import annotations

import enum
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final
from uuid import UUID, uuid5

import msgspec
from msgspec import Meta

from schemas.charges import CurrencyCode, Identifier, Money, Text
from schemas.meter import Name

_NAMESPACE: Final = UUID("5d3b3e0c-2f0e-5a57-9a53-0c3f4f7f6a41")

Percent = Annotated[int, Meta(ge=1, le=10_000)]


class Watch(enum.Enum):
    """What an alert looks at."""

    QUOTA = "quota"
    ALLOWANCE = "allowance"
    BUDGET = "budget"
    PERIOD_END = "period_end"


class AlertRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tells when a customer passes `thresholds`, in percent, of quotas, of allowances or of a budget, or a period ends.

    `meter` null is every meter, `customers` empty everybody. A budget is `amount` in `currency` for what the
    subscriptions of a billing period come to. `hours_before` is how long before its end a period is told of.
    """

    id: Identifier
    watch: Watch
    meter: Name | None = None
    customers: tuple[Identifier, ...] = ()
    thresholds: tuple[Percent, ...] = (50, 80, 100)
    amount: Money | None = None
    currency: CurrencyCode | None = None
    hours_before: Annotated[int, Meta(ge=1, le=744)] = 24
    description: Text = ""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is told once. Half-open period, UTC; `value` and `limit` are exact, None where there is none.

    `limit_id` is the quota's, the charge's with the allowance, or the label of the period. `unit` is the meter's, or
    the currency. `threshold` is in percent, 0 for a period that ends.
    """

    rule: str
    watch: Watch
    customer: str
    meter: str
    limit_id: str
    threshold: int
    period_start: datetime
    period_end: datetime
    limit: Decimal | None
    value: Decimal | None
    unit: str
    as_of: datetime

    @property
    def id(self) -> str:
        """The same for the same rule, customer, limit, threshold and period: whoever got it before has had it."""
        parts = (
            *(self.rule, self.watch.value, self.customer, self.meter, self.limit_id, str(self.threshold)),
            *(self.period_start.isoformat(), self.period_end.isoformat()),
        )
        return str(uuid5(_NAMESPACE, "".join(f"{len(part)}:{part}" for part in parts)))
