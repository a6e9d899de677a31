"""Prepaid credits: which grant pays for which line, and what is left of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Final

import msgspec

from billing_export.money import minor_unit
from billing_export.rate_number import exactly
from schemas.errors import InvariantViolationError
from schemas.subscription import CreditGrant

_FLOOR: Final = Context(prec=400, rounding=ROUND_FLOOR)


class GrantBalance(msgspec.Struct, frozen=True, kw_only=True):
    """A grant and what is left of it before this bill: its amount less everything it has paid for."""

    grant: CreditGrant
    balance: Decimal


class CreditableLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line that credit may pay for: what is left of it after discounts, and the first local day after its period.

    `charge` is empty for a line of a whole plan or bill; only a grant for all charges pays for those.
    """

    charge: str
    amount: Decimal
    period_end: dt.date


class Draw(msgspec.Struct, frozen=True, kw_only=True):
    """`amount` (minor units, more than zero) of a grant pays for the line at place `line`; `balance_after` is left."""

    grant: str
    line: int
    amount: Decimal
    balance_after: Decimal


def can_pay(grant: CreditGrant, line: CreditableLine) -> bool:
    """Whether a grant may pay for a line: its charges, and a period that ends while it is valid."""
    in_time = grant.start < line.period_end and (grant.expires is None or line.period_end <= grant.expires)
    return in_time and (not grant.charges or line.charge in grant.charges)


@exactly
def draw(grants: Sequence[GrantBalance], lines: Sequence[CreditableLine], currency: str) -> tuple[Draw, ...]:
    """Pay a bill's lines from the grants in their order: priority, then earlier expiry, then start, then id.

    Each grant pays the lines in the bill's order, in whole minor units, until it or the bill is used up; a balance
    smaller than a minor unit waits. Grants of other currencies and lines of zero or below are left alone. Raises
    InvariantViolationError for a grant that is overdrawn already: its ledger is wrong.
    """
    unit = minor_unit(currency)
    left = [line.amount for line in lines]
    draws: list[Draw] = []
    for one in sorted(grants, key=lambda held: held.grant.order):
        if one.balance < 0:
            raise InvariantViolationError(f"credit grant {one.grant.id!r} is overdrawn: {one.balance}", where="credits")
        if one.grant.currency != currency:
            continue
        balance = one.balance
        for index, line in enumerate(lines):
            amount = min(left[index], _FLOOR.quantize(balance, unit))
            if amount > 0 and can_pay(one.grant, line):
                left[index] -= amount
                balance -= amount
                draws.append(Draw(grant=one.grant.id, line=index, amount=amount, balance_after=balance))
    return tuple(draws)
