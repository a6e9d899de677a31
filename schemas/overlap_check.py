"""Whether a charge would be billed twice at a time, by two subscriptions of one customer. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date

import msgspec

from schemas.problem import Path, Problem, path_text
from schemas.subscription import Subscription
from schemas.subscription_life import Tenure


class _Span(msgspec.Struct, frozen=True, gc=False):
    """The days [start, end) on which a subscription charges something."""

    start: date
    end: date
    path: Path
    subscription: str
    plan: str


def overlap_problems(lives: Iterable[tuple[Path, Subscription, tuple[Tenure, ...]]]) -> Iterator[Problem]:
    """One problem for each subscription and the earlier one in the file that it collides with."""
    held: dict[str, list[tuple[Path, Subscription, tuple[Tenure, ...]]]] = {}
    for life in lives:
        held.setdefault(life[1].customer, []).append(life)
    for customer, several in held.items():
        if len(several) > 1:
            yield from _customer_problems(customer, several)


def _customer_problems(
    customer: str, lives: Sequence[tuple[Path, Subscription, tuple[Tenure, ...]]]
) -> Iterator[Problem]:
    by_charge: dict[str, list[_Span]] = {}
    for path, one, tenures in lives:
        for tenure in tenures:
            span = _Span(tenure.start, tenure.end or date.max, path, one.id, tenure.plan.id)
            for charge in tenure.plan.charges:
                by_charge.setdefault(charge.id, []).append(span)
    collisions: dict[tuple[Path, Path], tuple[_Span, _Span, list[str]]] = {}
    for charge_id, spans in by_charge.items():
        for span, other in _collisions(spans):
            later, earlier = (span, other) if span.path > other.path else (other, span)
            collisions.setdefault((later.path, earlier.path), (later, earlier, []))[2].append(charge_id)
    for (path, _), (later, earlier, charges) in sorted(collisions.items(), key=lambda each: each[0]):
        shared = f"plan {later.plan!r}" if later.plan == earlier.plan else f"charge {', '.join(map(repr, charges))}"
        yield Problem(
            path=path,
            what=f"{shared} is charged to customer {customer!r} by subscription {earlier.subscription!r} at the same "
            f"time ({path_text(earlier.path)}), expected spans that do not overlap",
        )


def _collisions(spans: list[_Span]) -> Iterator[tuple[_Span, _Span]]:
    """Each span that begins before the longest of those before it ends, with that one."""
    longest: _Span | None = None
    for one in sorted(spans, key=lambda span: (span.start, span.path)):
        if longest is not None and one.start < longest.end and one.path != longest.path:
            yield one, longest
        if longest is None or one.end > longest.end:
            longest = one
