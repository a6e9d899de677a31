"""What can be wrong with one charge, tier, discount or commitment, whatever stands around it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import combinations
from typing import Any, Final

import msgspec

from schemas.charges import (
    Charge,
    Commitment,
    Discount,
    DynamicCharge,
    FlatCharge,
    GraduatedCharge,
    GraduatedPercentageCharge,
    MatrixCharge,
    MatrixPrice,
    MeteredCharge,
    PackageCharge,
    PercentageCharge,
    PercentageTier,
    PerUnitCharge,
    QuantityRounding,
    Rollover,
    Tier,
    VolumeCharge,
)
from schemas.problem import Path, Problem, path_text
from schemas.quantity import DECIMALS_MAX, INTEGER_DIGITS_MAX

_SHADOWING_NAMES_MAX: Final = 8
"""Prices that name more dimensions are only compared for being the same."""


def negative(path: Path, record: msgspec.Struct, *names: str) -> Iterator[Problem]:
    """A problem for each of the fields that is below zero."""
    for name in names:
        amount = getattr(record, name)
        if amount is not None and amount < 0:
            what = f"found {amount}, expected 0 or more: a price is not negative"
            yield Problem(path=(*path, name), what=what)


def not_positive(path: Path, record: msgspec.Struct, *names: str) -> Iterator[Problem]:
    """A problem for each of the fields that is not above zero."""
    for name in names:
        amount = getattr(record, name)
        if amount is not None and amount <= 0:
            yield Problem(path=(*path, name), what=f"found {amount}, expected more than 0")


def _exactly_one(path: Path, record: msgspec.Struct, *names: str) -> Iterator[Problem]:
    """A problem unless one of the fields, and no other, is given."""
    given = [name for name in names if getattr(record, name) is not None]
    if len(given) != 1:
        found = f"found {' and '.join(given)}" if given else "found none of them"
        yield Problem(path=path, what=f"{found}, expected exactly one of {', '.join(names)}")


def repeats(path: Path, names: Sequence[str]) -> Iterator[Problem]:
    """A problem for each name of a list that stands in it already."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield Problem(path=(*path, index), what=f"{name!r} stands twice, expected once")
        seen.add(name)


def discount_scope_problems(
    path: Path, discounts: Sequence[Discount], *, quantity: str = "", charge: str = ""
) -> Iterator[Problem]:
    """What the place of discounts forbids: `quantity` and `charge` say why these cannot stand here, or are empty."""
    for index, one in enumerate(discounts):
        if quantity and one.quantity is not None:
            yield Problem(path=(*path, "discounts", index, "quantity"), what=f"found {one.quantity}, {quantity}")
        if charge and one.charge is not None:
            yield Problem(path=(*path, "discounts", index, "charge"), what=f"found {one.charge!r}, {charge}")


def _discount_problems(path: Path, one: Discount) -> Iterator[Problem]:
    """What a discount says wrongly by itself."""
    yield from _exactly_one(path, one, "percent", "amount", "quantity")
    if one.percent is not None and not 0 < one.percent <= 100:
        yield Problem(path=(*path, "percent"), what=f"found {one.percent}, expected more than 0 and at most 100")
    yield from not_positive(path, one, "amount", "quantity", "periods")


def _commitment_problems(path: Path, one: Commitment) -> Iterator[Problem]:
    """What a commitment says wrongly by itself."""
    yield from _exactly_one(path, one, "quantity", "amount")
    yield from not_positive(path, one, "quantity", "amount")
    yield from negative(path, one, "overage_factor")


def _rounding_problems(path: Path, one: QuantityRounding) -> Iterator[Problem]:
    if not -INTEGER_DIGITS_MAX <= one.digits <= DECIMALS_MAX:
        bounds = f"-{INTEGER_DIGITS_MAX} (whole numbers) to {DECIMALS_MAX} (decimals)"
        yield Problem(path=(*path, "digits"), what=f"found {one.digits}, expected {bounds}")


def _rollover_problems(path: Path, one: Rollover) -> Iterator[Problem]:
    yield from not_positive(path, one, "quantity_max")


def _charge_problems(path: Path, charge: Charge) -> Iterator[Problem]:
    yield from discount_scope_problems(
        path,
        charge.discounts,
        quantity="expected percent or amount: a flat charge has no units" if isinstance(charge, FlatCharge) else "",
        charge="expected none: a discount in a charge is for that charge",
    )
    if isinstance(charge, MeteredCharge):
        yield from _metered_problems(path, charge)


def _metered_problems(path: Path, charge: MeteredCharge) -> Iterator[Problem]:
    yield from negative(path, charge, "free_quantity", "minimum", "maximum")
    if charge.minimum is not None and charge.maximum is not None and charge.maximum < charge.minimum:
        what = f"found {charge.maximum}, expected at least the minimum, {charge.minimum}"
        yield Problem(path=(*path, "maximum"), what=what)
    if charge.rollover is not None and charge.free_quantity <= 0:
        yield Problem(path=(*path, "rollover"), what="found one without free_quantity, expected units that can remain")
    yield from repeats((*path, "group_by"), charge.group_by)
    if why := priced_otherwise(charge):
        yield from _no_quantities(path, charge, why)
    if charge.bucket is not None and not _has_steps(charge):
        what = f"found {charge.bucket.value}, expected none: without tiers, packages or a commitment it changes nothing"
        yield Problem(path=(*path, "bucket"), what=what)


def priced_otherwise(charge: MeteredCharge) -> str:
    """Why free units would have no price to be free of, or nothing."""
    if not isinstance(charge, PercentageCharge):
        return ""
    by_event = any(one is not None for one in (charge.free_events, charge.event_min, charge.event_max))
    if by_event or (charge.free_amount is not None and charge.fixed_amount):
        return "each event has its own price; see free_events and free_amount"
    return ""


def _no_quantities(path: Path, charge: MeteredCharge, why: str) -> Iterator[Problem]:
    what = f"expected none: {why}"
    if charge.free_quantity > 0:
        yield Problem(path=(*path, "free_quantity"), what=f"found {charge.free_quantity}, {what}")
    if charge.commitment is not None and charge.commitment.quantity is not None:
        yield Problem(path=(*path, "commitment", "quantity"), what=f"found {charge.commitment.quantity}, {what}")
    yield from discount_scope_problems(path, charge.discounts, quantity=what)


def _has_steps(charge: MeteredCharge) -> bool:
    if isinstance(charge, DynamicCharge | PercentageCharge):
        return False
    tiered = isinstance(charge, GraduatedCharge | VolumeCharge | GraduatedPercentageCharge | PackageCharge)
    matrix = isinstance(charge, MatrixCharge) and any(one.tiers for one in (*charge.prices, charge.otherwise))
    return tiered or matrix or charge.commitment is not None


def _flat_problems(path: Path, charge: FlatCharge) -> Iterator[Problem]:
    yield from negative(path, charge, "amount")


def _per_unit_problems(path: Path, charge: PerUnitCharge) -> Iterator[Problem]:
    yield from negative(path, charge, "unit_amount")


def _package_problems(path: Path, charge: PackageCharge) -> Iterator[Problem]:
    yield from not_positive(path, charge, "package_size")
    yield from negative(path, charge, "package_amount")


def _percentage_problems(path: Path, charge: PercentageCharge) -> Iterator[Problem]:
    yield from negative(path, charge, "rate", "fixed_amount", "free_amount", "event_min", "event_max")
    if charge.event_min is not None and charge.event_max is not None and charge.event_max < charge.event_min:
        what = f"found {charge.event_max}, expected at least event_min, {charge.event_min}"
        yield Problem(path=(*path, "event_max"), what=what)


def _dynamic_problems(path: Path, charge: DynamicCharge) -> Iterator[Problem]:
    yield from not_positive(path, charge, "amount_factor")


def _tiered_problems(
    path: Path, charge: GraduatedCharge | VolumeCharge | GraduatedPercentageCharge
) -> Iterator[Problem]:
    if charge.tiers:
        yield from _tiers_problems(path, charge.tiers)
    else:
        yield Problem(path=(*path, "tiers"), what="empty, expected at least one tier")


def _matrix_problems(path: Path, charge: MatrixCharge) -> Iterator[Problem]:
    if not charge.group_by:
        what = "empty, expected the dimensions whose values have prices"
        yield Problem(path=(*path, "group_by"), what=what)
    if charge.otherwise.values:
        what = "found values, expected none: it is for what no other price names"
        yield Problem(path=(*path, "otherwise", "values"), what=what)
    seen: dict[frozenset[tuple[str, str]], Path] = {}
    for index, one in enumerate(charge.prices):
        at = (*path, "prices", index)
        if not one.values:
            yield Problem(path=(*at, "values"), what="empty, expected a value of at least one dimension in group_by")
        for name in one.values:
            if name not in charge.group_by:
                what = f"found {name!r}, expected a dimension in group_by ({', '.join(charge.group_by) or 'none'})"
                yield Problem(path=(*at, "values", name), what=what)
        pairs = frozenset(one.values.items())
        hidden_by = next((seen[wider] for wider in _as_wide(pairs) if wider in seen), None)
        if hidden_by is not None:
            what = f"never reached, because {path_text(hidden_by)} matches first; expected the narrower price before it"
            yield Problem(path=(*at, "values"), what=what)
        seen.setdefault(pairs, at)


def _as_wide(pairs: frozenset[tuple[str, str]]) -> Iterator[frozenset[tuple[str, str]]]:
    """The values themselves, and all that match whatever they match."""
    yield pairs
    if len(pairs) <= _SHADOWING_NAMES_MAX:
        yield from (frozenset(some) for size in range(1, len(pairs)) for some in combinations(pairs, size))


def _price_problems(path: Path, one: MatrixPrice) -> Iterator[Problem]:
    if (one.unit_amount is None) == (not one.tiers):
        found = "found none of them" if one.unit_amount is None else "found unit_amount and tiers"
        yield Problem(path=path, what=f"{found}, expected exactly one of unit_amount, tiers")
    yield from negative(path, one, "unit_amount")
    if one.tiers:
        yield from _tiers_problems(path, one.tiers)


def _tiers_problems(path: Path, tiers: Sequence[Tier | PercentageTier]) -> Iterator[Problem]:
    """Tiers go upwards without a gap, and the last one is open: usage beyond it would have no price."""
    bound = Decimal(0)
    last = len(tiers) - 1
    for index, tier in enumerate(tiers):
        at = (*path, "tiers", index)
        if isinstance(tier, Tier):
            yield from _join_problem(at, bound, tier)
        if tier.up_to is None:
            if index < last:
                yield Problem(path=(*at, "up_to"), what="open, expected a bound: only the last tier may be open")
        elif tier.up_to <= bound:
            before = "0" if index == 0 else f"{bound}, the bound of the tier before"
            what = f"found {tier.up_to}, expected more than {before}: tiers go upwards"
            yield Problem(path=(*at, "up_to"), what=what)
        else:
            bound = tier.up_to
    if tiers[-1].up_to is not None:
        what = f"found {tiers[-1].up_to}, expected null: usage above it would have no price"
        yield Problem(path=(*path, "tiers", last, "up_to"), what=what)


def _join_problem(path: Path, bound: Decimal, tier: Tier) -> Iterator[Problem]:
    """`from` must meet the tier before: at its bound, or, as in 0-10, 11-20, at the next whole number."""
    if tier.from_ is None or tier.from_ == bound:
        return
    if bound and tier.from_ == bound + 1 and bound == bound.to_integral_value():
        return
    what = "a gap" if tier.from_ > bound else "an overlap"
    yield Problem(path=(*path, "from"), what=f"found {tier.from_}, which leaves {what}, expected {bound}")


def _tier_problems(path: Path, tier: Tier) -> Iterator[Problem]:
    yield from negative(path, tier, "unit_amount", "flat_amount")


def _percentage_tier_problems(path: Path, tier: PercentageTier) -> Iterator[Problem]:
    yield from negative(path, tier, "rate", "flat_amount")


Rule = Callable[[Path, Any], Iterator[Problem]]

CHARGE_RULES: Final[dict[type[msgspec.Struct], tuple[Rule, ...]]] = {
    FlatCharge: (_charge_problems, _flat_problems),
    PerUnitCharge: (_charge_problems, _per_unit_problems),
    GraduatedCharge: (_charge_problems, _tiered_problems),
    VolumeCharge: (_charge_problems, _tiered_problems),
    PackageCharge: (_charge_problems, _package_problems),
    PercentageCharge: (_charge_problems, _percentage_problems),
    GraduatedPercentageCharge: (_charge_problems, _tiered_problems),
    DynamicCharge: (_charge_problems, _dynamic_problems),
    MatrixCharge: (_charge_problems, _matrix_problems),
    MatrixPrice: (_price_problems,),
    Tier: (_tier_problems,),
    PercentageTier: (_percentage_tier_problems,),
    QuantityRounding: (_rounding_problems,),
    Rollover: (_rollover_problems,),
    Commitment: (_commitment_problems,),
    Discount: (_discount_problems,),
}
