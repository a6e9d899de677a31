"""What this project makes of a published case, through the functions that make every bill."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from billing_export.balance import BalanceChange, Stock, closing, stock_usage
from billing_export.commitments import minimum_shortfall, plan_commitment
from billing_export.money import round_amount
from billing_export.proration import plan_change_net
from billing_export.rate import Context, Rated, Usage, rate
from billing_export.reductions import Reduction, Scope, reduce_lines
from schemas.charges import (
    Commitment,
    Discount,
    FlatCharge,
    PerUnitCharge,
    Proration,
    QuantityRounding,
    RoundingMode,
    TimeUnit,
)
from schemas.meter import Aggregation
from schemas.rollup import EMPTY, LogMoment, RollupState, merge, quantity
from tests.conformance.published import ZERO, Case, charge_of, context_of, exact, usage_of

CURRENCY: Final = "USD"
"""Every case is in a currency of two decimals."""

ONE_EACH: Final = PerUnitCharge(id="case", meter="case", unit_amount=Decimal(1), minimum=ZERO)
"""What turns units into an amount for the cases that are about units; what is below zero is billed as zero."""

EPOCH: Final = dt.datetime(2023, 3, 1, tzinfo=dt.UTC)

MEMBERS_LEAVE: Final = dt.timedelta(hours=12)
"""A member counts for the day on which it leaves; a sum is lower for the whole day of a negative event."""


class UnknownModelError(LookupError):
    """No rule of this project stands behind the model of a case."""


def outcome(case: Case) -> list[Decimal]:
    """The exact result in currency units (or units); more than one where the case is a chain of invoices.

    Raises UnknownModelError for a model that nothing here prices.
    """
    if case.model in RULES:
        return RULES[case.model](case)
    charge = charge_of(case)
    if charge is None:
        raise UnknownModelError(case.model)
    rated = rate(charge, usage_of(case), context_of(case))
    return [rated.quantity_billed if case.amount_unit == "units" else rated.amount_unrounded]


def agrees(case: Case, found: list[Decimal]) -> bool:
    """Whether the result is the published one: exactly, or once it is rounded to as many digits as are published."""
    expected = [Decimal(one) for one in case.expected_amount.split(",")]
    return len(found) == len(expected) and all(
        _same(case.amount_unit, one, other) for one, other in zip(found, expected, strict=True)
    )


def _same(unit: str, found: Decimal, expected: Decimal) -> bool:
    if unit == "cents":
        return round_amount(found, CURRENCY) * 100 == expected
    exponent = expected.as_tuple().exponent
    digits = max({"major": 2, "units": 5}[unit], -exponent if isinstance(exponent, int) else 0)
    rounding = QuantityRounding(mode=RoundingMode.ROUND, digits=digits)
    rounded = rate(
        PerUnitCharge(id="case", meter="case", unit_amount=Decimal(1), rounding=rounding), Usage(quantity=found)
    )
    return expected in (found, rounded.quantity_billed)


def _aggregation(case: Case) -> list[Decimal]:
    """Events folded as the pipeline folds them, on top of what is carried."""
    aggregation = Aggregation(case.model.removeprefix("agg:").removesuffix("_prorated"))
    state = EMPTY
    for offset, value in enumerate([*case.numbers("carried"), *case.values]):
        moment = LogMoment(time=EPOCH, epoch="case", partition=0, offset=offset)
        state = merge(
            state,
            RollupState(
                events_count=1,
                value_sum=value,
                value_min=value,
                value_max=value,
                value_latest=value,
                latest_at=moment,
            ),
        )
    folded = quantity(aggregation, state, len(set(case.values))) or ZERO
    return [rate(ONE_EACH, Usage(quantity=folded)).amount_unrounded]


def _members(case: Case) -> list[Decimal]:
    """Members that come and go are a stock; what is billed without proration is the number of those who stayed."""
    if not all(isinstance(event, list) for event in case.events or []):
        count = Decimal(len({str(event) for event in case.events or []}))
        return [rate(ONE_EACH, Usage(quantity=count)).amount_unrounded]
    return [rate(ONE_EACH, Usage(quantity=closing(_stock(case)))).amount_unrounded]


def _stock_units(case: Case) -> list[Decimal]:
    """Units for the days they were there, over the days of the period, rounded up as the publisher does."""
    usage = _stock_usage(case, Proration.DAY)
    rounding = QuantityRounding(mode=RoundingMode.CEIL, digits=5)
    charge = PerUnitCharge(id="case", meter="case", unit_amount=Decimal(1), rounding=rounding)
    return [rate(charge, usage).quantity_billed]


def _weighted(case: Case) -> list[Decimal]:
    charge = PerUnitCharge(id="case", meter="case", unit_amount=case.number("amount_per_unit", Decimal(1)))
    rated = rate(charge, _stock_usage(case, Proration.SECOND))
    return [rated.amount_unrounded if case.amount_unit == "major" else rated.quantity_billed]


def _stock_usage(case: Case, proration: Proration) -> Usage:
    stock = _stock(case)
    return stock_usage(
        stock, whole=(stock.start, stock.end), proration=proration, time_unit=TimeUnit.PERIOD, timezone="UTC"
    )


def _stock(case: Case) -> Stock:
    """A balance from events of a time and a value, or of a time, `add` or `remove`, and a member.

    A member is there once however often it is added. Events stand in their order, which days do not tell.
    """
    written = case.properties.get("period_start")
    first = written or min([str(event[0]) for event in case.events or [] if re.match(r"\d{4}-", str(event[0]))] or [""])
    start = dt.datetime.fromisoformat(first).replace(tzinfo=dt.UTC) if first else EPOCH
    start = start if written else start.replace(day=1, hour=0, minute=0, second=0)
    end = start + dt.timedelta(days=int(case.number("period_days", Decimal(62))))
    opening = case.number("initial_value", case.number("carried"))
    changes: list[BalanceChange] = []
    present: set[str] = set()
    for when, *what in case.events or []:
        time = _instant(str(when), start)
        if len(what) == 1:
            amount = exact(what[0])
        elif what[0] == "remove":
            amount = Decimal(-1 if what[1] in present else 0)
            present.discard(what[1])
            time += MEMBERS_LEAVE
        else:
            amount = Decimal(0 if what[1] in present else 1)
            present.add(what[1])
        if time < start:
            opening += amount
        else:
            last = changes[-1].time if changes else start
            changes.append(BalanceChange(time=max(time, last), amount=amount))
    return Stock(start=start, end=end, opening=opening, changes=tuple(changes))


def _instant(written: str, start: dt.datetime) -> dt.datetime:
    """`day 26 of 31`, `before period`, or a time."""
    if written.startswith("before"):
        return start - dt.timedelta(days=1)
    day = re.match(r"day (\d+) of", written)
    if day is not None:
        return start + dt.timedelta(days=int(day[1]) - 1)
    time = dt.datetime.fromisoformat(written)
    return time.replace(tzinfo=time.tzinfo or dt.UTC)


def _part(case: Case) -> Fraction:
    """The part of a period, in whichever way it is written."""
    if "remaining_fraction" in case.properties:
        return Fraction(case.number("remaining_fraction"))
    whole = case.number("period_days", Decimal(1))
    days = case.number("days", case.number("days_remaining", whole)) - case.number("trial_days")
    return Fraction(days) / Fraction(whole)


def _fee(case: Case, *names: str) -> Rated:
    """A flat amount for a part of a period, less what was invoiced for it."""
    amount = next(case.money(name) for name in names if {name, f"{name}_cents"} & set(case.properties))
    charge = FlatCharge(id="case", amount=amount, proration=Proration.DAY)
    invoiced = case.money("already_invoiced")
    context = Context(fraction=_part(case), previous_billed=invoiced or None)
    return rate(charge, Usage(quantity=case.quantity), context)


def _subscription_fee(case: Case) -> list[Decimal]:
    return [_fee(case, "amount", "new_amount").amount_unrounded]


def _spending_minimum(case: Case) -> list[Decimal]:
    spent = case.quantity / 100 if case.amount_unit == "cents" else case.quantity
    short = minimum_shortfall(case.money("min_amount"), spent, CURRENCY, fraction=_part(case))
    return [ZERO if short is None else short.amount]


def _minimum_commitment(case: Case) -> list[Decimal]:
    usage = case.quantity / 100 if case.amount_unit == "cents" else case.quantity
    spent = round_amount(_fee(case, "plan_amount").amount_unrounded, CURRENCY) + usage
    short = minimum_shortfall(case.money("commitment"), spent, CURRENCY, fraction=_part(case))
    return [ZERO if short is None else short.amount]


def _minimum_total(case: Case) -> list[Decimal]:
    short = minimum_shortfall(case.money("minimum"), case.quantity, CURRENCY)
    return [case.quantity + (ZERO if short is None else short.amount)]


def _progressive(case: Case) -> list[Decimal]:
    """The fees of a period, less what was invoiced of them while it ran."""
    charge = PerUnitCharge(id="case", meter="case", unit_amount=case.number("per_unit"))
    context = Context(previous_billed=case.money("already_invoiced"))
    used = rate(charge, Usage(quantity=case.quantity), context).amount_unrounded
    return [used + rate(FlatCharge(id="fee", amount=case.money("plan_amount")), Usage(quantity=ZERO)).amount_unrounded]


def _shared_commitment(case: Case) -> list[Decimal]:
    commitment = Commitment(
        amount=case.money("commitment_amount"),
        overage_factor=case.number("overage_factor", Decimal(1)),
        true_up=bool(case.properties.get("true_up")),
    )
    amounts = [
        rate(PerUnitCharge(id=name, meter="case", unit_amount=exact(price)), Usage(quantity=exact(units)))
        for name, price, units in case.properties["features"]
    ]
    exact_amounts = [one.amount_unrounded for one in amounts]
    spent = sum(exact_amounts, ZERO)
    found = plan_commitment(commitment, exact_amounts, spent, CURRENCY)
    short = ZERO if found.shortfall is None else found.shortfall.amount
    return [spent + sum(found.overage, ZERO) + short]


def _plan_change(case: Case) -> list[Decimal]:
    return [plan_change_net(case.money("old_amount"), case.money("new_amount"), _part(case), CURRENCY).net]


def _percent_coupons(case: Case) -> list[Decimal]:
    subtotal = case.money("subtotal")
    reductions = [
        Reduction(discount=Discount(id=str(place), percent=percent), scope=Scope.INVOICE, lines=(0,))
        for place, percent in enumerate(case.numbers("percent_coupons"))
    ]
    return [subtotal - sum((one.amount for one in reduce_lines([subtotal], reductions, CURRENCY)), ZERO)]


def _coupons(case: Case) -> list[Decimal]:
    """The bill after discounts, for a list of lines of subscriptions and metrics, without its tax."""
    fees: list[list[Any]] = case.properties["fees_cents"]
    reductions: list[Reduction] = []
    for place, (where, cents) in enumerate(case.properties["coupons_in_order"]):
        scope, lines = _covered(str(where), [str(name) for name, *_rest in fees])
        discount = Discount(id=str(place), amount=exact(cents) / 100)
        reductions.append(Reduction(discount=discount, scope=scope, lines=lines))
    amounts = [exact(cents) / 100 for _name, cents, *_tax in fees]
    return [sum(amounts, ZERO) - sum((one.amount for one in reduce_lines(amounts, reductions, CURRENCY)), ZERO)]


def _covered(where: str, names: list[str]) -> tuple[Scope, tuple[int, ...]]:
    """`metrics bm1,bm2`, `plan 2` (the second subscription's), or `all`."""
    kind, _, listed = where.partition(" ")
    wanted = set(listed.split(","))
    if kind == "metrics":
        return Scope.CHARGE, tuple(place for place, name in enumerate(names) if name.partition(".")[2] in wanted)
    if kind == "plan":
        subscriptions = {f"s{number}" for number in wanted}
        return Scope.PLAN, tuple(place for place, name in enumerate(names) if name.partition(".")[0] in subscriptions)
    return Scope.INVOICE, tuple(range(len(names)))


def _invoice_total(case: Case) -> list[Decimal]:
    """The bill: what a tax would add is not this project's."""
    return [case.money("subtotal")]


def _usage_discount(case: Case) -> list[Decimal]:
    """Free units that successive invoices use up."""
    left, billed = case.number("discount_quantity"), list[Decimal]()
    for value in case.values:
        rated = rate(ONE_EACH, Usage(quantity=value), Context(discount_quantity=left))
        left -= rated.discount_used
        billed.append(rated.quantity_billed)
    return billed


RULES: Final[dict[str, Callable[[Case], list[Decimal]]]] = {
    "agg:count": _aggregation,
    "agg:sum": _aggregation,
    "agg:max": _aggregation,
    "agg:latest": _aggregation,
    "agg:unique_count": _members,
    "agg:sum_prorated": _stock_units,
    "agg:unique_count_prorated": _stock_units,
    "agg:weighted_sum": _weighted,
    "subscription_fee_prorated": _subscription_fee,
    "subscription_fee_trial": _subscription_fee,
    "subscription_upgrade_proration": _subscription_fee,
    "spending_minimum_true_up": _spending_minimum,
    "minimum_commitment_true_up": _minimum_commitment,
    "minimum_commitment_total": _minimum_total,
    "progressive_billing_final": _progressive,
    "commitment_overage_shared": _shared_commitment,
    "plan_change_net": _plan_change,
    "coupon_chain": _percent_coupons,
    "coupons_and_tax": _coupons,
    "invoice_total": _invoice_total,
    "usage_discount_split": _usage_discount,
}
"""A rule for each model that is more, or less, than one charge of a meter."""
