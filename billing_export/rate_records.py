"""What rating is given and what it gives back: plain frozen records, shared by every pricing model."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Final, TypeAlias

import msgspec

from schemas.line_item import TierShare
from schemas.quantity import ZERO

Number: TypeAlias = Decimal | Fraction
"""An exact number. A Fraction stands where decimals would not end, such as ten days of thirty-one."""

WHOLE: Final = Fraction(1)
NONE: Final = Fraction(0)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A stock grew (or shrank) by `full` units, of which `prorated` count: full times the rest of the period."""

    full: Number
    prorated: Number


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What was used.

    `quantity` is what is priced. `amount` is the sum of a dynamic charge's amount_meter. `events` has each event's
    value in time order, where `needs_events` says that the price depends on it. `buckets` has the quantity of each
    hour or day, in time order, for a charge with `bucket`; hours without usage may be left out unless
    `needs_every_bucket`. `full_quantity` chooses the tier where `quantity` was prorated; `changes`, in time order,
    say more exactly what stock there was and choose the tier of each unit (then `quantity` is the sum of their
    prorated parts). `dimensions` choose the price of a matrix charge.
    """

    quantity: Number
    events_count: int = 0
    amount: Number | None = None
    events: tuple[Decimal, ...] | None = None
    buckets: tuple[Number, ...] = ()
    full_quantity: Number | None = None
    changes: tuple[Change, ...] = ()
    dimensions: Mapping[str, str] = {}


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What else the price depends on.

    `fraction` is the part of a whole period that is charged, for a charge with `proration`; `fraction_before` is the
    part that earlier pieces of the same whole took, so that all pieces add up to the whole to the last digit.
    `free_quantity_extra` was rolled over from earlier periods; `discount_quantity` is the sum of the discounts by
    quantity. With `previous`, the price is that of previous and present usage together, less that of the previous
    alone, or less `previous_billed` where that is given. With `minimum_applies` false the charge's minimum is left
    out, as in a bill before the period's end. `with_steps` false leaves `Rated.steps` empty, which is faster.
    """

    fraction: Fraction = WHOLE
    fraction_before: Fraction = NONE
    free_quantity_extra: Decimal = ZERO
    discount_quantity: Decimal = ZERO
    previous: Usage | None = None
    previous_billed: Decimal | None = None
    minimum_applies: bool = True
    with_steps: bool = True


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the way to an amount. The steps' amounts add up to `amount_unrounded`, to the last digit.

    `what` says it in words; `quantity` (text, null where there is none) is what the step is about.
    """

    what: str
    quantity: str | None
    amount: str


class Rated(msgspec.Struct, frozen=True, kw_only=True):
    """What usage costs, in the currency of the charge.

    `amount_unrounded` is exact, or rounded half even at 24 decimals where it has more. `unit_amount` is None where
    tiers or events set the price. `tiers` has those that were entered; their amounts add up to what the tiers cost,
    before a commitment, minimum or maximum. `quantity_billed` is what was left after rounding, free units and
    discounts (at most 12 decimals); `free_used` is how much of the free quantity (the rolled over included) and
    `discount_used` how much of the discounts by quantity was used up. `topped_up` is the part of the amount that
    pays for no usage: the shortfall of a commitment or a minimum.
    """

    amount_unrounded: Decimal
    unit_amount: Decimal | None
    tiers: tuple[TierShare, ...] = ()
    quantity_billed: Decimal = ZERO
    free_used: Decimal = ZERO
    discount_used: Decimal = ZERO
    topped_up: Decimal = ZERO
    steps: tuple[Step, ...] = ()
