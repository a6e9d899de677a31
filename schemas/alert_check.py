"""Whether alerts can be meant: with what they look at, and nothing that they do not. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.alert import AlertRule, Watch
from schemas.catalog_parts import Parts
from schemas.problem import Path, Problem


def alert_problems(parts: Parts) -> Iterator[Problem]:
    """The problems of all alerts of a catalog."""
    for path, rule in parts.of(AlertRule):
        yield from _budget_problems(path, rule)
        if rule.meter is not None and rule.watch not in (Watch.QUOTA, Watch.ALLOWANCE):
            what = f"found {rule.meter!r}, expected none: a {rule.watch.value} is not of one meter"
            yield Problem(path=(*path, "meter"), what=what)
        if not rule.thresholds:
            yield Problem(path=(*path, "thresholds"), what="empty, expected at least one percentage such as 80")
        for names, field in ((rule.thresholds, "thresholds"), (rule.customers, "customers")):
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
