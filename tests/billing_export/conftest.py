"""A database with a month of usage, ready to be closed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from metering.testing import ClickHouseUnderTest
from tests.support.made_billing import store_world
from tests.support.made_usage import UsageTables, usage_tables


@pytest.fixture(scope="module")
def module_world(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as tables:
        yield tables


@pytest.fixture
def world(module_world: UsageTables) -> UsageTables:
    store_world(module_world)
    return module_world
