"""The numbers that pricing counts in: decimals while every result ends, fractions where one might not.

Decimals are several times as fast and most lines need nothing else; a price is written once for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from fractions import Fraction
from functools import wraps
from typing import Final, Generic, ParamSpec, TypeAlias, TypeVar

import msgspec

from billing_export.rate_records import Change, Number
from schemas.errors import InvariantViolationError
from schemas.quantity import format_quantity

N = TypeVar("N", Decimal, Fraction)
Convert: TypeAlias = Callable[[Number], N]

EXACT: Final = Context(prec=400, traps=[Inexact, Rounded, InvalidOperation, Overflow, DivisionByZero, Clamped])
"""Room for the largest sum times the largest price; anything that would have to round raises."""


P = ParamSpec("P")
R = TypeVar("R")


def exactly(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with decimals that are exact, whatever the thread's own context is: what rounds raises."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with localcontext(EXACT):
            return function(*args, **kwargs)

    return run


class Share(msgspec.Struct, Generic[N], frozen=True, gc=False):
    """What fell into one tier. `flat_amount` is what was due of the tier's, the sum where it was due several times."""

    from_: Decimal
    up_to: Decimal | None
    unit_amount: Decimal
    flat_amount: Decimal
    quantity: N
    amount: N

    def __str__(self) -> str:
        """`over 100 up to 1000 at 0.25 each and 1 flat`."""
        words = f"over {format_quantity(self.from_)}" if self.from_ else "from 0"
        if self.up_to is not None:
            words += f" up to {format_quantity(self.up_to)}"
        words += f" at {format_quantity(self.unit_amount)} each"
        return f"{words} and {format_quantity(self.flat_amount)} flat" if self.flat_amount else words


class Note(msgspec.Struct, Generic[N], frozen=True, gc=False):
    """A step before it is text, which is made only when asked for; `is_top_up` if the amount pays for no usage.

    `what` is a share of a tier, or words in which `numbers` stand for each `{}`.
    """

    what: str | Share[N]
    quantity: N | None
    amount: N
    is_top_up: bool = False
    numbers: tuple[Decimal, ...] = ()

    def __str__(self) -> str:
        if isinstance(self.what, Share):
            return str(self.what)
        return self.what.format(*map(format_quantity, self.numbers)) if self.numbers else self.what

    def plus(self, other: Note[N]) -> Note[N]:
        """Both as one."""
        quantity = self.quantity
        if quantity is not None and other.quantity is not None:
            quantity = quantity + other.quantity
        return Note(self.what, quantity, self.amount + other.amount, self.is_top_up, self.numbers)


class Priced(msgspec.Struct, Generic[N], frozen=True, gc=False):
    """What a model makes of a quantity: the amounts of `shares` and `notes` each add up to `amount`."""

    amount: N
    unit_amount: Decimal | None
    notes: tuple[Note[N], ...]
    shares: tuple[Share[N], ...] = ()


class Billable(msgspec.Struct, Generic[N], frozen=True):
    """What is left to be priced, after rounding, free units and discounts; the fields of Usage in one kind of number.

    `quantity_before` is the quantity of which `amount`, what the events of a dynamic charge say, is the price.
    """

    quantity: N
    quantity_before: N
    events_count: int = 0
    amount: N | None = None
    events: tuple[N, ...] | None = None
    full: N | None = None
    changes: tuple[Change, ...] = ()
    dimensions: Mapping[str, str] = {}


def to_decimal(number: Number) -> Decimal:
    """The number itself. Raises InvariantViolationError for a fraction, which decimals were not chosen for."""
    if isinstance(number, Decimal):
        return number
    raise InvariantViolationError(f"{number} came to a price that is counted in decimals", where="rating")


def to_fraction(number: Number) -> Fraction:
    """The same number as a fraction."""
    return Fraction(number)


def ceiling(number: N, size: N) -> int:
    """How many packages of `size` cover `number`; of a number below zero, how many fit into it, negative."""
    whole, rest = divmod(number, size)
    return int(whole) + (1 if rest > 0 else 0)
