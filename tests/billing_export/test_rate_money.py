"""Money: minor units of every currency, two ways of rounding, and the one rule for what does not end."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_export.money import (
    as_quantity,
    cumulative_parts,
    format_amount,
    minor_digits,
    minor_unit,
    round_amount,
    unrounded,
)
from metering.currency import billing_currencies
from schemas.errors import RunError
from schemas.plan import MoneyRounding

ISO_4217 = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW"
    " CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR"
    " ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV"
    " MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD"
    " SSP STN SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
"""Digits of the minor unit, and the codes that have them."""


def test_every_currency_has_the_minor_unit_that_iso_4217_gives_it() -> None:
    told = {code: digits for digits, codes in ISO_4217.items() for code in codes.split()}

    assert {code: minor_digits(code) for code in told} == told
    assert billing_currencies() - set(told) <= {"BGN"}, "Bulgaria's lev went out of force in 2026"
    assert len(told) > 150


@pytest.mark.parametrize("code", ["XXY", "usd", "", "XXX", "XTS", "XAU", "DEM", "CNH"])
def test_what_nobody_can_be_billed_in_has_no_minor_unit(code: str) -> None:
    with pytest.raises(RunError, match=f"'{code}' is no currency"):
        minor_digits(code)


@pytest.mark.parametrize(
    ("amount", "currency", "half_up", "half_even"),
    [
        ("2.675", "USD", "2.68", "2.68"),
        ("2.665", "USD", "2.67", "2.66"),
        ("2.6749999999999999999999999999999999", "USD", "2.67", "2.67"),
        ("-2.665", "USD", "-2.67", "-2.66"),
        ("-0.001", "USD", "0.00", "0.00"),
        ("10", "USD", "10.00", "10.00"),
        ("2.5", "JPY", "3", "2"),
        ("1.0005", "KWD", "1.001", "1.000"),
        ("0.00005", "CLF", "0.0001", "0.0000"),
        ("1250000000000000000000000000000000.005", "USD", "1250000000000000000000000000000000.01",
         "1250000000000000000000000000000000.00"),
    ],
)  # fmt: skip
def test_a_half_of_the_minor_unit_goes_away_from_zero_or_to_the_even_neighbour(
    amount: str, currency: str, half_up: str, half_even: str
) -> None:
    given_amount = Decimal(amount)

    assert format_amount(round_amount(given_amount, currency)) == half_up
    assert format_amount(round_amount(given_amount, currency, MoneyRounding.HALF_EVEN)) == half_even


@given(amount=st.decimals(min_value=-(10**9), max_value=10**9, places=5), currency=st.sampled_from(ISO_4217[2].split()))
def test_a_credit_mirrors_its_charge(amount: Decimal, currency: str) -> None:
    for rounding in MoneyRounding:
        assert round_amount(-amount, currency, rounding) == -round_amount(amount, currency, rounding)
        assert abs(round_amount(amount, currency, rounding) - amount) <= minor_unit(currency) / 2


@pytest.mark.parametrize(
    ("number", "decimal"),
    [
        (Fraction(1, 3), "0.333333333333333333333333"),
        (Fraction(2, 3), "0.666666666666666666666667"),
        (Fraction(-2, 3), "-0.666666666666666666666667"),
        (Fraction(1, 8), "0.125"),
        (Fraction(100), "100"),
        (Fraction(1, 2 * 10**24), "0"),
        (Fraction(3, 2 * 10**24), "0.000000000000000000000002"),
        (Decimal("1.50"), "1.50"),
        (Decimal("0.0000000000000000000000005"), "0"),
        (Decimal("0.0000000000000000000000015"), "0.000000000000000000000002"),
    ],
)
def test_an_amount_is_exact_with_24_decimals_and_else_rounded_half_even_there(
    number: Decimal | Fraction, decimal: str
) -> None:
    assert format(unrounded(number), "f") == decimal


def test_a_quantity_on_a_line_has_twelve_decimals() -> None:
    assert as_quantity(Fraction(10, 31)) == Decimal("0.322580645161")
    assert as_quantity(Decimal("0.1")) == Decimal("0.1")


@given(parts=st.lists(st.fractions(max_denominator=10**6), max_size=12))
def test_rounded_parts_add_up_to_their_rounded_sum(parts: list[Fraction]) -> None:
    found = cumulative_parts(parts)

    assert sum((Fraction(one) for one in found), Fraction(0)) == Fraction(unrounded(sum(parts, Fraction(0))))
    assert all(abs(Fraction(one) - part) <= Fraction(1, 10**24) for one, part in zip(found, parts, strict=True))
