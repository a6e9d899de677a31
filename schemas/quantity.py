"""Quantities: exact decimals from the JSON text to the line item. The one door for making and adding them.

A quantity has at most 18 integer digits and 12 decimals. Sums have room for 64 integer digits, which no
number of events can fill; arithmetic that would have to round raises instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import (
    Clamped,
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
    Rounded,
    localcontext,
)
from typing import Final

INTEGER_DIGITS_MAX: Final = 18
DECIMALS_MAX: Final = 12

ZERO: Final = Decimal(0)

EXACT: Final = Context(prec=80, traps=[Inexact, Rounded, InvalidOperation, Overflow, DivisionByZero, Clamped])
"""Use its methods (`EXACT.add(a, b)`): they do not depend on the context of the thread that runs them."""

PLAIN_PATTERN: Final = rf"-?(?:0|[1-9][0-9]{{0,{INTEGER_DIGITS_MAX - 1}}})(?:\.[0-9]{{1,{DECIMALS_MAX}}})?"
"""The common form of a quantity, which is read at one look."""
_PLAIN = re.compile(PLAIN_PATTERN, re.ASCII)
_PLAIN_TOKEN = re.compile(PLAIN_PATTERN.encode())
_PLAIN_LINES = re.compile(rf"(?:{PLAIN_PATTERN}\n)*+".encode())
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)


class QuantityError(ValueError):
    """The text is no number that can be billed on; `reason` is `invalid_number` or `number_out_of_range`."""

    def __init__(self, reason: str, what: str) -> None:
        self.reason = reason
        super().__init__(what)


def parse_quantity(text: str) -> Decimal:
    """The exact quantity a JSON number, or the inside of a numeric string, stands for.

    Raises QuantityError for anything that is no plain decimal number (`NaN`, `1_000`, other scripts' digits)
    and for more than 18 integer digits or 12 decimals: a rejection, never a rounding.
    """
    if _PLAIN.fullmatch(text):
        return Decimal(text) or ZERO  # the constructor is exact whatever the context, and 30 digits fit anywhere
    if len(text) > 64 or _NUMBER.fullmatch(text) is None:
        shown = text if len(text) <= 40 else text[:40] + "…"
        raise QuantityError("invalid_number", f"{shown!r} is not a decimal number such as 12 or 0.5")
    number = EXACT.create_decimal(text)
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or -exponent > DECIMALS_MAX:
        raise QuantityError("number_out_of_range", f"{text} has more than {DECIMALS_MAX} decimals")
    if number.adjusted() >= INTEGER_DIGITS_MAX:
        raise QuantityError("number_out_of_range", f"{text} has more than {INTEGER_DIGITS_MAX} integer digits")
    return number or ZERO


def parse_token(token: bytes) -> Decimal:
    """`parse_quantity` of a JSON number as it stands in the text; the common forms cost one look."""
    if _PLAIN_TOKEN.fullmatch(token):
        return Decimal(token.decode()) or ZERO
    return parse_quantity(token.decode("ascii"))


def parse_tokens(tokens: Sequence[bytes]) -> list[Decimal] | None:
    """`parse_token` of many at one look; None when one of them is not in its common form."""
    if not tokens:
        return []
    lines = b"".join([b"\n".join(tokens), b"\n"])
    if lines.count(b"\n") != len(tokens) or _PLAIN_LINES.fullmatch(lines) is None:
        return None
    numbers = list(map(Decimal, lines.decode().split()))
    return numbers if all(numbers) else [number or ZERO for number in numbers]


def add_all(start: Decimal, numbers: Sequence[Decimal]) -> Decimal:
    """The exact sum of `start` and all numbers."""
    if len(numbers) == 1:
        return EXACT.add(start, numbers[0])
    with localcontext(EXACT):
        return sum(numbers, start)


def add(left: Decimal, right: Decimal) -> Decimal:
    """The exact sum."""
    return EXACT.add(left, right)


def format_quantity(quantity: Decimal) -> str:
    """Plain digits, no exponent, no trailing zeros: `1500`, `0.25`, `-3`."""
    text = format(quantity, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
