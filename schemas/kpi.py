"""What a catalog says about KPIs: goals, and when a trial is a qualified lead."""

from __future__ import annotations

import enum
from decimal import Decimal
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from schemas.charges import CurrencyCode, Identifier, Text
from schemas.meter import Name


class Direction(enum.Enum):
    """Whether more of a KPI is better, or less."""

    AT_LEAST = "at_least"
    AT_MOST = "at_most"


class Kpi(enum.Enum):
    """The KPIs that a goal can be set for: the columns of the view `kpi_values`."""

    MRR = "mrr"
    ARR = "arr"
    CUSTOMERS = "customers"
    CUSTOMER_CHURN_RATE = "customer_churn_rate"
    REVENUE_CHURN_RATE = "revenue_churn_rate"
    CUSTOMER_RETENTION_RATE = "customer_retention_rate"
    NET_REVENUE_RETENTION = "net_revenue_retention"
    GROSS_REVENUE_RETENTION = "gross_revenue_retention"
    USAGE_REVENUE = "usage_revenue"
    ARPU = "arpu"
    CLV = "clv"
    CAC = "cac"
    CLV_TO_CAC = "clv_to_cac"
    PAYBACK_MONTHS = "payback_months"
    TRIAL_CONVERSION_RATE = "trial_conversion_rate"
    FREE_TO_PAID_RATE = "free_to_paid_rate"
    PQL_TO_PAID_RATE = "pql_to_paid_rate"
    CUSTOMER_CONVERSION_RATE = "customer_conversion_rate"
    NPS = "nps"
    VIRAL_COEFFICIENT = "viral_coefficient"


WITHOUT_CURRENCY: Final = frozenset({Kpi.CUSTOMER_CONVERSION_RATE, Kpi.NPS, Kpi.VIRAL_COEFFICIENT})
"""KPIs that count no money and no customers of a currency."""


class Goal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A KPI shall be `target` in every month. What misses it by `tolerance` at most is at risk, not missed.

    Both are in the KPI's own unit. `currency` null is a KPI that has none.
    """

    id: Identifier
    kpi: Kpi
    currency: CurrencyCode | None = None
    direction: Direction = Direction.AT_LEAST
    target: Decimal
    tolerance: Decimal = Decimal(0)
    description: Text = ""


class LeadRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A trial is a product-qualified lead once its customer has so many events of a meter before it is over."""

    meter: Name
    events_min: Annotated[int, Meta(ge=1)]
