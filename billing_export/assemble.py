"""Makes a run's lines: reads quantities for some subscriptions at a time, so that memory has a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from billing_export.lines import Reading, Service, Used, line_items, reading_of
from billing_export.run import Run
from schemas.catalog import AppliedCatalog
from schemas.line_item import LineItem
from schemas.usage_query import By, UsageQuery, UsageRow, Window

SERVICES_AT_A_TIME: Final = 1_000

UsageReader: TypeAlias = Callable[[AppliedCatalog, UsageQuery], Sequence[UsageRow]]
"""Answers a usage question with a catalog version: a row for each customer and dimension value with usage."""


def assemble(
    run: Run, catalog: AppliedCatalog, subscribed: Sequence[Service], read_usage: UsageReader
) -> Iterator[list[LineItem]]:
    """The run's lines in their order, some subscriptions at a time. The same run and catalog give the same lines."""
    for first in range(0, len(subscribed), SERVICES_AT_A_TIME):
        part = subscribed[first : first + SERVICES_AT_A_TIME]
        used = _read(run, catalog, part, read_usage)
        yield [line for one in part for line in line_items(run, catalog, one, used.get(one.customer.id, {}))]


def _read(
    run: Run, catalog: AppliedCatalog, part: Sequence[Service], read_usage: UsageReader
) -> dict[str, dict[Reading, list[Used]]]:
    """Quantities by customer. Customers whose periods share their instants are asked about in one query a meter."""
    asked: dict[Reading, dict[str, None]] = {}
    for one in part:
        for charge in one.plan.charges:
            reading = reading_of(one, charge)
            if reading is not None:
                asked.setdefault(reading, {})[one.customer.id] = None
    found: dict[str, dict[Reading, list[Used]]] = {}
    for reading, customers in asked.items():
        query = UsageQuery(
            meter=reading.meter,
            start=reading.start,
            end=reading.end,
            window=Window.TOTAL,
            by=By.CUSTOMER,
            customers=tuple(customers),
            group_by=reading.group_by,
            cut=run.cut,
        )
        for row in read_usage(catalog, query):
            used = Used(
                dimensions=row.dimensions,
                quantity=row.quantity,
                events_count=row.events_count,
                digest=row.digest,
            )
            found.setdefault(row.who, {}).setdefault(reading, []).append(used)
    return found
