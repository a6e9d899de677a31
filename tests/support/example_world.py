"""The example of docs/kpis.md, as the page writes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from metering.testing import ClickHouseUnderTest
from tests.support.documented_queries import block_of
from tests.support.made_kpis import apply
from tests.support.made_usage import UsageTables, usage_tables


@contextmanager
def example_world(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    """A database with the page's catalog in force."""
    with usage_tables(clickhouse) as tables:
        apply(tables, block_of("kpis.md", "yaml"))
        yield tables
