"""What can be wrong with one record of the catalog, whatever stands around it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from zoneinfo import available_timezones

import msgspec

from schemas.catalog import Customer
from schemas.charges import FlatCharge, GraduatedCharge, PerUnitCharge, Tier
from schemas.errors import EventRejectedError
from schemas.meter import WINDOW_S, Aggregation, Filter, Meter
from schemas.plan import Plan
from schemas.problem import Path, Problem, did_you_mean
from schemas.usage_event import check_text


def own_problems(path: Path, part: msgspec.Struct) -> list[Problem]:
    """The problems of one record; `path` is where it stands."""
    rule = _RULES.get(type(part))
    return [] if rule is None else list(rule(path, part))


def _meter_problems(path: Path, meter: Meter) -> Iterator[Problem]:
    if meter.aggregation is Aggregation.COUNT:
        if meter.value is not None:
            yield Problem(path=(*path, "value"), what=f"found {meter.value!r}, expected no value: count reads none")
    elif meter.value is None:
        word = meter.aggregation.value
        yield Problem(
            path=(*path, "value"), what=f"missing, expected the path inside data that {word} reads, such as amount"
        )
    moment = meter.effective_from
    if moment is None:
        return
    if moment.tzinfo is None:
        yield Problem(
            path=(*path, "effective_from"),
            what=f"found {moment.isoformat()} without a zone, expected a time such as 2013-01-31T00:00:00Z",
        )
    elif moment.astimezone(UTC).timestamp() % WINDOW_S:
        yield Problem(
            path=(*path, "effective_from"),
            what=f"found {moment.isoformat()}, expected the start of a 15-minute window such as 2013-01-31T00:15:00Z",
        )


def _filter_problems(path: Path, one: Filter) -> Iterator[Problem]:
    if not one.any_of and not one.none_of:
        yield Problem(path=path, what="lets every event through, expected any_of or none_of with at least one value")
    for text in sorted(set(one.any_of) & set(one.none_of)):
        yield Problem(path=path, what=f"{text!r} stands in any_of and in none_of, expected one of them")


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    """Every zone's name; finding them reads many files."""
    return frozenset(available_timezones())


def _customer_problems(path: Path, customer: Customer) -> Iterator[Problem]:
    zones = _zones()
    if customer.timezone not in zones:
        yield Problem(
            path=(*path, "timezone"),
            what=f"found {customer.timezone!r}, expected an IANA zone such as America/New_York"
            f"{did_you_mean(customer.timezone, zones)}",
        )
    for index, subject in enumerate(customer.subjects):
        try:
            check_text("subject", subject)
        except EventRejectedError as error:
            yield Problem(path=(*path, "subjects", index), what=f"{error.what}, expected the subject of an event")


def _plan_problems(path: Path, plan: Plan) -> Iterator[Problem]:
    if not plan.charges:
        yield Problem(path=(*path, "charges"), what="empty, expected at least one charge")


def _amount_problem(path: Path, amount: Decimal) -> Iterator[Problem]:
    if amount < 0:
        yield Problem(path=path, what=f"found {amount}, expected 0 or more: a price is not negative")


def _flat_problems(path: Path, charge: FlatCharge) -> Iterator[Problem]:
    yield from _amount_problem((*path, "amount"), charge.amount)


def _per_unit_problems(path: Path, charge: PerUnitCharge) -> Iterator[Problem]:
    yield from _amount_problem((*path, "unit_amount"), charge.unit_amount)


def _graduated_problems(path: Path, charge: GraduatedCharge) -> Iterator[Problem]:
    if not charge.tiers:
        yield Problem(path=(*path, "tiers"), what="empty, expected at least one tier")
        return
    bound = Decimal(0)
    last = len(charge.tiers) - 1
    for index, tier in enumerate(charge.tiers):
        at = (*path, "tiers", index)
        yield from _join_problem(at, bound, tier)
        if tier.up_to is None:
            if index < last:
                yield Problem(path=(*at, "up_to"), what="open, expected a bound: only the last tier may be open")
        elif tier.up_to <= bound:
            before = "0" if index == 0 else f"{bound}, the bound of the tier before"
            yield Problem(
                path=(*at, "up_to"), what=f"found {tier.up_to}, expected more than {before}: tiers go upwards"
            )
        else:
            bound = tier.up_to
    if charge.tiers[-1].up_to is not None:
        yield Problem(
            path=(*path, "tiers", last, "up_to"),
            what=f"found {charge.tiers[-1].up_to}, expected null: usage above it would have no price",
        )


def _join_problem(path: Path, bound: Decimal, tier: Tier) -> Iterator[Problem]:
    """`from` must meet the tier before: at its bound, or, as in 0-10, 11-20, at the next whole number."""
    if tier.from_ is None or tier.from_ == bound:
        return
    if bound and tier.from_ == bound + 1 and bound == bound.to_integral_value():
        return
    what = "a gap" if tier.from_ > bound else "an overlap"
    yield Problem(path=(*path, "from"), what=f"found {tier.from_}, which leaves {what}, expected {bound}")


def _tier_problems(path: Path, tier: Tier) -> Iterator[Problem]:
    yield from _amount_problem((*path, "unit_amount"), tier.unit_amount)
    yield from _amount_problem((*path, "flat_amount"), tier.flat_amount)


_RULES: Final[dict[type[msgspec.Struct], Callable[[Path, Any], Iterator[Problem]]]] = {
    Meter: _meter_problems,
    Filter: _filter_problems,
    Customer: _customer_problems,
    Plan: _plan_problems,
    FlatCharge: _flat_problems,
    PerUnitCharge: _per_unit_problems,
    GraduatedCharge: _graduated_problems,
    Tier: _tier_problems,
}
