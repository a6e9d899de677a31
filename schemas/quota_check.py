"""Whether quotas can be meant: for somebody, once, and of a meter whose usage has a quantity in a period. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.catalog_parts import Parts
from schemas.plan import BillingPeriod
from schemas.problem import Path, Problem, path_text
from schemas.quota import Quota


def quota_problems(parts: Parts) -> Iterator[Problem]:
    """The problems of all quotas of a catalog."""
    balances = parts.balances()
    seen: dict[tuple[str, str | None, str | None], Path] = {}
    for path, quota in parts.of(Quota):
        yield from _own_problems(path, quota)
        if quota.meter in balances:
            what = "is time_weighted, expected a meter whose usage adds up in a period, or a max or latest one"
            yield Problem(path=(*path, "meter"), what=f"{quota.meter!r} {what}")
        first = seen.setdefault((quota.meter, quota.plan, quota.customer), path)
        if first != path:
            whose = f"customer {quota.customer!r}" if quota.plan is None else f"plan {quota.plan!r}"
            what = f"{whose} has a quota of {quota.meter!r} already ({path_text(first)}), expected one"
            yield Problem(path=path, what=what)


def _own_problems(path: Path, quota: Quota) -> Iterator[Problem]:
    if (quota.plan is None) == (quota.customer is None):
        found = "neither plan nor customer" if quota.plan is None else "plan and customer"
        yield Problem(path=path, what=f"found {found}, expected one of them")
    if quota.quantity < 0:
        yield Problem(path=(*path, "quantity"), what=f"found {quota.quantity}, expected 0 or more")
    if quota.period is BillingPeriod.DAYS:
        yield Problem(path=(*path, "period"), what="found days, expected week, month, quarter, year, or none")
