"""Every mistake a catalog can make that its types do not rule out. Pure: parts with their paths in, problems out.

Takes parts rather than a whole catalog, so that a file with a broken plan still hears about its broken meters.
What one record says by itself is judged by `catalog_rules` and `charge_rules`; this module, `charge_check`,
`plan_check`, `subscription_check` and `overlap_check` judge what records say together. Nothing looks at all pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Final, TypeAlias, get_args

import msgspec

from schemas.alert import AlertRule
from schemas.alert_check import alert_problems
from schemas.catalog import Catalog, Customer
from schemas.catalog_parts import Known, Part, Parts, parts_below
from schemas.catalog_rules import own_problems
from schemas.charge_check import meter_problems
from schemas.charges import MeteredCharge
from schemas.errors import CatalogError
from schemas.kpi import LeadRule
from schemas.overlap_check import overlap_problems
from schemas.plan import Plan
from schemas.plan_check import grant_problems, migration_problems, plan_problems
from schemas.problem import Path, Problem, path_text
from schemas.quota import Quota
from schemas.quota_check import quota_problems
from schemas.subscription import Migration, PlanChange, Subscription
from schemas.subscription_check import Lives

Reference: TypeAlias = tuple[Path, str, str]
"""Where something is referred to, in which section it must stand, and by what name."""

KEY_OF: Final[dict[str, str]] = {"meters": "name", "customers": "id", "plans": "id", "subscriptions": "id"}
"""The field that names an entry of each section that is referred to."""

_REFERS: Final[dict[type[msgspec.Struct], dict[str, str]]] = {
    **{kind: {"meter": "meters", "amount_meter": "meters"} for kind in get_args(MeteredCharge)},
    Subscription: {"customer": "customers", "plan": "plans"},
    PlanChange: {"plan": "plans"},
    Migration: {"plan": "plans", "customers": "customers"},
    LeadRule: {"meter": "meters"},
    AlertRule: {"meter": "meters", "customers": "customers"},
    Quota: {"meter": "meters", "plan": "plans", "customer": "customers"},
}


def check_catalog(catalog: Catalog) -> None:
    """Raise CatalogError with every problem of a catalog that was built in code; a file is checked as it is read."""
    parts = list(parts_below((), catalog))
    problems = catalog_problems(parts, names_of(catalog))
    if problems:
        raise CatalogError([f"{path_text(one.path)}: {one.what}" for one in problems])


def names_of(catalog: Catalog) -> dict[str, AbstractSet[str]]:
    """The names that entries of each section go by."""
    return {section: {getattr(one, key) for one in getattr(catalog, section)} for section, key in KEY_OF.items()}


def references_in(kind: type[msgspec.Struct], values: Mapping[str, object], path: Path) -> Iterator[Reference]:
    """Every name of another section's entry among the fields of a record of some type."""
    for field, section in _REFERS.get(kind, {}).items():
        value = values.get(field)
        if isinstance(value, str):
            yield (*path, field), section, value
        elif isinstance(value, tuple):
            yield from (((*path, field, index), section, one) for index, one in enumerate(value))


def catalog_problems(
    parts: Sequence[Part],
    names: Mapping[str, AbstractSet[str]],
    broken_references: Sequence[Reference] = (),
    broken_plans: AbstractSet[str] = frozenset(),
) -> list[Problem]:
    """All problems of the parts, in the order of the parts within each rule.

    `names` holds what the whole document gives, also in entries too broken to be a part: so a broken entry is not
    reported again wherever it is referred to. What it refers to is checked all the same: these are
    `broken_references`. Plans with a version that is no part are `broken_plans`.
    """
    known = {section: Known(section.removesuffix("s"), found) for section, found in names.items()}
    every = Parts(parts)
    lives = Lives(every, broken_plans)
    return [
        *_repeats(every),
        *_unknown_names(every, broken_references, known),
        *(problem for path, part in parts for problem in own_problems(path, part)),
        *plan_problems(every),
        *meter_problems(every),
        *_subject_problems(every),
        *migration_problems(every, broken_plans),
        *lives.problems,
        *overlap_problems(lives.several),
        *grant_problems(every, broken_plans),
        *quota_problems(every),
        *alert_problems(every),
    ]


def _unknown_names(
    parts: Parts, broken_references: Sequence[Reference], known: Mapping[str, Known]
) -> Iterator[Problem]:
    """Entries of other sections that are referred to and are not there."""
    for kind, fields in _REFERS.items():
        names = [(field, known[section].names) for field, section in fields.items()]
        for path, part in parts.of(kind):
            if any(not _is_known(getattr(part, field, ()), there) for field, there in names):
                values = {field: getattr(part, field, ()) for field in fields}
                yield from _unknown_among(references_in(kind, values, path), known)
    yield from _unknown_among(broken_references, known)


def _is_known(value: str | tuple[str, ...] | None, names: AbstractSet[str]) -> bool:
    return value in names if isinstance(value, str) else all(one in names for one in value or ())


def _unknown_among(references: Iterable[Reference], known: Mapping[str, Known]) -> Iterator[Problem]:
    return (
        Problem(path=path, what=known[section].unknown(name))
        for path, section, name in references
        if name not in known[section].names
    )


@lru_cache(maxsize=128)
def _key_of(kind: type[msgspec.Struct]) -> str:
    """The field that tells records of a list apart, or nothing."""
    return next((key for key in ("id", "name") if key in kind.__struct_fields__ and kind is not Plan), "")


def _repeats(parts: Parts) -> Iterator[Problem]:
    """Names that stand twice: in a section, or in one list of charges, discounts or grants."""
    seen: dict[tuple[Path, str], Path] = {}
    for path, part in parts.all:
        key = _key_of(type(part))
        if key:
            name = getattr(part, key)
            first = seen.setdefault((path[:-1], name), path)
            if first != path:
                yield Problem(
                    path=(*path, key), what=f"{name!r} stands twice, first at {path_text(first)}, expected once"
                )


def _subject_problems(parts: Parts) -> Iterator[Problem]:
    """A subject's usage belongs to one customer."""
    owners: dict[str, tuple[Path, str]] = {}
    for path, customer in parts.of(Customer):
        for index, subject in enumerate(customer.subjects):
            at = (*path, "subjects", index)
            first, owner = owners.setdefault(subject, (at, customer.id))
            if first != at:
                yield Problem(
                    path=at,
                    what=f"subject {subject!r} belongs to customer {owner!r} already ({path_text(first)}), "
                    "expected one customer",
                )
