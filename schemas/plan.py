"""Plans: what a customer pays for, as a tagged union of charge models, and who is subscribed to what, from when.

Money is an exact decimal, read from text. A negative quantity, an unsorted tier and the like are refused by
`schemas.catalog_check`, which names each one.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from schemas.meter import Name
from schemas.quantity import ZERO

Identifier = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:@/\-]{0,127}$",
        description="Letters, digits and _ . : @ / -, beginning with a letter or digit, at most 128 of them.",
    ),
]
CurrencyCode = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="Three capital letters of ISO 4217, such as USD.")]
Money = Annotated[Decimal, Meta(description="An exact decimal amount in the plan's currency, at most 12 decimals.")]
Text = Annotated[str, Meta(max_length=500, description="A text of at most 500 characters.")]


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """A step of a graduated charge.

    `up_to` is the last quantity that is priced here (inclusive); null, allowed in the last tier only, is open.
    Each unit inside costs `unit_amount`; `flat_amount` is due once as soon as any quantity falls into the tier.
    `from`, when written, says where the tier begins and is checked against the tier before.
    """

    up_to: Decimal | None = None
    unit_amount: Money
    flat_amount: Money = ZERO
    from_: Decimal | None = None


class FlatCharge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="model", tag="flat"):
    """`amount` once a period, in arrears, in full for every period in which the subscription has any time."""

    id: Identifier
    description: Text = ""
    amount: Money


class PerUnitCharge(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="model", tag="per_unit"
):
    """`unit_amount` for each unit of `meter`; with `group_by`, a line for each value of these dimensions."""

    id: Identifier
    description: Text = ""
    meter: Name
    unit_amount: Money
    group_by: tuple[Name, ...] = ()


class GraduatedCharge(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="model", tag="graduated"
):
    """Each unit of `meter` at the price of the tier it falls in; with `group_by`, tiers start again for each value."""

    id: Identifier
    description: Text = ""
    meter: Name
    tiers: tuple[Tier, ...]
    group_by: tuple[Name, ...] = ()


MeteredCharge: TypeAlias = PerUnitCharge | GraduatedCharge
Charge: TypeAlias = FlatCharge | PerUnitCharge | GraduatedCharge

CHARGE_MODELS: Final[dict[str, type[msgspec.Struct]]] = {
    "flat": FlatCharge,
    "per_unit": PerUnitCharge,
    "graduated": GraduatedCharge,
}
"""Every charge model by the word that stands in `model`."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is charged, in one currency."""

    id: Identifier
    name: Text = ""
    currency: CurrencyCode = "USD"
    charges: tuple[Charge, ...]


class Subscription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A customer has a plan from the start of day `start` to the start of day `end`, both in the customer's zone.

    `end` is the first day that is no longer covered; null is open.
    """

    id: Identifier
    customer: Identifier
    plan: Identifier
    start: dt.date
    end: dt.date | None = None
