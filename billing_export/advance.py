"""Charges in advance: what is billed for the next period, and what a changed subscription makes of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.adjust import Chain, Reason, chains_of
from billing_export.bill import TermWork, advance_lines, discounted
from billing_export.catalogs import Catalogs
from billing_export.discounts import Reducible
from billing_export.earlier_lines import LastBill, lines_of
from billing_export.lines import Made
from billing_export.run import Run
from schemas.catalog import AppliedCatalog
from schemas.charges import FlatCharge, Timing
from schemas.line_item import LineItem, LineKind
from schemas.period import next_period, period_of
from schemas.plan import Plan
from schemas.subscription import Subscription
from schemas.subscription_life import cadence_of, phases, tenures

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of one subscription and period as they should be now, and what was billed."""

    after: tuple[Made, ...]
    before: dict[str, Chain]

    def reason_of(self, _: LineItem) -> Reason:
        """Why any of the lines changes."""
        return Reason.SUBSCRIPTION_CHANGED


class Advance(msgspec.Struct, frozen=True, kw_only=True):
    """A customer's lines in advance that were not billed yet, and those that have to be changed."""

    first: tuple[Reducible, ...] = ()
    changes: tuple[Change, ...] = ()


_NOTHING = Advance()


class AdvanceCharges:
    """Works out charges in advance for some customers at a time.

    What is billed once is left alone, whatever prices do, unless its subscription has changed since the customer's
    last bill: then every period that was billed in advance is held against the newest catalog.
    """

    def __init__(
        self, client: Client, run: Run, log: Sequence[Run], catalogs: Catalogs, last: Mapping[str, LastBill]
    ) -> None:
        self._client = client
        self._run = run
        self._catalogs = catalogs
        self._catalog = catalogs.load(run.catalog_version)
        self._last = last
        self._version_at = {one.sequence: one.catalog_version for one in log}
        self._any = any(_in_advance(plan) for plan in self._catalog.catalog.plans)

    def reconnect(self, client: Client) -> None:
        """Use another connection from now on."""
        self._client = client

    def of(self, works: Mapping[str, Sequence[TermWork]]) -> dict[str, Advance]:
        """The charges in advance of each customer."""
        changed = {name: subscriptions for name in works if (subscriptions := self._changed(name))}
        charged = [
            name
            for name, held in works.items()
            if self._any and any(_in_advance(_first_plan(self._catalog, one)) for one in held)
        ]
        if not changed and not charged:
            return dict.fromkeys(works, _NOTHING)
        billed = self._billed(works, charged, list(changed))
        return {
            name: self._of(held, billed.get(name, {}), changed.get(name, frozenset())) for name, held in works.items()
        }

    def _of(
        self,
        works: Sequence[TermWork],
        billed: Mapping[tuple[str, str], list[LineItem]],
        changed: frozenset[str],
    ) -> Advance:
        first: list[Reducible] = []
        changes: list[Change] = []
        for work in works:
            term = work.term
            following = next_period(cadence_of(self._catalog, term.subscription), term.period)
            for period in (term.period, following):
                if not billed.get((term.subscription.id, period.label)):
                    found = phases(self._catalog, term.subscription, period)
                    first += advance_lines(self._run, self._catalog, found)
        for (subscription, label), lines in billed.items():
            if subscription in changed:
                changes.append(self._change(subscription, label, lines))
        return Advance(first=tuple(first), changes=tuple(changes))

    def _change(self, name: str, label: str, lines: Sequence[LineItem]) -> Change:
        subscription = self._catalog.subscriptions.get(name)
        after: list[Made] = []
        if subscription is not None:
            customer = self._catalog.customers[subscription.customer]
            period = period_of(label, customer.timezone)
            found = advance_lines(self._run, self._catalog, phases(self._catalog, subscription, period))
            after = list(discounted(self._run, found, period))
        return Change(after=tuple(after), before=chains_of(lines))

    def _billed(
        self, works: Mapping[str, Sequence[TermWork]], charged: Sequence[str], changed: Sequence[str]
    ) -> dict[str, dict[tuple[str, str], list[LineItem]]]:
        """Lines in advance that were billed: by customer, then by subscription and period."""
        sequence = self._run.sequence
        lines: list[LineItem] = []
        known = [name for name in charged if name in self._last and name not in set(changed)]
        if known:
            since = min(work.term.period.start for name in known for work in works[name])
            lines += lines_of(self._client, sequence, known, flat_since=since)
        if changed:
            lines += lines_of(self._client, sequence, changed, flat_since=_BEGINNING)
        flat = {one.id for one in lines if one.kind is LineKind.FLAT and self._is_in_advance(one)}
        roots = {root for root, chain in chains_of(lines).items() if chain.lines[0].id in flat}
        found: dict[str, dict[tuple[str, str], list[LineItem]]] = {}
        for root, chain in chains_of(lines).items():
            newest = chain.lines[0]
            if root in roots or (newest.kind is LineKind.DISCOUNT and newest.reduces in roots):
                key = (newest.subscription, newest.period)
                found.setdefault(newest.customer, {}).setdefault(key, []).extend(chain.lines)
        return found

    def _is_in_advance(self, line: LineItem) -> bool:
        """Whether a flat line was charged in advance, by the catalog it was priced with."""
        catalog = self._catalogs.load(line.catalog_version)
        subscription = catalog.subscriptions.get(line.subscription)
        charges = list(subscription.overrides) if subscription else []
        plan = catalog.plan_version(line.plan, line.plan_version)
        charges += catalog.price_list(plan, line.currency).charges
        found = next((one for one in charges if one.id == line.charge), None)
        return isinstance(found, FlatCharge) and found.timing is Timing.ADVANCE

    def _changed(self, customer: str) -> frozenset[str]:
        """The subscriptions of a customer whose life is another now than at the customer's last bill."""
        last = self._last.get(customer)
        if last is None:
            return frozenset()
        version = self._version_at[last.sequence]
        if version == self._run.catalog_version:
            return frozenset()
        old = self._catalogs.load(version)
        held = {one.id: one for one in (*old.subscriptions_of(customer), *self._catalog.subscriptions_of(customer))}
        return frozenset(name for name in held if _life(old, name) != _life(self._catalog, name))


def _life(catalog: AppliedCatalog, name: str) -> tuple[object, ...] | None:
    """What of a subscription decides for which time it pays which plan; prices are not a part of it."""
    one: Subscription | None = catalog.subscriptions.get(name)
    if one is None:
        return None
    held = tuple((part.start, part.end, part.plan.id, part.plan.version) for part in tenures(catalog, one))
    customer = catalog.customers[one.customer]
    trial_days = one.trial_days if one.trial_days is not None or not held else tenures(catalog, one)[0].plan.trial_days
    return (held, trial_days, one.pauses, customer.timezone, catalog.currency_of(one))


def _in_advance(plan: Plan) -> bool:
    return any(isinstance(one, FlatCharge) and one.timing is Timing.ADVANCE for one in plan.charges)


def _first_plan(catalog: AppliedCatalog, work: TermWork) -> Plan:
    return tenures(catalog, work.term.subscription)[0].plan
