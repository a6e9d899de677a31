"""Charges: what each pricing model says, as a tagged union by the word in `model`.

Money is an exact decimal, read from text. A negative quantity, an unsorted tier and the like are refused by
`schemas.catalog_check`, which names each one. How a charge is priced stands in `billing_export.rate`.
"""

from __future__ import annotations

import datetime as dt
import enum
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


class Proration(enum.Enum):
    """How a part of a period is charged: in full, by the local days it touches, or by its seconds."""

    NONE = "none"
    DAY = "day"
    SECOND = "second"


class Timing(enum.Enum):
    """Whether a flat charge is billed when its period is over, or with the period before."""

    ARREARS = "arrears"
    ADVANCE = "advance"


class Bucket(enum.Enum):
    """A span of the customer's clock in which tiers, packages and commitments start again."""

    HOUR = "hour"
    DAY = "day"


class TimeUnit(enum.Enum):
    """What a `time_weighted` meter's balance is integrated in; `period` gives the mean balance of the period."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    PERIOD = "period"


class RoundingMode(enum.Enum):
    """Which way a quantity is rounded before it is priced. `round` takes a half away from zero."""

    ROUND = "round"
    CEIL = "ceil"
    FLOOR = "floor"


class QuantityRounding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rounds the quantity to `digits` decimals (negative: tens, hundreds) before anything is priced."""

    mode: RoundingMode
    digits: int = 0


class Tier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """A step of a tiered charge.

    `up_to` is the last quantity that is priced here (inclusive); null, allowed in the last tier only, is open.
    Each unit inside costs `unit_amount`; `flat_amount` is due once as soon as any quantity falls into the tier.
    `from`, when written, says where the tier begins and is checked against the tier before.
    """

    up_to: Decimal | None = None
    unit_amount: Money = ZERO
    flat_amount: Money = ZERO
    from_: Decimal | None = None


class PercentageTier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A step of a graduated percentage: `rate` percent of the amount inside, and `flat_amount` once it is entered."""

    up_to: Decimal | None = None
    rate: Decimal
    flat_amount: Money = ZERO


class Discount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reduction: exactly one of `percent`, `amount` (money a period) and `quantity` (free units a period).

    It holds for the first `periods` billing periods from `start` (a local day; the subscription's start when null),
    or always. A discount by quantity belongs to a metered charge. Where it stands is its scope: in a charge, a plan
    (all its charges), a subscription (all its charges, or `charge`), or a customer (the whole invoice).
    """

    id: Identifier
    description: Text = ""
    percent: Decimal | None = None
    amount: Money | None = None
    quantity: Decimal | None = None
    charge: Identifier | None = None
    start: dt.date | None = None
    periods: int | None = None


class Rollover(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Free units that were not used move on to later periods, for `expires_after_periods`, `quantity_max` at most."""

    expires_after_periods: Annotated[int, Meta(ge=1, le=36)] = 1
    quantity_max: Decimal | None = None


class Commitment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A promise to use: exactly one of `quantity` (a metered charge's units) and `amount` (money).

    What goes beyond it costs `overage_factor` times its price. With `true_up` less usage costs the whole promise.
    """

    quantity: Decimal | None = None
    amount: Money | None = None
    overage_factor: Decimal = Decimal(1)
    true_up: bool = False


class _Charge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="model"):
    """What every charge has. `discounts` are scoped to it; `tax_code` is handed to the invoicing system as it is."""

    id: Identifier
    description: Text = ""
    tax_code: Text = ""
    discounts: tuple[Discount, ...] = ()


class FlatCharge(_Charge, frozen=True, kw_only=True, tag="flat"):
    """`amount` once a period, for the part of it that the subscription is active, as `proration` says."""

    amount: Money
    timing: Timing = Timing.ARREARS
    proration: Proration = Proration.NONE


class _Metered(_Charge, frozen=True, kw_only=True):
    """What every charge of a meter has; with `group_by`, a line, and tiers that start again, for each value.

    In this order: `rounding` of the quantity, `free_quantity` (with what `rollover` brings), discounts by quantity,
    the model's price, `commitment`, then `minimum` and `maximum` of the amount. `bucket` starts tiers, packages and a
    commitment again in every hour or day. `time_unit` and `proration` are for `time_weighted` meters: by second is
    the exact integral; by day each local day counts its highest balance; none takes the period's highest balance.
    `proration` also shrinks `free_quantity`, `minimum`, `maximum` and a commitment for a part of a period.
    """

    meter: Name
    group_by: tuple[Name, ...] = ()
    rounding: QuantityRounding | None = None
    free_quantity: Decimal = ZERO
    rollover: Rollover | None = None
    commitment: Commitment | None = None
    minimum: Money | None = None
    maximum: Money | None = None
    bucket: Bucket | None = None
    time_unit: TimeUnit | None = None
    proration: Proration = Proration.NONE


class PerUnitCharge(_Metered, frozen=True, kw_only=True, tag="per_unit"):
    """`unit_amount` for each unit of `meter`: also seats (a time_weighted meter) and active users (unique_count)."""

    unit_amount: Money


class GraduatedCharge(_Metered, frozen=True, kw_only=True, tag="graduated"):
    """Each unit at the price of the tier it falls in.

    The publishers of this model disagree on usage of zero, so `flat_amount_at_zero` says whether the first tier's flat
    amount is due then.
    """

    tiers: tuple[Tier, ...]
    flat_amount_at_zero: bool = False


class VolumeCharge(_Metered, frozen=True, kw_only=True, tag="volume"):
    """All units at the price of the tier that the whole quantity falls in; `flat_amount_at_zero` as for graduated."""

    tiers: tuple[Tier, ...]
    flat_amount_at_zero: bool = False


class PackageCharge(_Metered, frozen=True, kw_only=True, tag="package"):
    """`package_amount` for every package of `package_size` units that was begun, after the free units."""

    package_size: Decimal
    package_amount: Money


class PercentageCharge(_Metered, frozen=True, kw_only=True, tag="percentage"):
    """`rate` percent of the metered amount, and `fixed_amount` for each event.

    The first `free_events` events and the first `free_amount` are free, whichever ends first. An event costs
    `event_min` at least and `event_max` at most, `fixed_amount` included.
    """

    rate: Decimal
    fixed_amount: Money = ZERO
    free_events: Annotated[int, Meta(ge=0)] | None = None
    free_amount: Decimal | None = None
    event_min: Money | None = None
    event_max: Money | None = None


class GraduatedPercentageCharge(_Metered, frozen=True, kw_only=True, tag="graduated_percentage"):
    """Each part of the metered amount at the percentage of the tier it falls in; `flat_amount_at_zero` as above."""

    tiers: tuple[PercentageTier, ...]
    flat_amount_at_zero: bool = False


class DynamicCharge(_Metered, frozen=True, kw_only=True, tag="dynamic"):
    """What the events say: `meter` gives the units, and the sum meter `amount_meter` what they cost.

    `amount_factor` turns the events' amounts into currency units: 0.01 where they are cents.
    """

    amount_meter: Name
    amount_factor: Decimal = Decimal(1)


class MatrixPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The price where every dimension named in `values` has its value: a unit price, or graduated tiers."""

    values: dict[Name, str] = {}
    unit_amount: Money | None = None
    tiers: tuple[Tier, ...] = ()


class MatrixCharge(_Metered, frozen=True, kw_only=True, tag="matrix"):
    """A price for each value of the dimensions in `group_by`: the first of `prices` that matches, or `otherwise`."""

    prices: tuple[MatrixPrice, ...]
    otherwise: MatrixPrice


MeteredCharge: TypeAlias = (
    PerUnitCharge
    | GraduatedCharge
    | VolumeCharge
    | PackageCharge
    | PercentageCharge
    | GraduatedPercentageCharge
    | DynamicCharge
    | MatrixCharge
)
Charge: TypeAlias = FlatCharge | MeteredCharge

CHARGE_MODELS: Final[dict[str, type[msgspec.Struct]]] = {
    "flat": FlatCharge,
    "per_unit": PerUnitCharge,
    "graduated": GraduatedCharge,
    "volume": VolumeCharge,
    "package": PackageCharge,
    "percentage": PercentageCharge,
    "graduated_percentage": GraduatedPercentageCharge,
    "dynamic": DynamicCharge,
    "matrix": MatrixCharge,
}
"""Every charge model by the word that stands in `model`."""
