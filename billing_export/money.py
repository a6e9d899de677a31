"""Money: the one place that rounds, and formats what was rounded."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from fractions import Fraction
from functools import lru_cache
from typing import Final

from babel.numbers import get_currency_precision

from metering.currency import billing_currencies
from schemas.errors import RunError
from schemas.plan import MoneyRounding
from schemas.quantity import DECIMALS_MAX

UNROUNDED_DECIMALS_MAX: Final = 24
"""A price and a quantity have 12 decimals each, so what is not divided is exact."""

_TRAPS: Final = [InvalidOperation, Overflow, DivisionByZero]
_ROUNDINGS: Final = {
    MoneyRounding.HALF_UP: Context(prec=400, rounding=ROUND_HALF_UP, traps=_TRAPS),
    MoneyRounding.HALF_EVEN: Context(prec=400, rounding=ROUND_HALF_EVEN, traps=_TRAPS),
}
_EVEN: Final = _ROUNDINGS[MoneyRounding.HALF_EVEN]

_ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)
_PLACES: Final = {places: Decimal((0, (1,), -places)) for places in (UNROUNDED_DECIMALS_MAX, DECIMALS_MAX)}

_ISO_DIGITS: Final = {
    **dict.fromkeys(("AFN", "ALL", "IRR", "KPW", "LAK", "LBP", "MGA", "MMK", "RSD", "SOS", "SYP", "YER"), 2),
    "IQD": 3,
}
"""Where CLDR counts the coins that are in use, and ISO 4217 the minor unit that is on the books."""


@lru_cache(maxsize=512)
def minor_digits(currency: str) -> int:
    """Decimals of a currency's minor unit in ISO 4217: 2 for USD, 0 for JPY, 3 for KWD.

    Raises RunError for a code that is none, is no longer in force, or has no minor unit.
    """
    if currency not in billing_currencies():
        raise RunError(f"{currency!r} is no currency", where="currency", fix="Use a code of ISO 4217 such as USD")
    return _ISO_DIGITS.get(currency, get_currency_precision(currency))


@lru_cache(maxsize=512)
def minor_unit(currency: str) -> Decimal:
    """The smallest amount of a currency: 0.01 for USD. Raises RunError as `minor_digits` does."""
    return Decimal(1).scaleb(-minor_digits(currency), _EVEN)


def round_amount(amount: Decimal, currency: str, rounding: MoneyRounding = MoneyRounding.HALF_UP) -> Decimal:
    """The amount in whole minor units. A half goes away from zero, so that a credit mirrors its charge, or to even."""
    return _ROUNDINGS[rounding].quantize(amount, minor_unit(currency))


def unrounded(amount: Decimal | Fraction) -> Decimal:
    """The amount as a decimal: exact with at most 24 decimals, else rounded half even there."""
    return _decimal(amount, UNROUNDED_DECIMALS_MAX)


def as_quantity(quantity: Decimal | Fraction) -> Decimal:
    """The quantity as a decimal: exact with at most 12 decimals, else rounded half even there."""
    return _decimal(quantity, DECIMALS_MAX)


def cumulative_parts(parts: Sequence[Fraction | Decimal]) -> tuple[Decimal, ...]:
    """`unrounded` of each part, such that they add up to `unrounded` of their sum: a remainder moves on."""
    alone = tuple([unrounded(part) for part in parts])
    if all(isinstance(part, Decimal) and part == one for part, one in zip(parts, alone, strict=True)):
        return alone
    found: list[Decimal] = []
    total, told = Fraction(0), Decimal(0)
    for part in parts:
        total += Fraction(part)
        upto = unrounded(total)
        found.append(_EVEN.subtract(upto, told))
        told = upto
    return tuple(found)


def format_amount(amount: Decimal) -> str:
    """Plain digits with every decimal the amount carries: `12.50`, `-3`; never `-0.00`."""
    return format(amount or amount.copy_abs(), "f")


def _decimal(number: Decimal | Fraction, decimals: int) -> Decimal:
    if not number:
        return _ZERO
    if isinstance(number, Decimal):
        rounded = _EVEN.quantize(number, _PLACES[decimals])
        if rounded == number:
            return number
    else:
        rounded = _EVEN.scaleb(Decimal(round(number * 10**decimals)), -decimals)
    shortest = _EVEN.normalize(rounded)
    return _EVEN.quantize(shortest, _ONE) if shortest == _EVEN.to_integral_value(shortest) else shortest
