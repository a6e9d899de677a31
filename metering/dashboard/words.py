"""How values are written on a page. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import babel.numbers
from markupsafe import Markup

from schemas.quantity import format_quantity

_SPAN_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def grouped(number: Decimal | int | str) -> str:
    """Plain digits with every decimal that there is, thousands apart: `1,234.50`."""
    text = number if isinstance(number, str) else format_quantity(Decimal(number))
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    whole, dot, fraction = digits.partition(".")
    return f"{sign}{int(whole):,}{dot}{fraction}" if whole.isascii() and whole.isdigit() else text


def number(value: Decimal | int | str | None) -> Markup:
    """A number for people and, exactly as it is, for programs; a dash where there is none."""
    if value is None:
        return Markup('<span class="none">–</span>')  # noqa: RUF001 - a dash
    exact = value if isinstance(value, str) else format_quantity(Decimal(value))
    return Markup('<data value="{}">{}</data>').format(exact, grouped(exact))


def money(amount: Decimal | str | None, currency: str) -> Markup:
    """An amount with its currency's code."""
    if amount is None:
        return number(None)
    return Markup('{} <span class="unit">{}</span>').format(number(amount), currency)


def moment(at: datetime | None) -> Markup:
    """A time in UTC, to the second."""
    if at is None:
        return Markup('<span class="none">never</span>')
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(f"{utc:%Y-%m-%dT%H:%M:%SZ}", f"{utc:%Y-%m-%d %H:%M:%S} UTC")


def span(length: timedelta) -> str:
    """A length of time in its two largest units: `2 h 5 min`."""
    left = max(0, round(length.total_seconds()))
    parts = []
    for size, unit in _SPAN_UNITS:
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2]) or "0 s"


def plain(word: object) -> str:
    """A word of ours without underscores."""
    return str(word).replace("_", " ")


def pairs(values: dict[str, str]) -> str:
    """Dimensions with their values."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def printable(text: str) -> str:
    """Text of anybody's: control characters are shown, not obeyed."""
    return "".join(one if one.isprintable() or one == "\n" else "\N{REPLACEMENT CHARACTER}" for one in text)


def currency_name(code: str) -> str:
    """What a currency is called; its code where that is not known."""
    return babel.numbers.get_currency_name(code, locale="en") if code else ""
