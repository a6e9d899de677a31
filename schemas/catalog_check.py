"""Every mistake a catalog can make that its types do not rule out. Pure: parts with their paths in, problems out.

Takes parts rather than a whole catalog, so that a file with a broken plan still hears about its broken meters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from typing import Final, TypeAlias, TypeVar

import msgspec

from schemas.catalog import Catalog, Customer
from schemas.catalog_rules import own_problems
from schemas.charges import MeteredCharge
from schemas.errors import CatalogError
from schemas.meter import Meter
from schemas.plan import Plan
from schemas.problem import Path, Problem, did_you_mean, path_text
from schemas.subscription import Subscription

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
        *(problem for path, part in parts for problem in own_problems(path, part)),
        *_dimension_problems(parts),
        *_subject_problems(parts),
        *_subscription_problems(parts),
    ]


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
