"""Makes a run's lines, some customers at a time, so that memory has a bound.

Lines are a pure function of the run's claim, its catalog, the events up to its cut, and the frozen lines of earlier
runs: the same run gives the same lines whenever and wherever they are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import cached_property

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export import earlier_lines, runs
from billing_export.adjust import adjustments
from billing_export.advance import Advance, AdvanceCharges
from billing_export.bill import TermWork, bill_of, term_work
from billing_export.catalogs import Catalogs
from billing_export.readings import (
    CUSTOMERS_AT_A_TIME,
    Answers,
    Reading,
    UsageReader,
    Used,
    by_customers,
    read_answers,
)
from billing_export.rerate import Rerate, Rerating
from billing_export.run import Run
from billing_export.scope import Term, terms_of
from billing_export.settle import settled
from schemas.catalog import Customer
from schemas.line_item import LineItem
from schemas.period import period_of


class CustomerWork(msgspec.Struct, frozen=True, kw_only=True):
    """All that goes into the bill of one customer."""

    customer: str
    works: tuple[TermWork, ...]
    advance: Advance
    rerates: tuple[Rerate, ...]

    def questions(self) -> Iterator[tuple[str, Reading]]:
        """(customer, reading) of everything that must be read."""
        for work in (*self.works, *(work for one in self.rerates for work in one.works)):
            for priceable in work.priceables:
                for reading in priceable.readings:
                    yield self.customer, reading


class Assembly:
    """A run and everything its lines depend on, besides usage. It gives parts, and lines for what was read."""

    def __init__(self, client: Client, run: Run, catalogs: Catalogs) -> None:
        self._client = client
        self.run = run
        self.catalogs = catalogs
        self._catalog = catalogs.load(run.catalog_version)
        self._log = [one for one in runs.listed(client) if one.sequence < run.sequence]
        of_period = [one for one in self._log if one.period == run.period]
        self._terms: dict[str, list[Term]] = {}
        for term in terms_of(run, of_period, catalogs.load):
            self._terms.setdefault(term.customer.id, []).append(term)
        self.customers = sorted(self._terms) if not run.customers else sorted({*self._terms, *run.customers})

    @cached_property
    def _last(self) -> dict[str, earlier_lines.LastBill]:
        wanted = set(self.customers)
        found = earlier_lines.last_bills(self._client, self.run.sequence) if self._log else {}
        return {customer: last for customer, last in found.items() if customer in wanted}

    @cached_property
    def _rerating(self) -> Rerating:
        return Rerating(self._client, self.run, self._log, self.catalogs, self._last)

    @cached_property
    def _advance(self) -> AdvanceCharges:
        return AdvanceCharges(self._client, self.run, self._log, self.catalogs, self._last)

    @cached_property
    def _outstanding(self) -> dict[tuple[str, str], Decimal]:
        return earlier_lines.outstanding(self._client, self.run.sequence) if self._log else {}

    @cached_property
    def _drawn(self) -> dict[tuple[str, str], Decimal]:
        return earlier_lines.drawn(self._client, self.run.sequence) if self._log else {}

    @property
    def parts_count(self) -> int:
        """How many parts there are."""
        return -(-len(self.customers) // CUSTOMERS_AT_A_TIME)

    def part(self, number: int) -> list[CustomerWork]:
        """Some of the customers, in their order, with the questions that their bills ask; parts count from 0."""
        names = self.customers[number * CUSTOMERS_AT_A_TIME : (number + 1) * CUSTOMERS_AT_A_TIME]
        works = {name: tuple([term_work(self._catalog, term) for term in self._terms.get(name, ())]) for name in names}
        advance = self._advance.of(works)
        rerates = self._rerating.of(names)
        return [
            CustomerWork(customer=name, works=works[name], advance=advance[name], rerates=rerates.get(name, ()))
            for name in names
        ]

    def parts(self) -> Iterator[list[CustomerWork]]:
        """All parts."""
        return (self.part(number) for number in range(self.parts_count))

    def answered(self, number: int, read_usage: UsageReader) -> list[LineItem]:
        """The lines of a part: its questions asked and answered."""
        part = self.part(number)
        questions = (question for work in part for question in work.questions())
        return self.lines(part, answer_all(self, by_customers(questions), read_usage))

    def prime(self) -> None:
        """Read what all parts share, so that forked processes need not."""
        _ = self._last, self._rerating, self._advance, self._outstanding, self._drawn

    def reconnect(self, client: Client) -> None:
        """Use another connection: a forked process must not share its parent's."""
        self._client = client
        self.catalogs.reconnect(client)
        self._rerating.reconnect(client)
        self._advance.reconnect(client)

    def _customer(self, name: str) -> Customer:
        """A customer, as the newest catalog has it that has it at all."""
        return self.catalogs.customer(name, [self.run.catalog_version, *_versions(self._log)])

    def lines(self, part: Sequence[CustomerWork], answers: Answers) -> list[LineItem]:
        """The lines of some customers, in their order."""
        return [line for work in part for line in self._bill(work, answers)]

    def _bill(self, work: CustomerWork, answers: Answers) -> list[LineItem]:
        customer = self._customer(work.customer)
        corrections: dict[str, list[LineItem]] = {}
        for line in [
            *(line for one in work.rerates for line in self._rerating.corrected(one, answers)),
            *(
                line
                for one in work.advance.changes
                for line in adjustments(self.run, one.after, one.before, one.reason_of)
            ),
        ]:
            corrections.setdefault(line.subscription, []).append(line)
        period = period_of(self.run.period, customer.timezone)
        bill = bill_of(self.run, self._catalog, work.works, work.advance.first, answers, period=period)
        found: list[LineItem] = []
        for subscription in sorted({*corrections, *bill.by_subscription}):
            found += sorted(corrections.get(subscription, ()), key=lambda line: line.period_start)
            for ordered in bill.by_subscription.get(subscription, ()):
                found.append(ordered.line.item)
                found += [one.item for one in ordered.discounts]
        found += [one.item for one in bill.of_invoice]
        return found + settled(self.run, customer, found, self._outstanding, self._drawn)


def _versions(log: Sequence[Run]) -> list[int]:
    """The catalog versions of runs, newest run first."""
    return [one.catalog_version for one in reversed(log)]


def assemble(assembly: Assembly, read_usage: UsageReader) -> Iterator[LineItem]:
    """The run's lines, in its order."""
    for number in range(assembly.parts_count):
        yield from assembly.answered(number, read_usage)


def answer_all(
    assembly: Assembly, asked: dict[Reading, list[str]], read_usage: UsageReader
) -> dict[tuple[str, Reading], list[Used]]:
    """The answers to some questions, each asked once for all its customers."""
    found: dict[tuple[str, Reading], list[Used]] = {}
    for reading, customers in asked.items():
        catalog = assembly.catalogs.load(reading.catalog_version)
        for customer, used in read_answers(read_usage, catalog, reading, customers, assembly.run.cut):
            found.setdefault((customer, reading), []).append(used)
    return found
