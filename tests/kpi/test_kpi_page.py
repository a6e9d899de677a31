"""docs/kpis.md: every example, counted by the real engine, gives the numbers that stand there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from metering.testing import ClickHouseUnderTest
from tests.support.documented_queries import DocumentedQuery, queries_count, queries_of
from tests.support.example_world import example_world
from tests.support.made_kpis import answer
from tests.support.made_usage import UsageTables

QUERIES = queries_of("kpis.md")


@pytest.fixture(scope="module")
def world(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with example_world(clickhouse) as tables:
        yield tables


@pytest.mark.parametrize("query", QUERIES, ids=[f"{number}-{one.heading}" for number, one in enumerate(QUERIES)])
def test_the_example_gives_the_numbers_of_the_page(world: UsageTables, query: DocumentedQuery) -> None:
    assert answer(world, query.sql) == (query.columns, query.rows)


def test_every_query_of_the_page_has_its_answer_below_it() -> None:
    assert len(QUERIES) == queries_count("kpis.md") > 0


def test_every_kpi_view_has_an_example(world: UsageTables) -> None:
    views = world.client.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE 'kpi_%'"
    ).result_rows
    asked = " ".join(one.sql for one in QUERIES)

    assert [name for (name,) in views if name not in asked and name != "kpi_customer_months"] == []
