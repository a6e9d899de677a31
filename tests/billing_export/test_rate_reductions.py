"""Discounts: which lines they reduce, in which order, to the minor unit."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_export.reductions import Reduction, Scope, holds, reduce_lines, spread
from schemas.charges import Discount
from schemas.errors import InvariantViolationError


def percent(number: str, scope: Scope, *lines: int, name: str = "p") -> Reduction:
    return Reduction(discount=Discount(id=name, percent=Decimal(number)), scope=scope, lines=lines)


def amount(number: str, scope: Scope, *lines: int, name: str = "a") -> Reduction:
    return Reduction(discount=Discount(id=name, amount=Decimal(number)), scope=scope, lines=lines)


def money(*amounts: str) -> list[Decimal]:
    return [Decimal(one) for one in amounts]


def test_discounts_are_taken_scope_by_scope_of_what_is_left() -> None:
    reductions = [
        amount("5", Scope.INVOICE, 0, 1, name="bill"),
        percent("10", Scope.PLAN, 0, 1, name="plan"),
        percent("50", Scope.CHARGE, 0, name="charge"),
    ]

    taken = [(one.discount, one.line, one.amount) for one in reduce_lines(money("20.00", "40.00"), reductions, "USD")]

    assert taken == [
        ("charge", 0, Decimal("10.00")),
        ("plan", 0, Decimal("1.00")),
        ("plan", 1, Decimal("4.00")),
        ("bill", 0, Decimal("1.00")),
        ("bill", 1, Decimal("4.00")),
    ]


def test_two_of_ten_percent_take_nineteen() -> None:
    reductions = [percent("10", Scope.INVOICE, 0), percent("10", Scope.INVOICE, 0)]

    assert sum(one.amount for one in reduce_lines(money("100.00"), reductions, "USD")) == Decimal("19.00")


def test_the_published_coupons_leave_what_was_published() -> None:
    fees = money("10.00", "20.00", "30.00", "40.00", "10.00", "20.00", "30.00", "40.00")
    reductions = [
        amount("20", Scope.CHARGE, 0, 1),
        amount("10", Scope.PLAN, 4, 5, 6, 7),
        amount("5", Scope.INVOICE, *range(8)),
    ]
    off = [Decimal(0)] * 8
    for one in reduce_lines(fees, reductions, "USD"):
        off[one.line] += one.amount

    assert sum(off) == 35
    published = [
        "6.7647059",
        "13.5294117",
        "0.8823529",
        "1.1764706",
        "1.2647059",
        "2.5294118",
        "3.7941176",
        "5.0588235",
    ]
    assert all(abs(one - Decimal(other)) < Decimal("0.01") for one, other in zip(off, published, strict=True))


def test_a_percent_of_several_lines_is_rounded_once_and_spread() -> None:
    taken = reduce_lines(money("0.05", "0.05", "0.05"), [percent("10", Scope.PLAN, 0, 1, 2)], "USD")

    assert [(one.line, one.amount, one.amount_unrounded) for one in taken] == [
        (0, Decimal("0.01"), Decimal("0.005")),
        (1, Decimal("0.01"), Decimal("0.005")),
    ]


def test_an_amount_takes_no_more_than_is_there_and_nothing_from_a_credit() -> None:
    taken = reduce_lines(money("3.00", "-7.00", "0.00"), [amount("10", Scope.INVOICE, 0, 1, 2)], "USD")

    assert [(one.line, one.amount, one.amount_unrounded) for one in taken] == [(0, Decimal("3.00"), Decimal(3))]


def test_an_amount_is_due_for_its_share_of_the_period() -> None:
    half = Reduction(discount=Discount(id="a", amount=Decimal(10)), scope=Scope.PLAN, lines=(0,), share=Fraction(1, 2))

    assert [one.amount for one in reduce_lines(money("30"), [half], "JPY")] == [5]


def test_an_amount_that_was_not_rounded_is_refused() -> None:
    with pytest.raises(InvariantViolationError, match="not in whole minor units of USD"):
        reduce_lines(money("1.005"), [], "USD")


@pytest.mark.parametrize(
    ("index", "limit", "is_held"), [(-1, None, False), (0, None, True), (99, None, True), (2, 3, True), (3, 3, False)]
)
def test_a_discount_holds_for_its_first_periods(index: int, limit: int | None, is_held: bool) -> None:
    assert holds(Discount(id="d", percent=Decimal(1), periods=limit), index) is is_held


cents = st.integers(-500, 100_000).map(lambda one: Decimal(one).scaleb(-2))


@given(
    amounts=st.lists(cents, min_size=1, max_size=6),
    wanted=st.lists(
        st.tuples(
            st.sampled_from(Scope), st.booleans(), st.integers(0, 10_000), st.sets(st.integers(0, 5), min_size=1)
        ),
        max_size=6,
    ),
)
def test_no_line_is_ever_reduced_below_zero_and_amounts_are_spread_exactly(
    amounts: list[Decimal], wanted: list[tuple[Scope, bool, int, set[int]]]
) -> None:
    reductions = [
        (percent if is_percent else amount)(
            str(Decimal(number).scaleb(-2)),
            scope,
            *sorted(line for line in lines if line < len(amounts)),
            name=str(place),
        )
        for place, (scope, is_percent, number, lines) in enumerate(wanted)
    ]
    left = list(amounts)
    for one in reduce_lines(amounts, reductions, "USD"):
        assert one.amount > 0
        left[one.line] -= one.amount
        assert left[one.line] >= 0

    assert [one for one in left if one < 0] == [one for one in amounts if one < 0]


@given(weights=st.lists(st.integers(0, 10_000), min_size=1, max_size=8), part=st.integers(0, 100))
def test_a_spread_adds_up_and_is_at_most_a_minor_unit_from_its_proportion(weights: list[int], part: int) -> None:
    amounts = [Decimal(one).scaleb(-2) for one in weights]
    total = Decimal(sum(weights) * part // 100).scaleb(-2)

    parts = spread(total, amounts, "USD")

    assert sum(parts) == total
    assert all(0 <= one <= weight for one, weight in zip(parts, amounts, strict=True))
    for one, weight in zip(parts, amounts, strict=True):
        proportion = Fraction(total) * Fraction(weight) / (Fraction(sum(amounts)) or 1)
        assert abs(Fraction(one) - proportion) < Fraction(1, 100)
