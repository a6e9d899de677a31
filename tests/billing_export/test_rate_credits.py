"""Plan commitments, minimums and prepaid credits: what a plan promises, and what was paid before."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_export.commitments import minimum_shortfall, plan_commitment
from billing_export.credits import CreditableLine, Draw, GrantBalance, draw
from schemas.charges import Commitment
from schemas.errors import InvariantViolationError
from schemas.subscription import CreditGrant

FEBRUARY = dt.date(2013, 2, 1)


def test_a_minimum_is_prorated_and_rounded_before_it_is_compared() -> None:
    short = minimum_shortfall(Decimal(10), Decimal(2), "USD", fraction=Fraction(15, 31))

    assert short is not None
    assert (short.due, short.amount) == (Decimal("4.84"), Decimal("2.84"))
    assert minimum_shortfall(Decimal(10), Decimal("4.84"), "USD", fraction=Fraction(15, 31)) is None


def test_a_plans_commitment_is_used_up_in_the_order_of_its_charges() -> None:
    commitment = Commitment(amount=Decimal(1000), overage_factor=Decimal("1.5"), true_up=True)
    amounts = [Decimal(600), Decimal(-50), Decimal(700), Decimal(10)]

    found = plan_commitment(commitment, amounts, sum(amounts, Decimal(0)), "USD")

    assert [int(one) for one in found.overage] == [0, 0, 150, 5]
    assert found.shortfall is None


def test_a_commitment_that_is_not_used_up_is_topped_up_only_with_true_up() -> None:
    promise = Commitment(amount=Decimal(1000), true_up=True)
    loose = Commitment(amount=Decimal(1000))

    topped = plan_commitment(promise, [Decimal(100)], Decimal(100), "USD", fraction=Fraction(1, 3))
    left = plan_commitment(loose, [Decimal(100)], Decimal(100), "USD", fraction=Fraction(1, 3))

    assert topped.shortfall is not None
    assert topped.shortfall.amount == Decimal("233.33")
    assert left.shortfall is None


def grant(
    name: str,
    balance: str,
    *,
    priority: int = 0,
    expires: dt.date | None = None,
    charges: tuple[str, ...] = (),
    currency: str = "USD",
    start: dt.date = dt.date(2013, 1, 1),
) -> GrantBalance:
    made = CreditGrant(
        id=name,
        amount=Decimal(1000),
        currency=currency,
        priority=priority,
        start=start,
        expires=expires,
        charges=charges,
    )
    return GrantBalance(grant=made, balance=Decimal(balance))


def line(amount: str, charge: str = "calls", period_end: dt.date = FEBRUARY) -> CreditableLine:
    return CreditableLine(charge=charge, amount=Decimal(amount), period_end=period_end)


def told(draws: tuple[Draw, ...]) -> list[tuple[str, int, str, str]]:
    return [(one.grant, one.line, str(one.amount), str(one.balance_after)) for one in draws]


def test_grants_are_drawn_by_priority_then_by_expiry() -> None:
    grants = [
        grant("late", "50"),
        grant("first", "5", priority=0, expires=dt.date(2013, 3, 1)),
        grant("last", "100", priority=9, expires=dt.date(2013, 2, 1)),
    ]

    draws = draw(grants, [line("30.00"), line("40.00")], "USD")

    assert told(draws) == [
        ("first", 0, "5.00", "0.00"),
        ("late", 0, "25.00", "25.00"),
        ("late", 1, "25.00", "0.00"),
        ("last", 1, "15.00", "85.00"),
    ]


@pytest.mark.parametrize(
    "held",
    [
        grant("expired", "50", expires=dt.date(2013, 1, 31)),
        grant("not yet", "50", start=FEBRUARY),
        grant("other charge", "50", charges=("storage",)),
        grant("other currency", "50", currency="EUR"),
        grant("dust", "0.009"),
        grant("empty", "0"),
    ],
)
def test_a_grant_that_does_not_fit_pays_nothing(held: GrantBalance) -> None:
    assert draw([held], [line("30.00")], "USD") == ()


def test_a_grant_pays_for_the_period_that_ends_as_it_expires() -> None:
    held = grant("just", "50.005", expires=FEBRUARY, charges=("calls",))

    assert told(draw([held], [line("60.00")], "USD")) == [("just", 0, "50.00", "0.005")]


def test_a_grant_for_some_charges_does_not_pay_for_what_belongs_to_none() -> None:
    assert draw([grant("some", "50", charges=("calls",))], [line("30.00", charge="")], "USD") == ()


def test_a_credit_is_paid_for_by_nobody() -> None:
    assert draw([grant("all", "50")], [line("-30.00"), line("0.00")], "USD") == ()


def test_a_grant_that_is_overdrawn_already_stops_the_bill() -> None:
    with pytest.raises(InvariantViolationError, match=r"'gone' is overdrawn: -0\.01"):
        draw([grant("gone", "-0.01")], [line("1.00")], "USD")


amounts_in_cents = st.integers(-100, 5_000).map(lambda one: Decimal(one).scaleb(-2))


@given(
    balances=st.lists(st.tuples(st.integers(0, 9_000), st.integers(0, 3), st.booleans()), max_size=5),
    lines=st.lists(st.tuples(amounts_in_cents, st.sampled_from(["calls", "storage"])), max_size=6),
)
def test_credits_never_overdraw_and_never_pay_more_than_is_due(
    balances: list[tuple[int, int, bool]], lines: list[tuple[Decimal, str]]
) -> None:
    grants = [
        grant(f"g{place}", str(Decimal(cents).scaleb(-2)), priority=priority, charges=("calls",) if some else ())
        for place, (cents, priority, some) in enumerate(balances)
    ]
    bill = [CreditableLine(charge=charge, amount=amount, period_end=FEBRUARY) for amount, charge in lines]
    left = {one.grant.id: one.balance for one in grants}
    due = [one.amount for one in bill]
    for one in draw(grants, bill, "USD"):
        left[one.grant] -= one.amount
        due[one.line] -= one.amount
        assert left[one.grant] == one.balance_after

    assert all(one >= 0 for one in left.values())
    assert all(after == before if before <= 0 else after >= 0 for (before, _), after in zip(lines, due, strict=True))
    for held in grants:
        payable = [
            after for after, (_, charge) in zip(due, lines, strict=True) if not held.grant.charges or charge == "calls"
        ]
        assert left[held.grant.id] == 0 or all(after <= 0 for after in payable)
