"""Whether a subscription's life can be lived: its plan versions, changes, pauses, currency, overrides and discounts.

Pure. Subscriptions to a plan that could not be read are left alone: the plan's own mistake was named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date

from schemas.catalog import Customer, MigrationIndex, plans_by_id
from schemas.catalog_parts import Known, Parts
from schemas.charge_rules import priced_otherwise
from schemas.charges import Charge, Discount, FlatCharge
from schemas.plan import Plan
from schemas.plan_check import cadence_text, unknown_version
from schemas.problem import Path, Problem
from schemas.subscription import Migration, Subscription
from schemas.subscription_life import Tenure, plan_on, tenures_of


class Lives:
    """What is wrong with each subscription, and the plan versions of `several`: those of customers with several."""

    def __init__(self, parts: Parts, broken_plans: AbstractSet[str]) -> None:
        self.problems: list[Problem] = []
        self.several: list[tuple[Path, Subscription, tuple[Tenure, ...]]] = []
        self._plans = plans_by_id(one for _, one in parts.of(Plan))
        self._versions = {(one.id, one.version): one for _, one in parts.of(Plan)}
        self._customers = {one.id: one for _, one in parts.of(Customer)}
        self._broken = broken_plans
        self._migrations = MigrationIndex([one for _, one in parts.of(Migration)])
        several = Counter(one.customer for _, one in parts.of(Subscription))
        for path, one in parts.of(Subscription):
            tenures = self._live(path, one)
            if tenures and several[one.customer] > 1:
                self.several.append((path, one, tenures))

    def _live(self, path: Path, one: Subscription) -> tuple[Tenure, ...]:
        """The plan versions it has, or none when it cannot be told."""
        mistaken = len(self.problems)
        if one.end is not None or one.changes or one.pauses:
            self.problems += _day_problems(path, one)
        if not self._has_plans(one):
            return ()
        self.problems += self._version_problems(path, one)
        if len(self.problems) > mistaken:
            return ()
        tenures = tenures_of(one, self._plans, self._migrations)
        customer = self._customers.get(one.customer)
        if customer is not None:
            self.problems += _currency_problems(path, one, customer, tenures)
            self.problems += _price_problems(path, one, customer, tenures)
        return tenures

    def _has_plans(self, one: Subscription) -> bool:
        names = (one.plan, *(change.plan for change in one.changes))
        return all(name in self._plans and name not in self._broken for name in names)

    def _version_problems(self, path: Path, one: Subscription) -> Iterator[Problem]:
        """Versions that are not there or not yet in effect, and changes to other periods."""
        first: Plan | None = None
        for at, name, version, day in _starts(path, one):
            plan = plan_on(self._plans[name], version, day)
            if plan is None and version is not None:
                yield Problem(path=(*at, "version"), what=unknown_version(name, version, self._versions))
            elif plan is None:
                since = self._plans[name][0].effective_from
                what = f"plan {name!r} has no version in effect on {day}, expected a day from {since} on"
                yield Problem(path=(*at, "plan"), what=what)
            elif first is not None and cadence_text(plan) != cadence_text(first):
                what = (
                    f"plan {name!r} is billed by {cadence_text(plan)}, expected {cadence_text(first)} as before: end "
                )
                yield Problem(path=(*at, "plan"), what=f"{what}this subscription and begin another for other periods")
            first = first or plan


def _starts(path: Path, one: Subscription) -> Iterator[tuple[Path, str, int | None, date]]:
    yield path, one.plan, one.version, one.start
    for index, change in enumerate(one.changes):
        yield (*path, "changes", index), change.plan, change.version, change.at


def _day_problems(path: Path, one: Subscription) -> Iterator[Problem]:
    """Days that are out of order."""
    if one.end is not None and one.end <= one.start:
        what = f"found {one.end}, expected a day after start ({one.start}): end is exclusive"
        yield Problem(path=(*path, "end"), what=what)
        return
    last, end = one.start, one.end or date.max
    for index, change in enumerate(one.changes):
        if not last < change.at < end:
            before = f" and before its end ({one.end})" if change.at >= end else ""
            what = f"found {change.at}, expected a day after {last}{before}: changes stand in the order of their days"
            yield Problem(path=(*path, "changes", index, "at"), what=what)
        last = max(last, change.at)
    rested = one.start
    for pause, index in sorted((pause, index) for index, pause in _pauses(one)):
        start, until = pause
        if start < one.start or start >= end:
            what = f"found {start}, expected a day on which the subscription runs ({one.start} to {one.end or 'open'})"
            yield Problem(path=(*path, "pauses", index, "start"), what=what)
        elif start < rested:
            what = f"found {start}, within the pause before it, expected pauses that do not overlap"
            yield Problem(path=(*path, "pauses", index, "start"), what=what)
        rested = max(rested, until)


def _pauses(one: Subscription) -> Iterator[tuple[int, tuple[date, date]]]:
    return ((index, (pause.start, pause.end or date.max)) for index, pause in enumerate(one.pauses))


def _currency_problems(
    path: Path, one: Subscription, customer: Customer, tenures: Sequence[Tenure]
) -> Iterator[Problem]:
    """Every plan version that the subscription comes to must have prices in its currency."""
    currency = one.currency or customer.currency
    changed = {change.at: index for index, change in enumerate(one.changes)}
    for tenure in tenures:
        plan = tenure.plan
        if currency in (plan.currency, *plan.prices):
            continue
        whose = "its currency" if one.currency else f"the currency of customer {customer.id!r}"
        has = ", ".join((plan.currency, *sorted(plan.prices)))
        what = f"plan {plan.id!r} version {plan.version} has prices in {has}, expected {currency}, {whose}"
        index = changed.get(tenure.start)
        if index is None:
            moved = "" if tenure.start == one.start else f" (it is migrated on {tenure.start})"
            yield Problem(path=(*path, "plan"), what=what + moved)
        else:
            yield Problem(path=(*path, "changes", index, "plan"), what=what)


def _price_problems(path: Path, one: Subscription, customer: Customer, tenures: Sequence[Tenure]) -> Iterator[Problem]:
    """Overrides and discounts of charges that none of its plans has, and discounts that could not be told apart."""
    if not (one.overrides or one.discounts or customer.discounts):
        return
    charges = {charge.id: charge for tenure in tenures for charge in tenure.plan.charges}
    charges |= {charge.id: charge for charge in one.overrides if charge.id in charges}
    known = Known("charge of its plans", charges.keys())
    for index, charge in enumerate(one.overrides):
        if charge.id not in charges:
            yield Problem(path=(*path, "overrides", index, "id"), what=known.unknown(charge.id))
    taken = _discount_ids(charges, tenures)
    for index, discount in enumerate(one.discounts):
        at = (*path, "discounts", index)
        if discount.charge is not None and discount.charge not in charges:
            yield Problem(path=(*at, "charge"), what=known.unknown(discount.charge))
        elif discount.quantity is not None:
            yield from _quantity_problems(at, discount, charges)
        if discount.id in taken:
            what = f"found {discount.id!r}, which {taken[discount.id]} has, expected another id: both meet on one bill"
            yield Problem(path=(*at, "id"), what=what)
        taken[discount.id] = f"subscription {one.id!r}"
    for discount in customer.discounts:
        if discount.id in taken:
            what = f"discount {discount.id!r} of customer {customer.id!r} meets that of {taken[discount.id]} on one "
            yield Problem(path=path, what=f"{what}bill, expected different ids")


def _discount_ids(charges: Mapping[str, Charge], tenures: Sequence[Tenure]) -> dict[str, str]:
    """Who has a discount of which id."""
    found = {one.id: f"charge {charge.id!r}" for charge in charges.values() for one in charge.discounts}
    return found | {one.id: f"plan {tenure.plan.id!r}" for tenure in tenures for one in tenure.plan.discounts}


def _quantity_problems(path: Path, discount: Discount, charges: Mapping[str, Charge]) -> Iterator[Problem]:
    if discount.charge is None:
        yield Problem(path=(*path, "charge"), what="missing, expected the metered charge whose units are free")
        return
    charge = charges[discount.charge]
    why = "a flat charge has no units" if isinstance(charge, FlatCharge) else priced_otherwise(charge)
    if why:
        what = f"found {discount.quantity}, expected percent or amount for charge {charge.id!r}: {why}"
        yield Problem(path=(*path, "quantity"), what=what)
