"""Quotas: how much of a meter a customer may use in a period, and what is told to who asks. Pure."""

from __future__ import annotations

import enum
from datetime import datetime
from decimal import Decimal

import msgspec

from schemas.charges import Identifier, Text
from schemas.meter import Name
from schemas.plan import BillingPeriod


class Quota(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`quantity` of a meter a period, for everybody with a plan or for one customer, in the place of their plans'.

    `period` null is the billing period of the subscription that has the plan; a customer's quota has calendar months
    then. Any other is the calendar's, in the customer's zone.
    """

    id: Identifier
    meter: Name
    quantity: Decimal
    plan: Identifier | None = None
    customer: Identifier | None = None
    period: BillingPeriod | None = None
    description: Text = ""


class LimitKind(enum.Enum):
    """What a limit is: a quota, beyond which usage is not allowed, or an allowance, beyond which it costs money."""

    QUOTA = "quota"
    ALLOWANCE = "allowance"


class Reason(enum.Enum):
    """Why usage is allowed, or is not."""

    WITHIN_QUOTA = "within_quota"
    QUOTA_USED_UP = "quota_used_up"
    NO_QUOTA = "no_quota"
    NOT_IN_PLAN = "not_in_plan"


class Entitlement(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a customer may use a meter now. Quantities are exact decimals as text; times are UTC.

    `limit` is the quota with the least left; without a quota the allowance, `limit_kind` says which. It holds for
    [period_start, resets_at). Null stands where there is no limit, or no period.
    """

    customer: str
    meter: str
    unit: str
    allowed: bool
    reason: Reason
    limit: str | None
    limit_kind: LimitKind | None
    limit_id: str | None
    used: str | None
    left: str | None
    period_start: datetime | None
    resets_at: datetime | None
    as_of: datetime
    catalog_version: int
