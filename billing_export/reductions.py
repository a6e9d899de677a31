"""Discounts by percent and by amount: which lines they reduce, and by how much. Exact to the minor unit.

Discounts by quantity are not here: they are free units, and `billing_export.rate` takes them off before it prices.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import msgspec

from billing_export.money import minor_unit, round_amount, unrounded
from billing_export.rate_number import exactly
from schemas.charges import Discount
from schemas.errors import InvariantViolationError
from schemas.plan import MoneyRounding
from schemas.quantity import ZERO


class Scope(enum.IntEnum):
    """Where a discount stands. They are taken in this order, those of one scope in the order they are written in."""

    CHARGE = 1
    PLAN = 2
    SUBSCRIPTION = 3
    INVOICE = 4


class Reduction(msgspec.Struct, frozen=True, kw_only=True):
    """A discount in force, and the places of the lines it reduces. `share` is the part of its amount that is due."""

    discount: Discount
    scope: Scope
    lines: tuple[int, ...]
    share: Fraction = Fraction(1)


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What one discount takes off one line: `amount` in minor units, more than zero; `amount_unrounded` before that."""

    discount: str
    scope: Scope
    line: int
    amount: Decimal
    amount_unrounded: Decimal


def holds(discount: Discount, period_index: int) -> bool:
    """Whether a discount is in force in a period; 0 is the period in which it starts, a negative index before it."""
    return period_index >= 0 and (discount.periods is None or period_index < discount.periods)


@exactly
def reduce_lines(
    amounts: Sequence[Decimal],
    reductions: Sequence[Reduction],
    currency: str,
    rounding: MoneyRounding = MoneyRounding.HALF_UP,
) -> tuple[Taken, ...]:
    """What every discount takes off every line, in the order in which they are taken.

    `amounts` are the lines' amounts in minor units. Each discount sees what the discounts before it left: scope by
    scope, so that two of ten percent take 19 percent. It takes its amount, or its percent of the sum of its lines
    rounded once, and no more than is left; that is spread over its lines in proportion to what is left of each. Minor
    units that cannot be divided go to the largest remainders, the earlier line first. Lines of zero and below are
    not reduced. Raises InvariantViolationError for an amount that is not in whole minor units.
    """
    left = list(amounts)
    for amount in left:
        if amount != round_amount(amount, currency):
            raise InvariantViolationError(f"{amount} is not in whole minor units of {currency}", where="discounts")
    taken: list[Taken] = []
    for one in sorted(reductions, key=lambda reduction: reduction.scope):
        lines = [line for line in one.lines if left[line] > 0]
        whole = sum((left[line] for line in lines), ZERO)
        wanted = _wanted(one, whole)
        total = min(round_amount(unrounded(wanted), currency, rounding), whole)
        parts = spread(total, [left[line] for line in lines], currency)
        for line, part in zip(lines, parts, strict=True):
            if part > 0:
                exact = unrounded(min(wanted, Fraction(whole)) * Fraction(left[line]) / Fraction(whole))
                taken.append(
                    Taken(discount=one.discount.id, scope=one.scope, line=line, amount=part, amount_unrounded=exact)
                )
        for line, part in zip(lines, parts, strict=True):
            left[line] -= part
    return tuple(taken)


@exactly
def spread(total: Decimal, weights: Sequence[Decimal], currency: str) -> list[Decimal]:
    """`total`, in minor units and not more than the sum of `weights`, in proportion to them, none above its weight.

    The parts add up to `total`. They are whole minor units: what is left goes to the largest remainders, of equal
    ones to the first. Weights are amounts in minor units, none below zero.
    """
    unit = minor_unit(currency)
    whole = sum((Fraction(one) for one in weights), Fraction(0))
    if not whole:
        return [ZERO * unit for _ in weights]
    units = int(total / unit)
    exact = [units * Fraction(one) / whole for one in weights]
    parts = [int(one) for one in exact]
    largest = sorted(range(len(parts)), key=lambda index: (parts[index] - exact[index], index))
    for index in largest[: units - sum(parts)]:
        parts[index] += 1
    return [part * unit for part in parts]


def _wanted(one: Reduction, whole: Decimal) -> Fraction:
    if one.discount.percent is not None:
        return Fraction(whole) * Fraction(one.discount.percent) / 100
    return Fraction(one.discount.amount or ZERO) * one.share
