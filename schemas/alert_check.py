"""Whether alerts can be meant: with what they look at, and nothing that they do not. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from schemas.alert import OF_A_DAY, AlertRule, Watch
from schemas.catalog_parts import Parts
from schemas.problem import Path, Problem


def alert_problems(parts: Parts) -> Iterator[Problem]:
    """The problems of all alerts of a catalog."""
    balances = parts.balances()
    for path, rule in parts.of(AlertRule):
        yield from _budget_problems(path, rule)
        yield from _day_problems(path, rule, balances)
        if rule.meter is not None and rule.watch not in (Watch.QUOTA, Watch.ALLOWANCE, *OF_A_DAY):
            what = f"found {rule.meter!r}, expected none: a {rule.watch.value} is not of one meter"
            yield Problem(path=(*path, "meter"), what=what)
        if not rule.percentages:
            yield Problem(path=(*path, "thresholds"), what="empty, expected at least one percentage such as 80")
        for names, field in ((rule.percentages, "thresholds"), (rule.customers, "customers")):
            for index, one in enumerate(names):
                if one in names[:index]:
                    yield Problem(path=(*path, field, index), what=f"{one!r} stands twice, expected once")


def _budget_problems(path: Path, rule: AlertRule) -> Iterator[Problem]:
    for field, value in (("amount", rule.amount), ("currency", rule.currency)):
        if rule.watch is Watch.BUDGET and value is None:
            yield Problem(path=(*path, field), what=f"missing, expected the {field} of the budget")
        if rule.watch is not Watch.BUDGET and value is not None:
            what = f"found {value}, expected none: it belongs to a budget, and this is {rule.watch.value}"
            yield Problem(path=(*path, field), what=what)
    if rule.watch is Watch.BUDGET and rule.amount is not None and rule.amount <= 0:
        yield Problem(path=(*path, "amount"), what=f"found {rule.amount}, expected more than 0")


def _day_problems(path: Path, rule: AlertRule, balances: AbstractSet[str]) -> Iterator[Problem]:
    """Percentages that every day or none would reach, and numbers that only the usage of a day has."""
    if rule.watch not in OF_A_DAY:
        if rule.quantity_min != 0:
            what = f"found {rule.quantity_min}, expected none: it belongs to a drop or a spike"
            yield Problem(path=(*path, "quantity_min"), what=what)
        return
    if rule.quantity_min < 0:
        yield Problem(path=(*path, "quantity_min"), what=f"found {rule.quantity_min}, expected 0 or more")
    if rule.meter in balances:
        what = f"{rule.meter!r} is time_weighted, expected a meter whose usage is that of a day"
        yield Problem(path=(*path, "meter"), what=what)
    for index, one in enumerate(rule.percentages):
        if (one >= 100) if rule.watch is Watch.DROP else (one <= 100):
            than = "less" if rule.watch is Watch.DROP else "more"
            what = f"found {one}, expected {than} than 100: a {rule.watch.value} is to so many percent of the usual"
            yield Problem(path=(*path, "thresholds", index), what=what)
