"""What an explanation of a line item says: plain frozen records, complete as JSON."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from billing_export.rate_records import Step
from schemas.charges import Charge
from schemas.line_item import LineItem, LineKind, TierShare
from schemas.meter import MeterVersion
from schemas.usage_query import Cut


class FromRun(msgspec.Struct, frozen=True, kw_only=True):
    """The run that froze a line, at `at`: what it knew of the log and of the catalog, and which code made it."""

    id: str
    sequence: int
    at: datetime
    cut: Cut
    catalog_version: int
    code_version: str


class WindowSum(msgspec.Struct, frozen=True, kw_only=True):
    """What was used in [start, end), UTC. `local` is the start on the customer's clock."""

    start: datetime
    end: datetime
    local: str
    quantity: str
    events_count: int


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The meter a line was counted with: its versions in force within [start, end), and the sums by window.

    `dimensions` choose the line's part of it. Windows of a sum or a count add up to `quantity`; of a maximum, a latest
    value or unique members they need not. Those of a balance are `unit` times `time_unit`, and `note` says what of
    it is counted. `catalog_version` is the one whose meters and subjects count.
    """

    name: str
    unit: str
    versions: tuple[MeterVersion, ...]
    dimensions: dict[str, str]
    start: datetime
    end: datetime
    timezone: str
    catalog_version: int
    window: str
    windows: tuple[WindowSum, ...]
    quantity: str
    time_unit: str = ""
    note: str = ""


class RolledOver(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier period of a charge whose free units roll over: those it had, and what was used, in [start, end)."""

    start: datetime
    end: datetime
    free_quantity: str
    quantity: str


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """How a price came about. The steps' amounts add up to `amount_unrounded`; `amount` is that, rounded once.

    For a line that corrects another this is the price of the whole, newly rated. `part_of_period` is what of the period
    is charged, as `proration` counts it: 1, or a fraction such as 10/31.
    """

    charge: Charge | None
    part_of_period: str
    rolled_over: tuple[RolledOver, ...]
    steps: tuple[Step, ...]
    tiers: tuple[TierShare, ...]
    amount_unrounded: str
    amount: str
    rounding: str


class Relation(msgspec.Struct, frozen=True, kw_only=True):
    """Another line that this one has to do with."""

    id: str
    run: str
    period: str
    kind: LineKind
    charge: str
    reference: str
    description: str
    quantity: str
    amount: str
    reason: str = ""
    amount_before: str | None = None
    amount_after: str | None = None


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """Lines that a discount, a credit, a true-up or a forwarded amount follows from. `total` is the sum of `lines`."""

    what: str
    lines: tuple[Relation, ...]
    total: str


class Recomputed(msgspec.Struct, frozen=True, kw_only=True):
    """The line as its run's inputs give it today. `differences` names each field that is not as it was frozen."""

    quantity: str | None
    amount_unrounded: str | None
    amount: str | None
    differences: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Whether the frozen line is what its inputs say, in every field."""
        return not self.differences


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """How a line came about. `notes` are sentences; `chain` is every line of its chain of corrections, oldest first.

    `amounts` is the meter that adds up what the events of a dynamic charge say they cost, before its factor.
    `reductions` are the discounts and credits that reduce it, and `net_amount` what they leave.
    """

    line: LineItem
    run: FromRun
    notes: tuple[str, ...]
    meter: Measured | None
    amounts: Measured | None
    rating: Rating | None
    based_on: tuple[Basis, ...]
    reductions: tuple[Relation, ...]
    net_amount: str
    chain: tuple[Relation, ...]
    recomputed: Recomputed


class EventShown(msgspec.Struct, frozen=True, kw_only=True):
    """An event behind a line. `adds` is what it adds to the quantity; those of all pages add up to it.

    `value` is the measured value, or the member of a unique count. `corrects` names what it replaces, as `source id`.
    """

    time: datetime
    subject: str
    source: str
    id: str
    value: str
    adds: str
    epoch: str
    partition: int
    offset: int
    corrects: str = ""


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events in time order, some of them. Sums are of `adds`: of this page, and of all pages, which is the quantity.

    `digest` is that of all pages, as on the line. `opening_balance` is what a balance began with, and
    `opening_adds` what that adds before any event.
    """

    page: int
    pages: int
    page_size: int
    events_count: int
    events: tuple[EventShown, ...]
    page_sum: str
    quantity: str
    digest: str
    opening_balance: str | None = None
    opening_adds: str | None = None


def relation_of(item: LineItem) -> Relation:
    """A line as others name it."""
    adjustment = item.adjustment
    return Relation(
        id=item.id,
        run=item.run,
        period=item.period,
        kind=item.kind,
        charge=item.charge,
        reference=item.reference,
        description=item.description,
        quantity=item.quantity,
        amount=item.amount,
        reason="" if adjustment is None else adjustment.reason,
        amount_before=None if adjustment is None else adjustment.amount_before,
        amount_after=None if adjustment is None else adjustment.amount_after,
    )


def sum_of(items: tuple[LineItem, ...]) -> Decimal:
    """The sum of the lines' amounts."""
    return sum((Decimal(one.amount) for one in items), Decimal(0))
