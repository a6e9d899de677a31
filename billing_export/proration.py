"""Proration: which part of a period a part of it is, by the second or by the local day."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

import msgspec

from billing_export.money import round_amount, unrounded
from billing_export.rate_number import exactly
from schemas.charges import Proration
from schemas.errors import InvariantViolationError
from schemas.plan import MoneyRounding

Span: TypeAlias = tuple[dt.datetime, dt.datetime]
"""Two instants with a zone, half-open: from the first, to before the second."""

_INSTANT: Final = dt.timedelta(microseconds=1)
_DAY: Final = dt.timedelta(days=1)


def fraction_of(
    whole: Span, active: Span, *, proration: Proration, timezone: str, rests: Sequence[Span] = ()
) -> Fraction:
    """The part of `whole` that `active`, less `rests`, is: what a charge with this proration costs of its price.

    By second: seconds that passed over seconds that the whole has, so that a local day of 23 hours counts 23 hours.
    By day: local days that the active part touches, over local days that the whole touches; a day that rests from
    beginning to end does not count. None: 1, and 0 only for a part that is empty.
    Parts that meet at local midnights add up to their whole. Raises InvariantViolationError for a whole that is empty
    or an active part that lies outside.
    """
    if not whole[0] < whole[1] or active[0] < whole[0] or active[1] > whole[1]:
        raise InvariantViolationError(f"{_text(active)} is no part of {_text(whole)}", where="proration")
    parts = list(without(active, rests))
    match proration:
        case Proration.NONE:
            return Fraction(1 if parts else 0)
        case Proration.SECOND:
            return Fraction(sum(_microseconds(part) for part in parts), _microseconds(whole))
        case Proration.DAY:
            days = {day for part in parts for day in local_days(part, timezone)}
            return Fraction(len(days), sum(1 for _ in local_days(whole, timezone)))


def without(active: Span, rests: Sequence[Span]) -> Iterator[Span]:
    """What is left of a span when others are cut out of it, in time order; the others may overlap."""
    start, end = active
    for first, last in sorted(rests):
        if first > start and start < end:
            yield start, min(first, end)
        start = max(start, last)
    if start < end:
        yield start, end


def local_days(span: Span, timezone: str) -> Iterator[dt.date]:
    """Every local day that a span has any part of."""
    if span[0] >= span[1]:
        return
    zone = ZoneInfo(timezone)
    day, last = span[0].astimezone(zone).date(), (span[1] - _INSTANT).astimezone(zone).date()
    while day <= last:
        yield day
        day += _DAY


class PlanChangeNet(msgspec.Struct, frozen=True, kw_only=True):
    """What a change of plan costs at once when both prices are paid in advance; `net` below zero is a credit."""

    credit: Decimal
    charge: Decimal
    net: Decimal


@exactly
def plan_change_net(
    old_amount: Decimal,
    new_amount: Decimal,
    remaining: Fraction,
    currency: str,
    rounding: MoneyRounding = MoneyRounding.HALF_UP,
) -> PlanChangeNet:
    """Credit for the unused part of the old price (zero or below), charge for the rest of the new one.

    Each is a line, so each is rounded to the currency's minor unit; `net` is their sum.
    """
    credit = round_amount(unrounded(-Fraction(old_amount) * remaining), currency, rounding)
    charge = round_amount(unrounded(Fraction(new_amount) * remaining), currency, rounding)
    return PlanChangeNet(credit=credit, charge=charge, net=credit + charge)


def _microseconds(span: Span) -> int:
    return (span[1] - span[0]) // _INSTANT


def _text(span: Span) -> str:
    return f"{span[0].isoformat()} to {span[1].isoformat()}"
