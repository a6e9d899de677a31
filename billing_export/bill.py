"""A customer's bill before credits: charges, what tops plans up, and discounts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction

import msgspec

from billing_export.commitments import minimum_shortfall, plan_commitment
from billing_export.discounts import Reducible, discount_lines
from billing_export.history import earlier_periods
from billing_export.lines import Made, Measure, made
from billing_export.money import unrounded
from billing_export.pricing import Priceable, lines_of, needs_of
from billing_export.proration import fraction_of
from billing_export.readings import Answers
from billing_export.reductions import Scope
from billing_export.run import Run
from billing_export.scope import Term
from billing_export.segments import owner_of, segments
from schemas.catalog import AppliedCatalog
from schemas.charges import Commitment, Proration, Timing
from schemas.line_item import LineKind
from schemas.period import Period
from schemas.quantity import ZERO, add
from schemas.subscription_life import Phase, phases

OVERAGE, COMMITMENT, MINIMUM = "overage", "commitment", "minimum"
"""What a true-up line refers to."""


class TermWork(msgspec.Struct, frozen=True, kw_only=True):
    """A term with all that is charged for it in arrears."""

    term: Term
    phases: tuple[Phase, ...]
    priceables: tuple[Priceable, ...]


class Ordered(msgspec.Struct, frozen=True, kw_only=True):
    """A line with the discounts that reduce it, in their order."""

    line: Made
    discounts: tuple[Made, ...]


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer owes for some terms: lines by subscription, and discounts on the whole."""

    by_subscription: dict[str, list[Ordered]]
    of_invoice: list[Made]

    def __iter__(self) -> Iterator[Made]:
        """Every line, discounts on the whole last."""
        for ordered in self.by_subscription.values():
            for one in ordered:
                yield one.line
                yield from one.discounts
        yield from self.of_invoice


def term_work(catalog: AppliedCatalog, term: Term) -> TermWork:
    """What is charged for a term in arrears."""
    found = tuple(phases(catalog, term.subscription, term.period))
    return TermWork(
        term=term,
        phases=found,
        priceables=tuple(
            [
                Priceable(segment=one, needs=needs_of(catalog, one), earlier=earlier_periods(catalog, one))
                for one in segments(found, Timing.ARREARS)
            ]
        ),
    )


def advance_lines(run: Run, catalog: AppliedCatalog, of_period: Iterable[Phase]) -> list[Reducible]:
    """The lines in advance for one period of a subscription, as the catalog has it."""
    return [
        Reducible(line=line, owner=segment.owner, phase=segment.last, segment=segment)
        for segment in segments(list(of_period), Timing.ADVANCE)
        for line in lines_of(run, catalog, Priceable(segment=segment, needs=None), {})
    ]


def bill_of(
    run: Run,
    catalog: AppliedCatalog,
    works: Sequence[TermWork],
    in_advance: Sequence[Reducible],
    answers: Answers,
    *,
    period: Period,
) -> Bill:
    """The bill of one customer for some terms, with what is billed in advance beside them."""
    lines: list[Reducible] = []
    for work in works:
        mine: list[Reducible] = []
        for one in work.priceables:
            mine += [
                Reducible(line=line, owner=one.segment.owner, phase=one.segment.last, segment=one.segment)
                for line in lines_of(run, catalog, one, answers)
            ]
        lines += mine
        lines += _true_ups(run, catalog, work, mine)
        lines += [one for one in in_advance if one.owner.subscription == work.term.subscription.id]
    known = {work.term.subscription.id for work in works}
    lines += [one for one in in_advance if one.owner.subscription not in known]
    return discounted(run, lines, period)


def discounted(run: Run, lines: Sequence[Reducible], period: Period) -> Bill:
    """Lines with their discounts. Lines keep their order within each subscription."""
    of_line: dict[int, list[Made]] = {}
    of_invoice: list[Made] = []
    if any(_has_discounts(one) for one in lines):
        for currency in dict.fromkeys(one.owner.currency for one in lines):
            places = [place for place, one in enumerate(lines) if one.owner.currency == currency]
            for place, scope, line in discount_lines(run, [lines[at] for at in places], period):
                if scope is Scope.INVOICE:
                    of_invoice.append(line)
                else:
                    of_line.setdefault(places[place], []).append(line)
    by_subscription: dict[str, list[Ordered]] = {}
    for place, one in enumerate(lines):
        by_subscription.setdefault(one.owner.subscription, []).append(
            Ordered(line=one.line, discounts=tuple(of_line.get(place, ())))
        )
    return Bill(by_subscription=by_subscription, of_invoice=of_invoice)


def _has_discounts(one: Reducible) -> bool:
    phase = one.phase
    return bool(
        phase.prices.discounts
        or phase.subscription.discounts
        or phase.customer.discounts
        or (one.segment is not None and one.segment.charge.discounts)
    )


def _true_ups(run: Run, catalog: AppliedCatalog, work: TermWork, lines: Sequence[Reducible]) -> list[Reducible]:
    """What a plan's commitment and then its minimum add, for each plan that the subscription had in the period."""
    of_plan: dict[str, list[Phase]] = {}
    for phase in work.phases:
        if not phase.is_trial and (phase.prices.minimum is not None or phase.prices.commitment is not None):
            of_plan.setdefault(phase.plan.id, []).append(phase)
    found: list[Reducible] = []
    for plan, held in of_plan.items():
        counted = [one for one in lines if one.phase.plan.id == plan]
        counted += [one for one in advance_lines(run, catalog, held) if one.phase.plan.id == plan]
        found += _true_ups_of_plan(run, catalog, held, counted)
    return found


def _true_ups_of_plan(
    run: Run, catalog: AppliedCatalog, held: Sequence[Phase], counted: Sequence[Reducible]
) -> list[Reducible]:
    last = held[-1]
    currency, rounding = last.currency, last.plan.rounding
    spent = ZERO
    for one in counted:
        spent = add(spent, one.line.amount)
    amounts: list[tuple[str, str, Decimal]] = []
    if last.prices.commitment is not None:
        commitment = commitment_for(last.prices.commitment, held)
        more = plan_commitment(commitment, [one.line.exact for one in counted], spent, currency, rounding=rounding)
        overage = sum((Fraction(one) for one in more.overage), Fraction(0))
        if overage:
            amounts.append((OVERAGE, "Beyond the commitment", unrounded(overage)))
        if more.shortfall is not None:
            amounts.append((COMMITMENT, "Up to the commitment", more.shortfall.amount))
    found = [
        _true_up(run, catalog, held, reference=reference, description=description, exact=exact)
        for reference, description, exact in amounts
    ]
    for one in found:
        spent = add(spent, one.line.amount)
    if last.prices.minimum is not None:
        due = unrounded(sum((Fraction(one.prices.minimum or ZERO) * share_of(one) for one in held), Fraction(0)))
        short = minimum_shortfall(due, spent, currency, rounding=rounding)
        if short is not None:
            line = _true_up(run, catalog, held, reference=MINIMUM, description="Up to the minimum", exact=short.amount)
            found.append(line)
    return found


def commitment_for(commitment: Commitment, held: Sequence[Phase]) -> Commitment:
    """The commitment for the part of the period in which the subscription has the plan."""
    total = Fraction(0)
    for one in held:
        if one.prices.commitment is not None:
            total += Fraction(one.prices.commitment.amount or ZERO) * share_of(one)
    return msgspec.structs.replace(commitment, amount=unrounded(total))


def share_of(phase: Phase) -> Fraction:
    """The part of the period that a phase is, by its seconds: a plan promises by time."""
    whole = (phase.period.start, phase.period.end)
    if whole == (phase.start, phase.end):
        return Fraction(1)
    return fraction_of(whole, (phase.start, phase.end), proration=Proration.SECOND, timezone=phase.customer.timezone)


def _true_up(
    run: Run, catalog: AppliedCatalog, held: Sequence[Phase], *, reference: str, description: str, exact: Decimal
) -> Reducible:
    owner = owner_of(held)
    line = made(
        run,
        catalog.version,
        owner,
        kind=LineKind.TRUE_UP,
        description=description,
        measure=Measure(quantity=Decimal(1)),
        reference=reference,
        exact=exact,
    )
    return Reducible(line=line, owner=owner, phase=held[-1])
