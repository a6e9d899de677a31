"""The way to the amount of a line, step by step: of a charge as it is rated, of a plan's promise as it is topped up."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import msgspec

from billing_export.bill import MINIMUM, OVERAGE, commitment_for, share_of
from billing_export.commitments import plan_commitment
from billing_export.explain_place import Place, Promise
from billing_export.explain_records import Rating, RolledOver
from billing_export.history import uses
from billing_export.money import format_amount, round_amount, unrounded
from billing_export.rate import rate
from billing_export.rate_records import Step
from billing_export.readings import Answers
from schemas.charges import FlatCharge
from schemas.line_item import LineItem
from schemas.quantity import ZERO, add, format_quantity

BILLED_BEFORE = "billed before"


def rating_of(place: Place, answers: Answers, line: LineItem, before: Sequence[LineItem]) -> Rating:
    """How the price of a line of a charge came about; `before` are the earlier lines of its chain."""
    segment, part = place.priceable.segment, place.priced
    charge = segment.charge
    rated = rate(charge, part.usage, msgspec.structs.replace(part.context, with_steps=True))
    rounding = segment.last.plan.rounding
    steps, exact, amount = (
        rated.steps,
        rated.amount_unrounded,
        round_amount(rated.amount_unrounded, line.currency, rounding),
    )
    if before:
        steps, exact, amount = _less(steps, exact, amount, before)
    return Rating(
        charge=charge,
        part_of_period=str(part.context.fraction),
        rolled_over=_rolled_over(place, answers),
        steps=steps,
        tiers=rated.tiers,
        amount_unrounded=format_quantity(exact),
        amount=format_amount(amount),
        rounding=rounding.value,
    )


def promise_rating(promise: Promise, line: LineItem, before: Sequence[LineItem]) -> Rating:
    """How the amount that tops a plan up came about."""
    last = promise.held[-1]
    rounding = last.plan.rounding
    steps = _overage(promise, line) if line.reference == OVERAGE else _shortfall(promise, line)
    exact = ZERO
    for one in steps:
        exact = add(exact, Decimal(one.amount))
    amount = round_amount(exact, line.currency, rounding)
    if before:
        steps, exact, amount = _less(steps, exact, amount, before)
    return Rating(
        charge=None,
        part_of_period=str(sum((share_of(one) for one in promise.held), Fraction(0))),
        rolled_over=(),
        steps=steps,
        tiers=(),
        amount_unrounded=format_quantity(exact),
        amount=format_amount(amount),
        rounding=rounding.value,
    )


def _less(
    steps: tuple[Step, ...], exact: Decimal, amount: Decimal, before: Sequence[LineItem]
) -> tuple[tuple[Step, ...], Decimal, Decimal]:
    """What is left of a price when what was billed before is taken off."""
    quantity, exact_before = ZERO, ZERO
    for one in before:
        quantity = add(quantity, Decimal(one.quantity))
        exact_before = add(exact_before, Decimal(one.amount_unrounded))
        amount = add(amount, -Decimal(one.amount))
    billed = Step(what=BILLED_BEFORE, quantity=format_quantity(-quantity), amount=format_quantity(-exact_before))
    return (*steps, billed), add(exact, -exact_before), amount


def _rolled_over(place: Place, answers: Answers) -> tuple[RolledOver, ...]:
    charge, earlier = place.priceable.segment.charge, place.priceable.earlier
    if isinstance(charge, FlatCharge) or not earlier:
        return ()
    customer, dimensions = place.made.item.customer, place.priced.measure.dimensions
    values = tuple(dimensions[name] for name in charge.group_by)
    return tuple(
        RolledOver(
            start=one.readings[0].start,
            end=one.readings[-1].end,
            free_quantity=format_quantity(used.free_quantity),
            quantity=format_quantity(used.quantity),
        )
        for one, used in zip(earlier, uses(charge, earlier, customer, values, answers), strict=True)
    )


def _shortfall(promise: Promise, line: LineItem) -> tuple[Step, ...]:
    """What was promised, rounded, less what the plan's lines come to."""
    last = promise.held[-1]
    spent = ZERO
    for one in promise.counted:
        spent = add(spent, one.amount)
    part = sum((share_of(one) for one in promise.held), Fraction(0))
    of_period = "" if part == 1 else f", for {part} of the period"
    if line.reference == MINIMUM:
        what, spent_with = "minimum", add(spent, _other_true_ups(promise, line, spent))
        due = unrounded(
            sum((Fraction(one.prices.minimum or ZERO) * share_of(one) for one in promise.held), Fraction(0))
        )
    else:
        what, spent_with = "commitment", spent
        committed = commitment_for(last.prices.commitment, promise.held) if last.prices.commitment else None
        due = (committed.amount if committed else None) or ZERO
    due_rounded = round_amount(due, line.currency, last.plan.rounding)
    steps = [_step(f"the plan's {what}{of_period}", due_rounded)]
    steps.append(_step(f"spent in {len(promise.counted)} lines", -spent))
    if spent_with != spent:
        steps.append(_step("added by the plan's commitment", spent - spent_with))
    short = due_rounded - spent_with
    if short < 0:
        steps.append(_step("more was spent than promised", -short))
    return tuple(steps)


def _other_true_ups(promise: Promise, line: LineItem, spent: Decimal) -> Decimal:
    """What the plan's commitment adds before its minimum is looked at."""
    last = promise.held[-1]
    if last.prices.commitment is None:
        return ZERO
    rounding = last.plan.rounding
    more = plan_commitment(
        commitment_for(last.prices.commitment, promise.held),
        [one.exact for one in promise.counted],
        spent,
        line.currency,
        rounding=rounding,
    )
    overage = unrounded(sum((Fraction(one) for one in more.overage), Fraction(0)))
    total = round_amount(overage, line.currency, rounding)
    return total if more.shortfall is None else add(total, more.shortfall.amount)


def _overage(promise: Promise, line: LineItem) -> tuple[Step, ...]:
    """For each charge what the part of it beyond the commitment costs more."""
    last = promise.held[-1]
    if last.prices.commitment is None:
        return ()
    commitment = commitment_for(last.prices.commitment, promise.held)
    spent = ZERO
    for one in promise.counted:
        spent = add(spent, one.amount)
    more = plan_commitment(
        commitment, [one.exact for one in promise.counted], spent, line.currency, rounding=last.plan.rounding
    )
    return tuple(
        _step(f"{one.item.charge} beyond the commitment of {format_quantity(commitment.amount or ZERO)}", amount)
        for one, amount in zip(promise.counted, more.overage, strict=True)
        if amount
    )


def _step(what: str, amount: Decimal) -> Step:
    return Step(what=what, quantity=None, amount=format_quantity(amount))
