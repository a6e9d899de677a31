"""The end of a customer's bill: prepaid credit drawn, credit of earlier bills brought forward, the rest carried. Pure.

What a bill owes the customer is used first: a line below zero, and what earlier bills carried forward, pay for the
lines before any prepaid credit is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from billing_export.credits import CreditableLine, Draw, GrantBalance, draw
from billing_export.lines import Made, Measure, Owner, made
from billing_export.money import round_amount
from billing_export.run import Run
from schemas.catalog import Customer
from schemas.line_item import LineItem, LineKind
from schemas.period import Period, parse_label, period_of
from schemas.plan import Plan
from schemas.quantity import ZERO, add


def settled(
    run: Run,
    customer: Customer,
    lines: Sequence[LineItem],
    outstanding: Mapping[tuple[str, str], Decimal],
    drawn: Mapping[tuple[str, str], Decimal],
) -> list[LineItem]:
    """The lines that end a customer's bill, currency by currency: credits, brought forward, carried forward.

    `outstanding` is what earlier bills carried forward and none used, by customer and currency; `drawn` what earlier
    bills drew from grants, by customer and grant.
    """
    found: list[LineItem] = []
    for currency in dict.fromkeys(one.currency for one in lines):
        mine = [one for one in lines if one.currency == currency]
        brought = outstanding.get((customer.id, currency), ZERO)
        total = -brought
        for one in mine:
            total = add(total, Decimal(one.amount))
        if customer.credits and total > 0:
            credits_drawn = _credits(run, customer, mine, brought=brought, drawn=drawn, currency=currency)
            found += [one.item for one in credits_drawn]
            for credit in credits_drawn:
                total = add(total, credit.amount)
        owner = _owner(run, customer, currency)
        if brought > 0:
            found.append(_forward(run, owner, LineKind.BROUGHT_FORWARD, -brought).item)
        if total < 0:
            found.append(_forward(run, owner, LineKind.CARRIED_FORWARD, -total).item)
    return found


def _credits(
    run: Run,
    customer: Customer,
    lines: Sequence[LineItem],
    *,
    brought: Decimal,
    drawn: Mapping[tuple[str, str], Decimal],
    currency: str,
) -> list[Made]:
    """What each grant pays of each line. Discounts and corrections in the customer's favour come off first."""
    left = {one.id: Decimal(one.amount) for one in lines}
    pool = brought
    for one in lines:
        amount = left[one.id]
        if amount < 0:
            reduced = left.get(one.reduces or "", ZERO)
            taken = min(-amount, max(reduced, ZERO))
            if one.reduces in left:
                left[one.reduces] = reduced - taken
            pool = add(pool, -amount - taken)
    open_lines = [one for one in lines if left[one.id] > 0]
    for one in open_lines:
        taken = min(pool, left[one.id])
        left[one.id] -= taken
        pool -= taken
    balances = [
        GrantBalance(grant=one, balance=max(one.amount - drawn.get((customer.id, one.id), ZERO), ZERO))
        for one in customer.credits
    ]
    texts = {one.id: one.description or one.id for one in customer.credits}
    asked = [
        CreditableLine(charge=one.charge, amount=left[one.id], period_end=parse_label(one.period).after)
        for one in open_lines
    ]
    return [
        _credit(run, customer, open_lines[one.line], one, texts[one.grant]) for one in draw(balances, asked, currency)
    ]


def _credit(run: Run, customer: Customer, line: LineItem, drawn: Draw, text: str) -> Made:
    """Named after the line that it pays for, revision included: each line is paid for in one bill."""
    return made(
        run,
        run.catalog_version,
        Owner(
            customer=customer,
            subscription=line.subscription,
            plan=None if not line.plan else Plan(id=line.plan, version=line.plan_version, charges=()),
            currency=line.currency,
            period=Period(start=line.period_start, end=line.period_end, label=line.period, timezone=line.timezone),
            start=line.service_start,
            end=line.service_end,
        ),
        kind=LineKind.CREDIT,
        charge_id=line.charge,
        description=text,
        measure=Measure(quantity=Decimal(1), dimensions=line.dimensions),
        reference=drawn.grant,
        reduces=line.id,
        exact=-drawn.amount,
        tax_code=line.tax_code,
        revision=line.revision,
        amount=-drawn.amount,
        terms_days=line.terms_days,
    )


def _forward(run: Run, owner: Owner, kind: LineKind, amount: Decimal) -> Made:
    """Named after the run, because a customer may have several bills in a period."""
    brought = kind is LineKind.BROUGHT_FORWARD
    return made(
        run,
        run.catalog_version,
        owner,
        kind=kind,
        description="Credit of earlier bills" if brought else "Credit for the next bill",
        measure=Measure(quantity=Decimal(1), dimensions={"currency": owner.currency}),
        reference=run.id,
        exact=amount,
        # The amount is whole minor units already; the database gives it without its trailing zeros.
        amount=round_amount(amount, owner.currency),
    )


def _owner(run: Run, customer: Customer, currency: str) -> Owner:
    period = period_of(run.period, customer.timezone)
    return Owner(
        customer=customer,
        subscription="",
        plan=None,
        currency=currency,
        period=period,
        start=period.start,
        end=period.end,
    )
