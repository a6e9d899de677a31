"""Corrections of frozen lines: what they should have been, against the sum of all lines so far. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

import msgspec

from billing_export.lines import NO_DIGEST, Made, revised_id, root_id
from billing_export.money import format_amount
from billing_export.rate_number import EXACT
from billing_export.run import Run
from schemas.line_item import Adjustment, LineItem
from schemas.quantity import ZERO, format_quantity


class Reason(enum.Enum):
    """Why a line is corrected."""

    LATE_EVENTS = "late_events"
    CORRECTED_EVENTS = "corrected_events"
    SUBSCRIPTION_CHANGED = "subscription_changed"


class Chain:
    """A first line and its corrections, oldest first: all that was billed for one thing."""

    def __init__(self) -> None:
        self.lines: list[LineItem] = []

    @property
    def newest(self) -> LineItem:
        return self.lines[-1]

    @property
    def revision(self) -> int:
        return max(one.revision for one in self.lines)

    @property
    def quantity(self) -> Decimal:
        return self._sum("quantity")

    @property
    def exact(self) -> Decimal:
        return self._sum("amount_unrounded")

    @property
    def amount(self) -> Decimal:
        return self._sum("amount")

    def _sum(self, name: str) -> Decimal:
        total = ZERO
        for one in self.lines:
            total = EXACT.add(total, Decimal(getattr(one, name)))
        return total


def chains_of(lines: Iterable[LineItem]) -> dict[str, Chain]:
    """The chains that lines belong to, by the id of the first line."""
    found: dict[str, Chain] = {}
    for one in lines:
        found.setdefault(root_id(one), Chain()).lines.append(one)
    return found


def adjustments(
    run: Run,
    after: Sequence[Made],
    before: dict[str, Chain],
    reason: Callable[[LineItem], Reason],
) -> list[LineItem]:
    """The lines that lead from `before` to `after`; both by what they are about. None where nothing changes.

    A line that should not have been is taken back whole. What was not billed at all becomes a first line that says so.
    """
    found: list[LineItem] = []
    wanted = {one.item.id: one for one in after}
    for one in after:
        line = _change(run, one, before.get(one.item.id), reason(one.item))
        if line is not None:
            found.append(line)
    for root, chain in before.items():
        if root not in wanted:
            gone = msgspec.structs.replace(chain.newest, events_count=0, digest=NO_DIGEST)
            nothing = Made(item=gone, exact=ZERO, amount=chain.amount * 0, quantity=ZERO)
            line = _change(run, nothing, chain, reason(gone))
            if line is not None:
                found.append(line)
    return found


def _change(
    run: Run,
    after: Made,
    chain: Chain | None,
    reason: Reason,
) -> LineItem | None:
    """The correcting line; of a tiered charge without the tiers, which say what the whole came to, not the change."""
    item, quantity, exact, amount = after.item, after.quantity, after.exact, after.amount
    quantity_before = chain.quantity if chain else ZERO
    amount_before = chain.amount if chain else amount * 0
    exact_before = chain.exact if chain else ZERO
    more = EXACT.subtract(quantity, quantity_before)
    due = EXACT.subtract(amount, amount_before)
    if not more and not due:
        return None
    revision = chain.revision + 1 if chain else 0
    return msgspec.structs.replace(
        item,
        id=revised_id(item, revision),
        run=run.id,
        revision=revision,
        corrects=chain.newest.id if chain else None,
        adjustment=Adjustment(
            quantity_before=format_quantity(quantity_before),
            quantity_after=format_quantity(quantity),
            amount_before=format_amount(amount_before),
            amount_after=format_amount(amount),
            reason=reason.value,
        ),
        quantity=format_quantity(more),
        tiers=(),
        amount_unrounded=format_quantity(EXACT.subtract(exact, exact_before)),
        amount=format_amount(due),
    )
