"""Every mistake a catalog can make that its types do not rule out. Pure: parts with their paths in, problems out.

Takes parts rather than a whole catalog, so that a file with a broken plan still hears about its broken meters.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, TypeAlias, TypeVar
from zoneinfo import available_timezones

import msgspec

from schemas.catalog import Catalog, Customer
from schemas.errors import CatalogError, EventRejectedError
from schemas.meter import WINDOW_S, Aggregation, Filter, Meter
from schemas.plan import FlatCharge, GraduatedCharge, MeteredCharge, PerUnitCharge, Plan, Subscription, Tier
from schemas.problem import Path, Problem, path_text
from schemas.usage_event import check_text

Part: TypeAlias = tuple[Path, msgspec.Struct]
Reference: TypeAlias = tuple[Path, str, str]
"""Where something is referred to, in which section it must stand, and by what name."""

T = TypeVar("T", bound=msgspec.Struct)

KEY_OF: Final[dict[str, str]] = {"meters": "name", "customers": "id", "plans": "id", "subscriptions": "id"}
"""The field that names an entry of each section."""

SECTION_OF: Final[dict[str, str]] = {"meter": "meters", "customer": "customers", "plan": "plans"}
"""The section that a field of a charge or a subscription refers to."""


def check_catalog(catalog: Catalog) -> None:
    """Raise CatalogError with every problem of a catalog that was built in code; a file is checked as it is read."""
    parts = parts_of(catalog)
    problems = catalog_problems(parts, names_of(catalog), references_of(parts))
    if problems:
        raise CatalogError([f"{path_text(one.path)}: {one.what}" for one in problems])


def parts_of(catalog: Catalog) -> list[Part]:
    """Every record inside a catalog with its path, outer ones first."""
    return list(_walk((), catalog))


def names_of(catalog: Catalog) -> dict[str, AbstractSet[str]]:
    """The names that entries of each section go by."""
    return {section: {getattr(one, key) for one in getattr(catalog, section)} for section, key in KEY_OF.items()}


def references_of(parts: Sequence[Part]) -> list[Reference]:
    """Every field of the parts that names an entry of another section."""
    return [
        ((*path, field), section, getattr(part, field))
        for path, part in parts
        if isinstance(part, (Subscription, MeteredCharge))
        for field, section in SECTION_OF.items()
        if hasattr(part, field)
    ]


def catalog_problems(
    parts: Sequence[Part], names: Mapping[str, AbstractSet[str]], references: Sequence[Reference]
) -> list[Problem]:
    """All problems of the parts, in the order of the parts within each rule.

    `names` and `references` hold what the whole document gives, also in entries too broken to be a part: so a broken
    entry is not reported again wherever it is referred to, and what it refers to is checked all the same.
    """
    return [
        *_repeats(parts),
        *(
            _unknown(path, section.removesuffix("s"), name, names[section])
            for path, section, name in references
            if name not in names[section]
        ),
        *(problem for path, part in parts for problem in _own_problems(path, part)),
        *_dimension_problems(parts),
        *_subject_problems(parts),
        *_subscription_problems(parts),
    ]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` or nothing."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _walk(path: Path, value: object) -> Iterator[Part]:
    if isinstance(value, msgspec.Struct):
        yield path, value
        for name, encoded in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
            yield from _walk((*path, encoded), getattr(value, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _walk((*path, index), item)


def _of(parts: Sequence[Part], kind: type[T]) -> list[tuple[Path, T]]:
    return [(path, part) for path, part in parts if isinstance(part, kind)]


def _repeats(parts: Sequence[Part]) -> Iterator[Problem]:
    """Names that stand twice: in a section, or among the charges of one plan."""
    seen: dict[tuple[Path, str], Path] = {}
    for path, part in parts:
        key = "name" if isinstance(part, Meter) else "id"
        name = getattr(part, key, None)
        if not isinstance(name, str):
            continue
        first = seen.setdefault((path[:-1], name), path)
        if first != path:
            yield Problem(path=(*path, key), what=f"{name!r} stands twice, first at {path_text(first)}, expected once")


def _own_problems(path: Path, part: msgspec.Struct) -> list[Problem]:
    """What is wrong with one record, whatever stands around it."""
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


def _dimension_problems(parts: Sequence[Part]) -> Iterator[Problem]:
    """A charge can be grouped only by dimensions that its meter has."""
    meters = {meter.name: meter for _, meter in _of(parts, Meter)}
    for path, part in parts:
        if isinstance(part, MeteredCharge) and part.meter in meters:
            dimensions = meters[part.meter].group_by
            for index, name in enumerate(part.group_by):
                if name not in dimensions:
                    yield _unknown((*path, "group_by", index), f"dimension of meter {part.meter!r}", name, dimensions)


def _unknown(path: Path, what: str, name: str, known: Iterable[str]) -> Problem:
    listed = ", ".join(sorted(known)) or "none"
    if len(listed) > 200:
        listed = listed[:200] + "…"
    return Problem(path=path, what=f"found {name!r}, expected a {what} ({listed}){did_you_mean(name, known)}")


def _subject_problems(parts: Sequence[Part]) -> Iterator[Problem]:
    """A subject's usage belongs to one customer."""
    owners: dict[str, tuple[Path, str]] = {}
    for path, customer in _of(parts, Customer):
        for index, subject in enumerate(customer.subjects):
            at = (*path, "subjects", index)
            first, owner = owners.setdefault(subject, (at, customer.id))
            if first != at:
                yield Problem(
                    path=at,
                    what=f"subject {subject!r} belongs to customer {owner!r} already ({path_text(first)}), "
                    "expected one customer",
                )


def _subscription_problems(parts: Sequence[Part]) -> Iterator[Problem]:
    customers = {one.id: one for _, one in _of(parts, Customer)}
    plans = {one.id: one for _, one in _of(parts, Plan)}
    held: dict[str, list[tuple[Path, Subscription]]] = {}
    for path, one in _of(parts, Subscription):
        if one.end is not None and one.end <= one.start:
            yield Problem(
                path=(*path, "end"), what=f"found {one.end}, expected a day after start ({one.start}): end is exclusive"
            )
        customer, plan = customers.get(one.customer), plans.get(one.plan)
        if customer is not None and plan is not None and customer.currency != plan.currency:
            yield Problem(
                path=(*path, "plan"),
                what=f"plan {plan.id!r} is in {plan.currency}, expected {customer.currency}, the currency of "
                f"customer {customer.id!r}",
            )
        for other_path, other in held.setdefault(one.customer, []):
            if _overlap(one, other) and (shared := _shared(one, other, plans)):
                yield Problem(
                    path=path,
                    what=f"{shared} is charged to customer {one.customer!r} by subscription {other.id!r} at the same "
                    f"time ({path_text(other_path)}), expected spans that do not overlap",
                )
        held[one.customer].append((path, one))


def _overlap(one: Subscription, other: Subscription) -> bool:
    one_end, other_end = one.end or date.max, other.end or date.max
    return one.start < other_end and other.start < one_end


def _shared(one: Subscription, other: Subscription, plans: Mapping[str, Plan]) -> str:
    """What both subscriptions would charge: the plan, or charges of the same id in two plans."""
    if one.plan == other.plan:
        return f"plan {one.plan!r}"
    if one.plan not in plans or other.plan not in plans:
        return ""
    both = {charge.id for charge in plans[one.plan].charges} & {charge.id for charge in plans[other.plan].charges}
    return f"charge {', '.join(repr(name) for name in sorted(both))}" if both else ""
