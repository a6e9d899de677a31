"""What a plan promises to pay over all its charges: a minimum, and a commitment with an overage factor."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import msgspec

from billing_export.money import round_amount, unrounded
from billing_export.rate_number import exactly
from schemas.charges import Commitment
from schemas.plan import MoneyRounding


class Shortfall(msgspec.Struct, frozen=True, kw_only=True):
    """What tops a plan up: `due` is the rounded promise for the period, `amount` what `spent` falls short of it."""

    due: Decimal
    spent: Decimal
    amount: Decimal


class PlanCommitment(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan's commitment adds: for each charge what its part beyond costs more, and what is not used up.

    `overage` is exact (24 decimals) and has a place for each charge, zero or more; `shortfall` is None without
    `true_up`, and where nothing is short.
    """

    overage: tuple[Decimal, ...]
    shortfall: Shortfall | None


@exactly
def minimum_shortfall(
    minimum: Decimal,
    spent: Decimal,
    currency: str,
    *,
    fraction: Fraction = Fraction(1),
    rounding: MoneyRounding = MoneyRounding.HALF_UP,
) -> Shortfall | None:
    """What a plan's lines fall short of its minimum for this part of a period; None where they do not.

    `spent` is the sum of the lines' rounded amounts before discounts, so that the bill adds up to the rounded
    minimum.
    """
    due = round_amount(unrounded(Fraction(minimum) * fraction), currency, rounding)
    return Shortfall(due=due, spent=spent, amount=due - spent) if spent < due else None


@exactly
def plan_commitment(
    commitment: Commitment,
    amounts: Sequence[Decimal],
    spent: Decimal,
    currency: str,
    *,
    fraction: Fraction = Fraction(1),
    rounding: MoneyRounding = MoneyRounding.HALF_UP,
) -> PlanCommitment:
    """What a commitment by amount adds to a plan's charges; their exact `amounts` use it up in the plan's order.

    What a charge costs beyond what is left of the commitment costs `overage_factor` times as much. `spent` is the
    sum of the lines' rounded amounts. Amounts below zero give nothing back to the commitment.
    """
    left = Fraction(commitment.amount or 0) * fraction
    more: list[Decimal] = []
    for amount in amounts:
        cost = max(Fraction(amount), Fraction(0))
        used = min(cost, left)
        left -= used
        more.append(unrounded((cost - used) * (Fraction(commitment.overage_factor) - 1)))
    short = None
    if commitment.true_up and left > 0:
        promised = commitment.amount or Decimal(0)
        short = minimum_shortfall(promised, spent, currency, fraction=fraction, rounding=rounding)
    return PlanCommitment(overage=tuple(more), shortfall=short)
