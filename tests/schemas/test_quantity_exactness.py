"""The one door for numbers, against Python's own Decimal and Fraction."""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, localcontext
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.quantity import QuantityError, add, format_quantity, parse_quantity

PLAIN = st.from_regex(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,12})?", fullmatch=True)
SCIENTIFIC = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,14})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)


def fits(number: Fraction) -> bool:
    """At most 18 integer digits and 12 decimals, said without a Decimal."""
    return abs(number) < 10**18 and (number * 10**12).denominator == 1


def parsed(text: str) -> tuple[Decimal | None, str]:
    try:
        return parse_quantity(text), ""
    except QuantityError as error:
        return None, error.reason


@given(PLAIN)
@example("999999999999999999.999999999999")
@example("-999999999999999999.999999999999")
@example("0.000000000001")
@example("-0")
@example("-0.000")
def test_a_plain_number_is_taken_digit_for_digit(text: str) -> None:
    assert Fraction(parse_quantity(text)) == Fraction(text)


@given(PLAIN)
def test_the_callers_decimal_context_changes_nothing(text: str) -> None:
    with localcontext(Context(prec=3, traps=[Inexact])):
        found = parse_quantity(text)

    assert Fraction(found) == Fraction(text)


@given(SCIENTIFIC)
@example("1e17")
@example("1e18")
@example("1E-12")
@example("1E-13")
@example("1000e-15")
@example("123456789012345678901e-3")
@example("0e-400")
def test_a_number_with_an_exponent_is_exact_or_rejected_and_nothing_between(text: str) -> None:
    found, reason = parsed(text)

    if found is None:
        assert reason == "number_out_of_range"
        # Digits count as written, so 1.0000000000000 may be refused although 1 would do; nothing that fits otherwise.
        written = Decimal(text)
        exponent = written.as_tuple().exponent
        assert isinstance(exponent, int)
        assert exponent < -12 or written.adjusted() >= 18
    else:
        assert Fraction(found) == Fraction(text)
        assert fits(Fraction(text))


@given(st.text(max_size=12))
def test_whatever_text_comes_only_a_quantity_error_goes(text: str) -> None:
    found, reason = parsed(text)

    if found is None:
        assert reason in {"invalid_number", "number_out_of_range"}
    else:
        assert text.isascii()
        assert Fraction(found) == Fraction(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        " 1",
        "1 ",
        "1\n",
        "\t1",
        "+1",
        ".5",
        "5.",
        "01",
        "-01",
        "00",
        "1_000",
        "1,000",
        "1.2.3",
        "--1",
        "-",
        "e5",
        "1e",
        "1e+",
        "1e5.0",
        "0x10",
        "1L",
        "1/2",
        "NaN",
        "nan",
        "sNaN",
        "Infinity",
        "-Infinity",
        "inf",
        "true",
        "null",
        "\u0661",  # Arabic-Indic one
        "\u0967\u0968",  # Devanagari twelve
        "\uff11",  # fullwidth one
        "\u00b2",  # superscript two
        "\u2212" + "1",  # a minus sign that is no hyphen
        "1\u066b5",  # Arabic decimal separator
        "1e1000",
        "1" * 65,
        "0." + "0" * 70,
    ],
)
def test_what_is_no_plain_number_is_invalid(text: str) -> None:
    with pytest.raises(QuantityError) as caught:
        parse_quantity(text)

    assert caught.value.reason == "invalid_number"


@pytest.mark.parametrize(
    "text",
    [
        "1" + "0" * 18,
        "9" * 19,
        "-1" + "0" * 18,
        "1e18",
        "1e400",
        "-1E400",
        "0.1234567890123",
        "1.0000000000000",
        "1e-13",
        "1e-400",
        "999999999999999999.9999999999999",
    ],
)
def test_too_many_digits_are_refused_and_never_rounded(text: str) -> None:
    with pytest.raises(QuantityError) as caught:
        parse_quantity(text)

    assert caught.value.reason == "number_out_of_range"


@pytest.mark.parametrize("text", ["-0", "-0.0", "0.000", "0e5", "-0e-3"])
def test_zero_has_no_sign_and_no_decimals(text: str) -> None:
    assert str(parse_quantity(text)) == "0"


@given(st.lists(PLAIN, max_size=50))
def test_sums_are_exact_in_any_context(texts: list[str]) -> None:
    with localcontext(Context(prec=5)):
        total = Decimal(0)
        for text in texts:
            total = add(total, parse_quantity(text))

    assert Fraction(total) == sum(map(Fraction, texts))


def test_a_sum_that_would_have_to_round_raises() -> None:
    with pytest.raises(Inexact):
        add(Decimal(10) ** 79, Decimal("0.000000000001"))


@given(PLAIN)
def test_a_formatted_quantity_reads_back_as_itself(text: str) -> None:
    shown = format_quantity(parse_quantity(text))

    assert parse_quantity(shown) == parse_quantity(text)
    assert "e" not in shown.lower()
    assert shown != "-0"
    assert not ("." in shown and shown.endswith("0"))


@pytest.mark.parametrize(("text", "shown"), [("1e3", "1000"), ("1500", "1500"), ("0.250", "0.25"), ("-3.0", "-3")])
def test_a_quantity_is_shown_in_plain_digits(text: str, shown: str) -> None:
    assert format_quantity(parse_quantity(text)) == shown
