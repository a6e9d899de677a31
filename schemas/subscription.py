"""Subscriptions: which customer has which plan, from when, and what happens to it until it ends."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.charges import Charge, CurrencyCode, Discount, Identifier, Money, Text


class PlanChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From the start of local day `at` the subscription has another plan (or version): an upgrade or a downgrade."""

    at: dt.date
    plan: Identifier
    version: Annotated[int, Meta(ge=1)] | None = None


class Pause(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Flat charges rest from the start of day `start` to the start of day `end`; null is until further notice.

    Usage that happens all the same is billed: somebody had the benefit of it.
    """

    start: dt.date
    end: dt.date | None = None


class Subscription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A customer has a plan from the start of day `start` to the start of day `end`, both in the customer's zone.

    `end` is the first day that is no longer covered; null is open: to cancel is to set it. `version` null is as
    `schemas.plan.Plan` says. `trial_days` overrides the plan's. `overrides` are charges that stand for the plan's
    charges of the same id, in this subscription's currency; `currency` null is the customer's.
    """

    id: Identifier
    customer: Identifier
    plan: Identifier
    version: Annotated[int, Meta(ge=1)] | None = None
    start: dt.date
    end: dt.date | None = None
    currency: CurrencyCode | None = None
    trial_days: Annotated[int, Meta(ge=0, le=3_660)] | None = None
    changes: tuple[PlanChange, ...] = ()
    pauses: tuple[Pause, ...] = ()
    overrides: tuple[Charge, ...] = ()
    discounts: tuple[Discount, ...] = ()


class Migration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From day `at` subscriptions on `from_version` of a plan are on `to_version`; of `customers`, or of all."""

    plan: Identifier
    from_version: Annotated[int, Meta(ge=1)]
    to_version: Annotated[int, Meta(ge=1)]
    at: dt.date
    customers: tuple[Identifier, ...] = ()


class CreditGrant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prepaid money of a customer, drawn down before anything is due. Lower `priority` first, then earlier expiry.

    It can be drawn by periods that end after the start of day `start` and not after the start of day `expires`, by the
    customer's clock. `charges` names the only charges it pays for; empty is all.
    """

    id: Identifier
    description: Text = ""
    amount: Money
    currency: CurrencyCode
    priority: Annotated[int, Meta(ge=0, le=1_000)] = 0
    start: dt.date
    expires: dt.date | None = None
    charges: tuple[Identifier, ...] = ()

    @property
    def order(self) -> tuple[int, dt.date, dt.date, str]:
        """Sorts grants in the order in which they are drawn down."""
        return (self.priority, self.expires or dt.date.max, self.start, self.id)
