"""Finds the frozen bills that events or corrections have reached since, and rates their periods whole again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export import earlier_lines
from billing_export.adjust import Chain, Reason, adjustments, chains_of
from billing_export.bill import TermWork, advance_lines, bill_of, term_work
from billing_export.catalogs import Catalogs
from billing_export.discounts import Reducible
from billing_export.earlier_lines import LastBill, Touched
from billing_export.pricing import Priceable
from billing_export.readings import Answers
from billing_export.run import Run, RunKind
from billing_export.scope import terms_of
from billing_export.stocks import is_stock
from schemas.catalog import AppliedCatalog
from schemas.charges import MeteredCharge
from schemas.line_item import LineItem, LineKind
from schemas.period import next_period, period_of
from schemas.subscription_life import cadence_of, phases

_ZONES = timedelta(days=2)
"""More than the clocks of any two zones are apart."""


class Rerate(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen bill of one customer that is to be rated again: its run, its terms, and all that was billed for it."""

    run: Run
    works: tuple[TermWork, ...]
    in_advance: tuple[Reducible, ...]
    before: dict[str, Chain]
    settled: frozenset[str]
    touched: Touched


class Rerating:
    """Works out which bills of which customers are to be rated again.

    Each customer's last bill accounted for everything up to its cut, so only events and corrections beyond that one
    are looked for. To look at a bill too many is harmless: where nothing changed, there is no correction.
    """

    def __init__(
        self, client: Client, run: Run, log: Sequence[Run], catalogs: Catalogs, last: Mapping[str, LastBill]
    ) -> None:
        self._client = client
        self._run = run
        self._log = log
        self._catalogs = catalogs
        self._touched = self._find(last)

    def reconnect(self, client: Client) -> None:
        """Use another connection from now on."""
        self._client = client

    def of(self, customers: Sequence[str]) -> dict[str, tuple[Rerate, ...]]:
        """The bills to rate again, of each of some customers, in the order in which they were made."""
        touched = [name for name in customers if name in self._touched]
        lines: dict[str, list[LineItem]] = {}
        for line in earlier_lines.lines_of(self._client, self._run.sequence, touched) if touched else ():
            lines.setdefault(line.customer, []).append(line)
        found: dict[str, tuple[Rerate, ...]] = {}
        for name in touched:
            chains = chains_of(lines.get(name, ()))
            bills = [self._bill(one, name, chains) for one in self._log if self._may_concern(one, name)]
            found[name] = tuple([one for one in bills if one is not None])
        return found

    def corrected(self, one: Rerate, answers: Answers) -> list[LineItem]:
        """The lines that correct a bill."""
        catalog = self._catalogs.load(one.run.catalog_version)
        period = period_of(one.run.period, one.works[0].term.customer.timezone)
        fixed = {line.line.item.id for line in one.in_advance}
        after = [
            line
            for line in bill_of(one.run, catalog, one.works, one.in_advance, answers, period=period)
            if line.item.id not in fixed and line.item.reduces not in one.settled
        ]
        return adjustments(self._run, after, one.before, lambda line: _reason(line, one.touched))

    def _find(self, last: Mapping[str, LastBill]) -> dict[str, Touched]:
        """What happened to each customer since the last bill, of times that may have been billed."""
        by_sequence: dict[int, list[str]] = {}
        for customer, bill in last.items():
            by_sequence.setdefault(bill.sequence, []).append(customer)
        of_sequence = {one.sequence: one for one in self._log}
        found: dict[str, Touched] = {}
        for sequence, customers in by_sequence.items():
            since = of_sequence[sequence]
            catalogs = self._catalogs_of(since, customers)
            ends = {name: self._billed_until(name, since, last[name]) for name in customers}
            for subject, touched in earlier_lines.touched(self._client, since, self._run, max(ends.values())):
                owners = [one.customer_of(subject) for one in catalogs]
                for owner in {one.id for one in owners if one is not None}:
                    end = ends.get(owner)
                    if end is not None and touched.first < end:
                        known = found.get(owner)
                        found[owner] = touched if known is None else known.together_with(touched)
        return found

    def _catalogs_of(self, since: Run, customers: Sequence[str]) -> list[AppliedCatalog]:
        """The catalogs that say whose a subject is: then, now, and the last that had a customer who is in neither."""
        versions = {since.catalog_version, self._run.catalog_version}
        then = self._catalogs.load(since.catalog_version)
        for name in customers:
            if name not in then.customers:
                versions.add(self._catalogs.version_having(name, self._versions_until(since)))
        return [self._catalogs.load(version) for version in sorted(versions)]

    def _versions_until(self, since: Run) -> list[int]:
        return [one.catalog_version for one in reversed(self._log) if one.sequence <= since.sequence]

    def _billed_until(self, customer: str, since: Run, last: LastBill) -> datetime:
        """Until when usage of a customer may have been billed, lines or not: the end of the last bill's period."""
        timezone = self._catalogs.customer(customer, self._versions_until(since)).timezone
        end = period_of(since.period, timezone).end
        return end if last.usage_end is None else max(end, last.usage_end)

    def _may_concern(self, bill: Run, customer: str) -> bool:
        """Whether a run billed, or built on, a time in which something happened."""
        if bill.kind is RunKind.ADJUSTMENTS:
            return False
        return period_of(bill.period).end + _ZONES > self._touched[customer].first

    def _bill(self, bill: Run, customer: str, chains: Mapping[str, Chain]) -> Rerate | None:
        catalog = self._catalogs.load(bill.catalog_version)
        of_period = [one for one in self._log if one.period == bill.period]
        if customer not in catalog.customers:
            return None
        terms = terms_of(bill, of_period, self._catalogs.load, (customer,))
        works = tuple([term_work(catalog, one) for one in terms])
        touched = self._touched[customer]
        if not any(_is_touched(catalog, one, touched) for work in works for one in work.priceables):
            return None
        in_advance = self._in_advance(bill, catalog, works, chains)
        fixed = {one.line.item.id for one in in_advance}
        settled = frozenset(
            root
            for root in fixed
            if any(
                line.adjustment is not None and line.adjustment.reason == Reason.SUBSCRIPTION_CHANGED.value
                for line in chains[root].lines
            )
        )
        keys = {(one.subscription.id, one.period.label) for one in terms}
        before = {
            root: chain
            for root, chain in chains.items()
            if root not in fixed and chain.lines[0].reduces not in settled and _belongs(chain.lines[0], bill, keys)
        }
        return Rerate(
            run=bill, works=works, in_advance=tuple(in_advance), before=before, settled=settled, touched=touched
        )

    def _in_advance(
        self, bill: Run, catalog: AppliedCatalog, works: Sequence[TermWork], chains: Mapping[str, Chain]
    ) -> list[Reducible]:
        """The lines in advance that the bill had: they count for discounts, and are not rated again."""
        found: list[Reducible] = []
        for work in works:
            subscription, period = work.term.subscription, work.term.period
            for one in (period, next_period(cadence_of(catalog, subscription), period)):
                for line in advance_lines(bill, catalog, phases(catalog, subscription, one)):
                    chain = chains.get(line.line.item.id)
                    if chain is not None and chain.lines[0].run == bill.id:
                        found.append(line)
        return found


def _reason(line: LineItem, touched: Touched) -> Reason:
    """Why a line changes: a correction where there was one of its time, or before it for what is carried along."""
    if touched.corrected_first is not None and touched.corrected_first < line.service_end:
        return Reason.CORRECTED_EVENTS
    return Reason.LATE_EVENTS


def _belongs(first: LineItem, bill: Run, keys: set[tuple[str, str]]) -> bool:
    """Whether a chain is of a bill: it began there, or a later correction began it for one of the bill's terms."""
    if first.run == bill.id:
        return True
    adjustment = first.adjustment
    if adjustment is None or adjustment.reason == Reason.SUBSCRIPTION_CHANGED.value:
        return False
    return (first.subscription, first.period) in keys and first.kind in (
        LineKind.USAGE,
        LineKind.FLAT,
        LineKind.TRUE_UP,
        LineKind.DISCOUNT,
    )


def _is_touched(catalog: AppliedCatalog, one: Priceable, touched: Touched) -> bool:
    """Whether what happened may change a price: in its own time, or before it where the past is carried along."""
    segment, charge = one.segment, one.segment.charge
    if not isinstance(charge, MeteredCharge) or touched.first >= segment.end:
        return False
    carries = charge.rollover is not None or is_stock(catalog.meters[charge.meter])
    return carries or touched.last >= segment.start
