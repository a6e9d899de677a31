"""Rating and rounding: exact amounts from exact quantities."""

from __future__ import annotations

from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_export.money import format_amount, minor_digits, round_amount
from billing_export.rate import rate
from schemas.charges import FlatCharge, GraduatedCharge, PerUnitCharge, Tier
from schemas.errors import RunError

GRADUATED = GraduatedCharge(
    id="g",
    meter="m",
    tiers=(
        Tier(up_to=Decimal(100), unit_amount=Decimal("0.50"), flat_amount=Decimal(5)),
        Tier(up_to=Decimal(1000), unit_amount=Decimal("0.25"), flat_amount=Decimal(1)),
        Tier(unit_amount=Decimal("0.1")),
    ),
)

amounts = st.decimals(min_value=0, max_value=10**6, places=6)
quantities = st.decimals(min_value=0, max_value=10**12, places=12)


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [
        ("0", "0"),
        ("0.001", "5.0005"),
        ("100", "55"),
        ("100.000000000001", "56.00000000000025"),
        ("1000", "281"),
        ("1001", "281.1"),
    ],
)
def test_upper_bounds_are_inclusive_and_flat_amounts_fall_due_on_entry(quantity: str, amount: str) -> None:
    assert rate(GRADUATED, Decimal(quantity)).amount_unrounded == Decimal(amount)


def test_a_graduated_amount_comes_with_the_share_of_each_tier() -> None:
    shares = [
        (one.from_, one.up_to, one.quantity, one.unit_amount, one.flat_amount, one.amount)
        for one in rate(GRADUATED, Decimal(250)).tiers
    ]

    assert shares == [("0", "100", "100", "0.5", "5", "55"), ("100", "1000", "150", "0.25", "1", "38.5")]


def test_a_quantity_below_zero_is_credited_at_the_first_tiers_unit_price() -> None:
    assert rate(GRADUATED, Decimal(-10)).amount_unrounded == Decimal(-5)


def test_a_flat_charge_costs_its_amount_whatever_the_quantity() -> None:
    rated = rate(FlatCharge(id="f", amount=Decimal("49.90")), Decimal(7))

    assert (rated.amount_unrounded, rated.unit_amount) == (Decimal("49.90"), Decimal("49.90"))


def test_nothing_is_lost_when_quantity_and_price_have_all_their_digits() -> None:
    charge = PerUnitCharge(id="p", meter="m", unit_amount=Decimal("123456789012345678.123456789012"))
    quantity = Decimal("9" * 50 + ".999999999999")

    rated = rate(charge, quantity).amount_unrounded

    assert int(rated.scaleb(24, Context(prec=300))) == (10**62 - 1) * 123456789012345678123456789012


@given(quantity=quantities, price=amounts)
def test_one_open_tier_costs_what_a_price_per_unit_costs(quantity: Decimal, price: Decimal) -> None:
    per_unit = PerUnitCharge(id="p", meter="m", unit_amount=price)
    graduated = GraduatedCharge(id="g", meter="m", tiers=(Tier(unit_amount=price),))

    assert rate(graduated, quantity).amount_unrounded == rate(per_unit, quantity).amount_unrounded


@given(low=quantities, more=quantities)
def test_more_usage_never_costs_less(low: Decimal, more: Decimal) -> None:
    assert rate(GRADUATED, low).amount_unrounded <= rate(GRADUATED, low + more).amount_unrounded


@given(quantity=st.integers(min_value=0, max_value=1200))
def test_a_graduated_amount_is_the_sum_of_what_each_unit_costs(quantity: int) -> None:
    expected = Decimal(0)
    for unit in range(1, quantity + 1):
        expected += {1: Decimal(5), 101: Decimal(1)}.get(unit, Decimal(0))
        expected += Decimal("0.50") if unit <= 100 else Decimal("0.25") if unit <= 1000 else Decimal("0.1")

    assert rate(GRADUATED, Decimal(quantity)).amount_unrounded == expected


@pytest.mark.parametrize(
    ("amount", "currency", "rounded"),
    [
        ("2.675", "USD", "2.68"),
        ("2.6749999999999999999999999999999999", "USD", "2.67"),
        ("-2.675", "USD", "-2.68"),
        ("-0.001", "USD", "0.00"),
        ("10", "USD", "10.00"),
        ("2.5", "JPY", "3"),
        ("1.0005", "KWD", "1.001"),
    ],
)
def test_a_half_of_the_minor_unit_goes_away_from_zero(amount: str, currency: str, rounded: str) -> None:
    assert format_amount(round_amount(Decimal(amount), currency)) == rounded


def test_an_unknown_currency_has_no_minor_unit() -> None:
    with pytest.raises(RunError, match="'XXY' is no currency"):
        minor_digits("XXY")
