"""Money: the one place that rounds, and formats what was rounded."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from typing import Final

from babel.numbers import get_currency_precision, list_currencies

from schemas.errors import RunError

_ROUNDING: Final = Context(prec=200, rounding=ROUND_HALF_UP, traps=[InvalidOperation, Overflow, DivisionByZero])


def minor_digits(currency: str) -> int:
    """Decimals of a currency's smallest unit: 2 for USD, 0 for JPY, 3 for KWD. Raises RunError for an unknown one."""
    if currency not in list_currencies():
        raise RunError(f"{currency!r} is no currency", where="currency", fix="Use a code of ISO 4217 such as USD")
    return get_currency_precision(currency)


def round_amount(amount: Decimal, currency: str) -> Decimal:
    """The amount in whole minor units; a half goes away from zero, so that a credit mirrors its charge."""
    return _ROUNDING.quantize(amount, Decimal(1).scaleb(-minor_digits(currency)))


def format_amount(amount: Decimal) -> str:
    """Plain digits with every decimal the amount carries: `12.50`, `-3`; never `-0.00`."""
    return format(amount or amount.copy_abs(), "f")
