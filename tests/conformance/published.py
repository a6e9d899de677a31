"""What a published case says, in this project's words: charges, usage and contexts, made from its properties.

Publishers write the same things in several ways; a field that is absent has its default, and numbers may be texts or
JSON numbers. Nothing here knows a single case: a case is read by its model, its fields and its publisher.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from billing_export.rate import Change, Context, Usage
from schemas.charges import (
    Bucket,
    Charge,
    Commitment,
    DynamicCharge,
    GraduatedCharge,
    GraduatedPercentageCharge,
    PackageCharge,
    PercentageCharge,
    PercentageTier,
    PerUnitCharge,
    QuantityRounding,
    RoundingMode,
    Tier,
    VolumeCharge,
)
from schemas.quantity import QuantityError, parse_quantity

ZERO: Final = Decimal(0)

CHARGES_A_FLAT_AMOUNT_AT_ZERO: Final = {
    "getlago": {"graduated", "volume", "graduated_percentage"},
    "stripe": {"graduated", "volume"},
    "openmeter": {"volume"},
}
"""The publishers disagree on usage of zero: whose first tier's flat amount is due without usage. Orb's and Flexprice's
never is."""

SUFFIXES: Final = ("prorated", "minmax", "delta", "max", "min", "bucket", "per")
"""What a model's name may say beside the model itself; the properties say the same again, with numbers."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One published case; the fields that only describe it are not read."""

    id: str
    model: str
    expected_amount: str
    amount_unit: str
    source: str = ""
    note: str = ""
    properties: dict[str, Any] = {}
    units: str | int | float | None = None
    events: list[Any] | None = None

    def number(self, name: str, default: Decimal = ZERO) -> Decimal:
        found = self.optional(name)
        return default if found is None else found

    def optional(self, name: str) -> Decimal | None:
        found = self.properties.get(name)
        return None if found is None else exact(found)

    def money(self, name: str) -> Decimal:
        """An amount in major units, whether it stands in them or, with `_cents`, in minor ones."""
        cents = self.optional(f"{name}_cents")
        return self.number(name) if cents is None else cents / 100

    @property
    def quantity(self) -> Decimal:
        if self.units is not None:
            return exact(self.units)
        return sum(self.values, ZERO)

    @property
    def values(self) -> list[Decimal]:
        """The events' values; one that is no number is rejected by the pipeline, and not there."""
        found: list[Decimal] = []
        for event in self.events or []:
            try:
                found.append(parse_quantity(str(event)))
            except QuantityError:
                continue
        return found

    def numbers(self, name: str) -> list[Decimal]:
        return [exact(one) for one in self.properties.get(name) or []]

    @property
    def base(self) -> str:
        """The model without what its name says beside it: `graduated` of `graduated_delta_max`."""
        words = self.model.split("_")
        while words[-1] in SUFFIXES:
            words.pop()
        return "_".join(words)

    @property
    def flat_at_zero(self) -> bool:
        return any(
            publisher in self.source and self.base in models
            for publisher, models in CHARGES_A_FLAT_AMOUNT_AT_ZERO.items()
        )


def exact(written: str | float | Decimal) -> Decimal:
    """The number as it is written."""
    return Decimal(str(written))


def charge_of(case: Case) -> Charge | None:
    """The charge that a case's model and properties describe; None for a model that is none of this project's.

    A published price never credits: what is below zero costs nothing, which is what a minimum of zero says.
    """
    make = MAKERS.get(case.base)
    if make is None:
        return None
    common: dict[str, Any] = {
        "id": "case",
        "meter": "case",
        "free_quantity": case.number("free_units"),
        "minimum": case.number("minimum"),
        "maximum": case.optional("maximum"),
    }
    if case.model.endswith("per_bucket"):
        common["bucket"] = Bucket.HOUR
    return make(case, common)


def usage_of(case: Case) -> Usage:
    """What was used, as the case's charge needs it."""
    full, prorated = case.numbers("full_units_by_event"), case.numbers("prorated_units_by_event")
    if full:
        changes = tuple(Change(full=one, prorated=part) for one, part in zip(full, prorated, strict=True))
        return Usage(quantity=sum(prorated, ZERO), full_quantity=sum(full, ZERO), changes=changes)
    events = events_of(case)
    return Usage(
        quantity=case.quantity,
        events_count=int(case.number("event_count", Decimal(len(events)))),
        amount=case.optional("precise_total_amount_cents"),
        events=tuple(events),
        buckets=tuple(case.values),
        full_quantity=case.optional("full_units"),
    )


def events_of(case: Case) -> list[Decimal]:
    """The value of each event. Where only the running total of the first is known, the others share what is left."""
    if case.events is not None:
        return case.values
    count = int(case.number("event_count"))
    totals = case.numbers("running_total")[:count]
    events = [after - before for before, after in zip([ZERO, *totals], totals, strict=False)]
    others = count - len(events)
    return events + [(case.quantity - sum(events, ZERO)) / others] * others if others else events


def context_of(case: Case) -> Context:
    """What was used and billed before."""
    previous = case.optional("previous_units")
    return Context(
        previous=None if previous is None else Usage(quantity=previous, events=()),
        previous_billed=case.optional("previous_billed"),
    )


def tiers_of(case: Case) -> tuple[Tier, ...]:
    """Tiers, which the publishers write as bounds or as ranges; the bounds are the upper ones, inclusive."""
    return tuple(
        Tier(
            up_to=bound(one),
            unit_amount=exact(one.get("unit_amount", one.get("per_unit_amount")) or 0),
            flat_amount=exact(one.get("flat_amount") or 0),
        )
        for one in listed(case)
    )


def listed(case: Case) -> Sequence[dict[str, Any]]:
    for name, found in case.properties.items():
        if name == "tiers" or name.endswith("ranges"):
            tiers: Sequence[dict[str, Any]] = found
            return tiers
    raise KeyError(f"{case.id} has no tiers")


def bound(tier: dict[str, Any]) -> Decimal | None:
    found = tier.get("up_to", tier.get("to_value"))
    return None if found is None else exact(found)


def _per_unit(case: Case, common: dict[str, Any]) -> Charge:
    return PerUnitCharge(unit_amount=case.number("amount", case.number("unit_amount")), **common)


def _graduated(case: Case, common: dict[str, Any]) -> Charge:
    return GraduatedCharge(tiers=tiers_of(case), flat_amount_at_zero=case.flat_at_zero, **common)


def _volume(case: Case, common: dict[str, Any]) -> Charge:
    return VolumeCharge(tiers=tiers_of(case), flat_amount_at_zero=case.flat_at_zero, **common)


def _package(case: Case, common: dict[str, Any]) -> Charge:
    return PackageCharge(
        package_size=case.number("package_size", Decimal(1)), package_amount=case.number("amount"), **common
    )


def _percentage(case: Case, common: dict[str, Any]) -> Charge:
    """A free part of zero is none: the publisher of this model has both of them, and zero where there is none."""
    free_events = int(case.number("free_units_per_events"))
    return PercentageCharge(
        rate=case.number("rate"),
        fixed_amount=case.number("fixed_amount"),
        free_events=free_events or None,
        free_amount=case.number("free_units_per_total_aggregation") or None,
        event_min=case.optional("per_transaction_min_amount"),
        event_max=case.optional("per_transaction_max_amount"),
        **common,
    )


def _graduated_percentage(case: Case, common: dict[str, Any]) -> Charge:
    tiers = tuple(
        PercentageTier(
            up_to=bound(one), rate=exact(one.get("rate") or 0), flat_amount=exact(one.get("flat_amount") or 0)
        )
        for one in listed(case)
    )
    return GraduatedPercentageCharge(tiers=tiers, flat_amount_at_zero=case.flat_at_zero, **common)


def _dynamic(_case: Case, common: dict[str, Any]) -> Charge:
    return DynamicCharge(amount_meter="case", amount_factor=Decimal("0.01"), **common)


def _commitment(case: Case, common: dict[str, Any]) -> Charge:
    commitment = Commitment(
        quantity=case.optional("commitment_quantity"),
        amount=case.optional("commitment_amount"),
        overage_factor=case.number("overage_factor", Decimal(1)),
        true_up=bool(case.properties.get("true_up")),
    )
    bucket = Bucket.HOUR if case.model.endswith("windowed") else None
    return PerUnitCharge(unit_amount=case.number("unit_price"), commitment=commitment, bucket=bucket, **common)


def _rounding(case: Case, common: dict[str, Any]) -> Charge:
    function = case.properties.get("rounding_function")
    digits = int(case.number("rounding_precision"))
    rounding = QuantityRounding(mode=RoundingMode(function), digits=digits) if function else None
    return PerUnitCharge(unit_amount=Decimal(1), rounding=rounding, **common)


MAKERS: Final = {
    "standard": _per_unit,
    "graduated": _graduated,
    "volume": _volume,
    "package": _package,
    "package_range": _volume,
    "percentage": _percentage,
    "graduated_percentage": _graduated_percentage,
    "dynamic": _dynamic,
    "commitment_overage": _commitment,
    "commitment_overage_windowed": _commitment,
    "agg:rounding": _rounding,
}
"""A charge for each model that is one charge of a meter."""
