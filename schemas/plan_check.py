"""Whether the versions of a plan, its price lists, migrations and credit grants fit together. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from itertools import pairwise

from schemas.catalog_parts import Known, Parts
from schemas.charges import Charge
from schemas.plan import Plan
from schemas.problem import Path, Problem, path_text
from schemas.subscription import CreditGrant, Migration, Subscription


def cadence_text(plan: Plan) -> str:
    """What decides a plan's periods, for a sentence: `month, calendar`."""
    days = f" of {plan.period_days}" if plan.period_days is not None else ""
    return f"{plan.period.value}{days}, {plan.anchor.value}"


def plan_problems(parts: Parts) -> Iterator[Problem]:
    """The problems of versions and price lists."""
    versions: dict[str, dict[int, tuple[Path, Plan]]] = {}
    for path, plan in parts.of(Plan):
        held = versions.setdefault(plan.id, {})
        first, _ = held.setdefault(plan.version, (path, plan))
        if first != path:
            what = f"version {plan.version} of plan {plan.id!r} stands twice, first at {path_text(first)}"
            yield Problem(path=(*path, "version"), what=f"{what}, expected another version")
        for currency, prices in plan.prices.items():
            yield from _price_list_problems((*path, "prices", currency, "charges"), plan, prices.charges)
    for held in versions.values():
        yield from _order_problems([held[number] for number in sorted(held)])


def _order_problems(versions: Sequence[tuple[Path, Plan]]) -> Iterator[Problem]:
    """A later version begins later: otherwise nobody could tell which of them a subscription has."""
    for (_, before), (path, plan) in pairwise(versions):
        since, earlier = plan.effective_from, before.effective_from
        if since is None or (earlier is not None and since <= earlier):
            after = f" after {earlier}, where version {before.version} does" if earlier else ""
            found = "missing" if since is None else f"found {since}"
            what = f"{found}, expected the day from which version {plan.version} of plan {plan.id!r} is sold{after}"
            yield Problem(path=(*path, "effective_from"), what=what)


def _shape(charge: Charge) -> tuple[object, ...]:
    names = ("meter", "amount_meter", "group_by", "bucket", "time_unit")
    return (type(charge), *(getattr(charge, name, None) for name in names))


def _price_list_problems(path: Path, plan: Plan, charges: Sequence[Charge]) -> Iterator[Problem]:
    """Another currency changes prices, not what is charged for."""
    wanted = {one.id: one for one in plan.charges}
    known = Known(f"charge of plan {plan.id!r}", wanted.keys())
    for index, one in enumerate(charges):
        if one.id not in wanted:
            yield Problem(path=(*path, index, "id"), what=known.unknown(one.id))
        elif _shape(one) != _shape(wanted[one.id]):
            what = f"charge {one.id!r} differs from the plan's in more than prices, expected the same model, meter, "
            yield Problem(path=(*path, index), what=f"{what}dimensions, bucket and time unit")
    missing = wanted.keys() - {one.id for one in charges}
    if missing:
        what = f"without {', '.join(repr(name) for name in sorted(missing))}, expected every charge of plan {plan.id!r}"
        yield Problem(path=path, what=what)


def migration_problems(parts: Parts, broken_plans: AbstractSet[str]) -> Iterator[Problem]:
    """Versions that are not there, that have other periods, and two migrations for one customer at a time."""
    plans = {(one.id, one.version): one for _, one in parts.of(Plan)}
    ids = {one.id for _, one in parts.of(Plan)}
    moved: dict[tuple[str, int, date], dict[str | None, Path]] = {}
    for path, one in parts.of(Migration):
        if one.plan in ids and one.plan not in broken_plans:
            yield from _version_problems(path, one, plans)
        others = moved.setdefault((one.plan, one.from_version, one.at), {})
        rival = _rival(one, others)
        if rival is not None:
            what = f"moves customers from version {one.from_version} on {one.at} whom {path_text(rival)} moves too, "
            yield Problem(path=path, what=f"{what}expected one migration for each")
        for customer in one.customers or (None,):
            others.setdefault(customer, path)


def _rival(one: Migration, others: Mapping[str | None, Path]) -> Path | None:
    """An earlier migration, of those by customer (None is everybody), that is for some of the same customers."""
    if not one.customers:
        return next(iter(others.values()), None)
    return others.get(None) or next((others[name] for name in one.customers if name in others), None)


def _version_problems(path: Path, one: Migration, plans: Mapping[tuple[str, int], Plan]) -> Iterator[Problem]:
    ends = [plans.get((one.plan, one.from_version)), plans.get((one.plan, one.to_version))]
    for field, version, plan in zip(
        ("from_version", "to_version"), (one.from_version, one.to_version), ends, strict=True
    ):
        if plan is None:
            yield Problem(path=(*path, field), what=unknown_version(one.plan, version, plans))
    before, after = ends
    if before is not None and after is not None and cadence_text(before) != cadence_text(after):
        what = (
            f"version {after.version} is billed by {cadence_text(after)}, expected {cadence_text(before)} as version "
        )
        yield Problem(path=(*path, "to_version"), what=f"{what}{before.version}: periods stay")


def unknown_version(plan: str, version: int, plans: Mapping[tuple[str, int], Plan]) -> str:
    """What is said about a version that a plan does not have."""
    versions = ", ".join(str(number) for name, number in sorted(plans) if name == plan)
    return f"found {version}, expected a version of plan {plan!r} ({versions})"


def grant_problems(parts: Parts, broken_plans: AbstractSet[str]) -> Iterator[Problem]:
    """Charges that a grant names and no plan has."""
    if broken_plans:
        return
    charges = {charge.id for _, plan in parts.of(Plan) for charge in plan.charges}
    charges |= {charge.id for _, one in parts.of(Subscription) for charge in one.overrides}
    known = Known("charge of any plan", charges)
    for path, grant in parts.of(CreditGrant):
        for index, name in enumerate(grant.charges):
            if name not in charges:
                yield Problem(path=(*path, "charges", index), what=known.unknown(name))
