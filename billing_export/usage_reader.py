"""Reads usage for billing from rollups, many customers a question."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.readings import Event, Reading
from billing_export.stocks import is_stock
from metering.usage.answer import answer
from metering.usage.event_values import EventValuesQuery, event_values, opening_balances
from schemas.catalog import AppliedCatalog
from schemas.usage_query import By, Cut, UsageQuery, UsageRow

NAMES_BYTES_MAX: Final = 200_000
"""Most bytes of names in one question: they travel in the address of a request."""


class RollupReader:
    """The `UsageReader` of a close. An answer may have as many rows as it takes: there is a line for each."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def on(self, client: Client) -> RollupReader:
        """The same on another connection."""
        return RollupReader(client)

    def usage(self, catalog: AppliedCatalog, query: UsageQuery) -> Sequence[UsageRow]:
        """The answer, asked in pieces.

        Customers with one subject are asked about by subject, which says the same and spares ClickHouse looking
        every subject's owner up in the catalog.
        """
        owners: dict[str, str] = {}
        several: list[str] = []
        for customer in query.customers or ():
            subjects = catalog.customers[customer].subjects
            if len(subjects) == 1:
                owners[subjects[0]] = customer
            elif subjects:
                several.append(customer)
        found: list[UsageRow] = []
        for names in _pieces(owners):
            asked = msgspec.structs.replace(query, by=By.SUBJECT, customers=None, subjects=names)
            found += [
                msgspec.structs.replace(row, who=owners[row.who])
                for row in answer(self._client, catalog, asked, rows_max=sys.maxsize)
            ]
        for names in _pieces(several):
            asked = msgspec.structs.replace(query, customers=names)
            found += answer(self._client, catalog, asked, rows_max=sys.maxsize)
        return found

    def events(self, catalog: AppliedCatalog, reading: Reading, customers: Sequence[str], cut: Cut) -> Iterable[Event]:
        """Each event's value in time order, opening balances of a time_weighted meter first."""
        asked = EventValuesQuery(
            meter=reading.meter,
            start=reading.start,
            end=reading.end,
            customers=tuple(customers),
            group_by=reading.group_by,
            cut=cut,
        )
        if is_stock(catalog.meters[reading.meter]):
            for one in opening_balances(self._client, catalog, asked):
                yield Event(one.customer, one.dimensions, reading.start, one.balance, 0, 0)
        for value in event_values(self._client, catalog, asked):
            yield Event(value.customer, value.dimensions, value.time, value.value, 1, value.digest)


def _pieces(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """The names in pieces that fit into a question."""
    piece: list[str] = []
    size_bytes = 0
    for name in names:
        size_bytes += len(name.encode()) + 3
        if piece and size_bytes > NAMES_BYTES_MAX:
            yield tuple(piece)
            piece, size_bytes = [], len(name.encode()) + 3
        piece.append(name)
    if piece:
        yield tuple(piece)
