"""Runs statements and hands their rows on, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clickhouse_connect.driver.client import Client

from metering import group_overflows
from metering.usage.question import Question
from metering.usage.statements import Statement
from metering.usage.windows import from_us
from schemas.errors import InvariantViolationError
from schemas.group_overflow import NO_OVERFLOWS, Overflows
from schemas.meter import taken_values
from schemas.usage_query import By


def rows_of(client: Client, statement: Statement) -> Iterator[tuple[Any, ...]]:
    """The rows of a statement; the connection is released also when the reader stops early."""
    with client.query_row_block_stream(statement.sql, parameters=statement.parameters) as blocks:
        for block in blocks:
            yield from block


def overflows_of(client: Client, question: Question) -> Overflows:
    """Which values are counted under `other` in what is asked about; nothing is read where no version has a limit."""
    if all(taken_values(span.version.meter) is None for span in question.spans):
        return NO_OVERFLOWS
    query, edges_us = question.query, question.plan.edges_us
    subjects = query.subjects or (question.catalog.subjects_of(query.customers) if query.customers else ())
    return group_overflows.read(client, [query.meter], from_us(edges_us[0]), from_us(edges_us[-1]), subjects)


def check_stored(client: Client, question: Question) -> None:
    """Raise InvariantViolationError unless the catalog is the one this database stored under its version.

    Statements read who owns which subject from there; with another catalog they would count for the wrong customer.
    """
    if question.query.by is not By.CUSTOMER and question.query.customers is None:
        return
    found = client.query(
        "SELECT DISTINCT digest FROM catalog_versions WHERE version = {version:UInt32}",
        {"version": question.catalog.version},
    ).result_rows
    if found != [(question.catalog.digest,)]:
        raise InvariantViolationError(
            f"catalog version {question.catalog.version} is not the one this database has under that number",
            where=f"{client.database}.catalog_versions",
            fix="Ask with a catalog that metering.catalog_store.load gave",
        )
