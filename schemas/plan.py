"""Plans: what a customer pays for, in one currency or several, and how often."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.charges import Charge, Commitment, CurrencyCode, Discount, Identifier, Money, Text


class BillingPeriod(enum.Enum):
    """How often a plan is billed. `days` is `period_days` days, counted from the subscription's start."""

    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"
    DAYS = "days"


class Anchor(enum.Enum):
    """Where periods begin: on the calendar's own boundaries, or on the day of the month the subscription began.

    From 31 January an anniversary month ends on 28 (or 29) February, and the next on 31 March.
    """

    CALENDAR = "calendar"
    ANNIVERSARY = "anniversary"


class MoneyRounding(enum.Enum):
    """What a line's amount does with exactly half of a minor unit: away from zero, or to the even neighbour."""

    HALF_UP = "half_up"
    HALF_EVEN = "half_even"


class PriceList(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan's prices in another currency: the same charges by id, model, meter and dimensions."""

    charges: tuple[Charge, ...]
    minimum: Money | None = None
    commitment: Commitment | None = None
    discounts: tuple[Discount, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is charged. Several entries with one `id` are versions of the plan, told apart by `version`.

    A subscription has the newest version whose `effective_from` (a day; null is always) is not after its own start, and
    keeps it (grandfathering) until a migration or a change moves it. `charges`, `minimum` (money a period) and
    `commitment` (by amount, over all charges in their order) are in `currency`; `prices` has them in others.
    `terms_days` is when an invoice is due. `trial_days` from a subscription's start are not billed.
    """

    id: Identifier
    version: Annotated[int, Meta(ge=1)] = 1
    effective_from: dt.date | None = None
    name: Text = ""
    currency: CurrencyCode = "USD"
    charges: tuple[Charge, ...]
    minimum: Money | None = None
    commitment: Commitment | None = None
    discounts: tuple[Discount, ...] = ()
    prices: dict[CurrencyCode, PriceList] = {}
    period: BillingPeriod = BillingPeriod.MONTH
    period_days: Annotated[int, Meta(ge=1, le=3_660)] | None = None
    anchor: Anchor = Anchor.CALENDAR
    trial_days: Annotated[int, Meta(ge=0, le=3_660)] = 0
    rounding: MoneyRounding = MoneyRounding.HALF_UP
    terms_days: Annotated[int, Meta(ge=0, le=365)] | None = None

    def price_list(self, currency: str) -> PriceList:
        """What is charged in `currency`. Raises KeyError for one the plan has no prices in."""
        if currency == self.currency:
            return PriceList(
                charges=self.charges, minimum=self.minimum, commitment=self.commitment, discounts=self.discounts
            )
        return self.prices[currency]
