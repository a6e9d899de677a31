"""Says whether a customer may use a meter, from what holds and what was used. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from metering.entitlements.terms import Limit, MeterTerms, Span
from schemas.quantity import EXACT, ZERO, format_quantity
from schemas.quota import Entitlement, LimitKind, Reason

NOTHING: Final = MeterTerms()


def entitlement(
    customer: str,
    meter: str,
    unit: str,
    terms: MeterTerms,
    used: Mapping[Span, Decimal],
    *,
    as_of: datetime,
    catalog_version: int,
) -> Entitlement:
    """The answer; `used` has every span of the terms.

    Of several quotas each must have something left, so that the one with the least left is shown. An allowance forbids
    nothing: what goes beyond it is billed.
    """
    tightest = min(terms.limits, key=lambda one: (_left(one, used), one.id), default=None)
    span = terms.covered if tightest is None else tightest.span
    if tightest is None or tightest.kind is LimitKind.ALLOWANCE:
        reason = Reason.NOT_IN_PLAN if terms.covered is None else Reason.NO_QUOTA
    else:
        reason = Reason.WITHIN_QUOTA if _left(tightest, used) > 0 else Reason.QUOTA_USED_UP
    return Entitlement(
        customer=customer,
        meter=meter,
        unit=unit,
        allowed=reason in (Reason.WITHIN_QUOTA, Reason.NO_QUOTA),
        reason=reason,
        limit=None if tightest is None else format_quantity(tightest.quantity),
        limit_kind=None if tightest is None else tightest.kind,
        limit_id=None if tightest is None else tightest.id,
        used=None if span is None else format_quantity(used[span]),
        left=None if tightest is None else format_quantity(max(_left(tightest, used), ZERO)),
        period_start=None if span is None else span.start,
        resets_at=None if span is None else span.end,
        as_of=as_of,
        catalog_version=catalog_version,
    )


def _left(limit: Limit, used: Mapping[Span, Decimal]) -> Decimal:
    return EXACT.subtract(limit.quantity, used[limit.span])
