"""A catalog in which other plans stand in the places of those of today. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from billing_export.scope import Term
from billing_export.suggest import fix_for
from schemas.catalog import AppliedCatalog
from schemas.errors import RequestError
from schemas.plan import Plan
from schemas.plan_check import cadence_text
from schemas.subscription_life import tenures

NAMED_MAX = 5
"""How many customers an error names."""


def simulated_catalog(
    catalog: AppliedCatalog, plans: Sequence[Plan], replaced: Mapping[str, str]
) -> tuple[AppliedCatalog, dict[str, str]]:
    """The catalog with every version of some plans replaced, and which plan stands for which.

    A plan stands for that of its own id, and where `replaced` says so for others. Meters, customers, subscriptions with
    their overrides, and the version's number stay: usage is read with the catalog as it was applied.
    Raises RequestError for an id that is none, a plan that stands for none, or one with other billing periods.
    """
    by_id: dict[str, Plan] = {}
    for plan in plans:
        if plan.id in by_id:
            raise RequestError(
                f"plan {plan.id!r} has several versions", where="--plan", fix="Keep the one that is to be simulated"
            )
        by_id[plan.id] = plan
    names = _names(catalog, by_id, replaced)
    found = [_replacing(one, by_id[names[one.id]]) if one.id in names else one for one in catalog.catalog.plans]
    changed = msgspec.structs.replace(catalog.catalog, plans=tuple(found))
    simulated = AppliedCatalog(
        version=catalog.version, digest=catalog.digest, catalog=changed, meter_versions=catalog.meter_versions
    )
    return simulated, names


def check_prices(simulated: AppliedCatalog, held: Iterable[Term], names: Mapping[str, str]) -> None:
    """Raise RequestError for customers who pay in a currency that the plan that would be theirs has no prices in."""
    missing: dict[tuple[str, str], dict[str, None]] = {}
    for term in held:
        currency = simulated.currency_of(term.subscription)
        for tenure in tenures(simulated, term.subscription):
            if tenure.plan.id in names and currency not in (tenure.plan.currency, *tenure.plan.prices):
                missing.setdefault((names[tenure.plan.id], currency), {})[term.customer.id] = None
    for (plan, currency), customers in missing.items():
        shown = ", ".join(list(customers)[:NAMED_MAX]) + (", …" if len(customers) > NAMED_MAX else "")
        raise RequestError(
            f"plan {plan!r} has no prices in {currency}, in which customers pay ({len(customers)}: {shown})",
            where="--plan",
            fix=f"Add `prices: {{{currency}: …}}` to it, or name the customers to simulate with --customer",
        )


def _names(catalog: AppliedCatalog, by_id: Mapping[str, Plan], replaced: Mapping[str, str]) -> dict[str, str]:
    for old, new in replaced.items():
        if old not in catalog.plans:
            raise RequestError(
                f"there is no plan {old!r}",
                where=f"--map {old}={new}",
                fix=fix_for(old, catalog.plans, f"There are {', '.join(sorted(catalog.plans))}"),
            )
        if new not in by_id:
            raise RequestError(
                f"the file has no plan {new!r}",
                where=f"--map {old}={new}",
                fix=fix_for(new, by_id, f"It has {', '.join(sorted(by_id))}"),
            )
    names = {**{one: one for one in by_id if one in catalog.plans}, **replaced}
    for one in by_id:
        if one not in names.values():
            raise RequestError(
                f"plan {one!r} stands for no plan of today; there are {', '.join(sorted(catalog.plans))}",
                where="--plan",
                fix=fix_for(one, catalog.plans, f"Say for which it stands with --map OLD={one}"),
            )
    return names


def _replacing(old: Plan, new: Plan) -> Plan:
    """The new plan under the name of the old one, so that subscriptions, changes and migrations find it."""
    if (new.period, new.period_days, new.anchor) != (old.period, old.period_days, old.anchor):
        raise RequestError(
            f"plan {new.id!r} is billed by {cadence_text(new)}, plan {old.id!r} by {cadence_text(old)}",
            where="--plan",
            fix="Bills can stand side by side only when both are for the same periods",
        )
    return msgspec.structs.replace(new, id=old.id, version=old.version, effective_from=old.effective_from)
