"""docs/tables.md says what a migrated database says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metering.docs.tables import described_tables, tables_markdown
from metering.testing import ClickHouseUnderTest
from tests.support.made_usage import UsageTables, usage_tables

DOCUMENT = Path(__file__).parents[2] / "docs" / "tables.md"


@pytest.fixture(scope="module")
def tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        yield made


def test_the_document_describes_every_table_view_and_column(tables: UsageTables, tmp_path: Path) -> None:
    expected = tables_markdown(described_tables(tables.client))
    (tmp_path / "tables.md").write_text(expected, encoding="utf-8")

    assert DOCUMENT.read_text(encoding="utf-8") == expected, f"copy {tmp_path / 'tables.md'} to docs/tables.md"


def test_every_table_view_and_column_has_a_comment(tables: UsageTables) -> None:
    described = described_tables(tables.client)

    assert [table.name for table in described if not table.comment] == []
    assert [(table.name, column.name) for table in described for column in table.columns if not column.comment] == []
    assert {"rollups", "usage_15m", "usage_daily", "usage_monthly"} <= {table.name for table in described}
