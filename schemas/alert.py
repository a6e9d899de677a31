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
    DROP = "drop"
    SPIKE = "spike"


OF_A_DAY: Final = frozenset({Watch.DROP, Watch.SPIKE})
"""What looks at a day's usage."""

PERCENTAGES: Final[dict[Watch, tuple[int, ...]]] = {Watch.DROP: (50,), Watch.SPIKE: (200,)}
"""Thresholds where a rule names none, for what has not the usual ones."""

_PERCENTAGES_USUAL: Final = (50, 80, 100)


class AlertRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tells when a customer passes `thresholds`, in percent, of quotas, of allowances or of a budget, or a period ends.

    `meter` null is every meter, `customers` empty everybody. A budget is `amount` in `currency` for what the
    subscriptions of a billing period come to. `hours_before` is how long before its end a period is told of.
    A drop and a spike are those of a day's usage, in percent of what is usual on its weekday: the median of `weeks`
    of them before. Less than `quantity_min` is not told of; a drop is looked for `hours_after` the day has ended.
    """

    id: Identifier
    watch: Watch
    meter: Name | None = None
    customers: tuple[Identifier, ...] = ()
    thresholds: tuple[Percent, ...] | None = None
    amount: Money | None = None
    currency: CurrencyCode | None = None
    hours_before: Annotated[int, Meta(ge=1, le=744)] = 24
    weeks: Annotated[int, Meta(ge=1, le=12)] = 4
    hours_after: Annotated[int, Meta(ge=0, le=48)] = 6
    quantity_min: Decimal = Decimal(0)
    description: Text = ""

    @property
    def percentages(self) -> tuple[int, ...]:
        """The thresholds: its own, or those that are usual for what it looks at."""
        return PERCENTAGES.get(self.watch, _PERCENTAGES_USUAL) if self.thresholds is None else self.thresholds


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is told once. Half-open period, UTC; `value` and `limit` are exact, None where there is none.

    `limit_id` is the quota's, the charge's with the allowance, or the label of the period or day. `limit` of a day is
    what is usual. `unit` is the meter's, or the currency. `threshold` is in percent, 0 for a period that ends.
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
