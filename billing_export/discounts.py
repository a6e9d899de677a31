"""Which discounts are in force for which lines of a bill, and the lines that take them off. Pure.

A percentage and what a charge is given off its own price go by the period of the line they reduce. An amount off a
whole plan, subscription or invoice is taken once a bill.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

import msgspec

from billing_export.lines import Made, Measure, Owner, made
from billing_export.reductions import Reduction, Scope, holds, reduce_lines
from billing_export.run import Run
from billing_export.segments import Segment
from schemas.charges import Discount
from schemas.line_item import LineKind
from schemas.period import Period, billing_period_at, period_number
from schemas.quantity import ZERO, add
from schemas.subscription_life import Phase, cadence_with


class Reducible(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a bill that discounts may reduce, and the segment it is from; a line about a plan has none."""

    line: Made
    owner: Owner
    phase: Phase
    segment: Segment | None = None


def discount_quantity(segment: Segment) -> Decimal:
    """The free units that discounts give a segment."""
    total = ZERO
    for discount, _ in _standing(segment, segment.last):
        if discount.quantity is not None and _holds(discount, segment.last, segment.last.period):
            total = add(total, discount.quantity)
    return total


def discount_lines(run: Run, lines: Sequence[Reducible], period: Period) -> list[tuple[int, Scope, Made]]:
    """What discounts take off the lines of one customer in one currency: (place of the line, scope, discount line).

    `period` is the one that is billed.
    """
    wanted = _reductions(lines, period)
    if not wanted:
        return []
    first = lines[0]
    taken = reduce_lines(
        [one.line.amount for one in lines],
        list(wanted.values()),
        first.owner.currency,
        first.line.rounding,
    )
    texts = {one.discount.id: one.discount.description or one.discount.id for one in wanted.values()}
    found = []
    for one in taken:
        reduced = lines[one.line]
        item = reduced.line.item
        line = made(
            run,
            item.catalog_version,
            reduced.owner,
            kind=LineKind.DISCOUNT,
            charge_id=item.charge,
            description=texts[one.discount],
            measure=Measure(quantity=Decimal(1), dimensions=item.dimensions),
            reference=one.discount,
            reduces=item.id,
            exact=-one.amount_unrounded,
            amount=-one.amount,
            tax_code=item.tax_code,
        )
        found.append((one.line, one.scope, line))
    return found


def _reductions(lines: Sequence[Reducible], period: Period) -> dict[tuple[object, ...], Reduction]:
    """Each discount in force with its lines, in the order in which the catalog has them."""
    found: dict[tuple[object, ...], Reduction] = {}
    for place, one in enumerate(lines):
        for discount, scope in _standing(one.segment, one.phase):
            if discount.quantity is not None:
                continue
            by_bill = discount.amount is not None and scope is not Scope.CHARGE
            if not _holds(discount, one.phase, period if by_bill else one.phase.period):
                continue
            key = _key(discount, scope, one)
            known = found.get(key)
            held = (place,) if known is None else (*known.lines, place)
            found[key] = Reduction(discount=discount, scope=scope, lines=held)
    return found


def _key(discount: Discount, scope: Scope, one: Reducible) -> tuple[object, ...]:
    """What tells one taking of a discount from another."""
    subscription = one.owner.subscription
    plan = "" if one.owner.plan is None else one.owner.plan.id
    match scope:
        case Scope.INVOICE:
            return (scope, discount.id)
        case Scope.SUBSCRIPTION:
            return (scope, subscription, discount.id)
        case Scope.PLAN:
            return (scope, subscription, plan, discount.id)
        case Scope.CHARGE:
            return (scope, subscription, plan, one.line.item.charge, one.owner.start, discount.id)


def _standing(segment: Segment | None, phase: Phase) -> Iterator[tuple[Discount, Scope]]:
    """Every discount that stands where a line is, whether in force or not."""
    charge = None if segment is None else segment.charge
    if charge is not None:
        for one in charge.discounts:
            yield one, Scope.CHARGE
    for scope, discounts in (
        (Scope.PLAN, phase.prices.discounts),
        (Scope.SUBSCRIPTION, phase.subscription.discounts),
        (Scope.INVOICE, phase.customer.discounts),
    ):
        for one in discounts:
            if one.charge is None or (charge is not None and one.charge == charge.id):
                yield one, scope


def _holds(discount: Discount, phase: Phase, period: Period) -> bool:
    """Whether a discount is in force in a period of the phase's subscription."""
    subscription = phase.subscription
    cadence = cadence_with(phase.plan, subscription.start)
    index = period_number(cadence, period)
    if discount.start is not None:
        first = billing_period_at(cadence, discount.start, phase.customer.timezone)
        index -= period_number(cadence, first)
    return holds(discount, index)
