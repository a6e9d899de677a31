"""Tables for KPIs, once for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from metering.testing import ClickHouseUnderTest
from tests.support.made_kpis import clear
from tests.support.made_usage import UsageTables, usage_tables


@pytest.fixture(scope="module")
def kpi_database(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        yield made


@pytest.fixture
def tables(kpi_database: UsageTables) -> UsageTables:
    """The module's tables, emptied."""
    clear(kpi_database)
    return kpi_database
