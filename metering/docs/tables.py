"""docs/tables.md: every table, view and column of a migrated database, with its comment."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from metering.migrate import migrations

_CREATED: Final = re.compile(r"^CREATE (?:TABLE IF NOT EXISTS|VIEW IF NOT EXISTS|OR REPLACE VIEW) (\w+)", re.MULTILINE)
_HISTORY: Final = "schema_migrations"

_HEAD: Final = """\
# Tables and views

Generated from a migrated database by `make docs`; a test compares.
Names in bold are the sorting key. A ReplacingMergeTree holds a row again after a retry until it merges: read it with
`FINAL`, as the views do. Times are UTC, ranges half-open. On [a cluster](cluster.md) the tables have the same columns;
those that are spread over its shards have their rows in `NAME_local`.
"""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column as ClickHouse describes it."""

    name: str
    type: str
    comment: str
    in_sorting_key: bool


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table or view as ClickHouse describes it; `migration` is the file that made it, or empty."""

    name: str
    engine: str
    partition_key: str
    comment: str
    migration: str
    columns: tuple[Column, ...]


def described_tables(client: Client) -> list[Table]:
    """The tables and views of the client's database, in the order in which migrations make them."""
    made_by = {name: file for file, text in migrations() for name in _CREATED.findall(text)}
    order = [_HISTORY, *made_by]
    columns: dict[str, list[Column]] = {}
    for table, name, type_, comment, in_sorting_key in _rows(
        client,
        "SELECT table, name, type, comment, is_in_sorting_key FROM system.columns"
        " WHERE database = currentDatabase() ORDER BY table, position",
    ):
        columns.setdefault(table, []).append(
            Column(name=name, type=type_, comment=comment, in_sorting_key=bool(in_sorting_key))
        )
    tables = [
        Table(
            name=name,
            engine=engine,
            partition_key=partition_key,
            comment=comment,
            migration=made_by.get(name, ""),
            columns=tuple(columns[name]),
        )
        for name, engine, partition_key, comment in _rows(
            client,
            "SELECT name, engine, partition_key, comment FROM system.tables WHERE database = currentDatabase()",
        )
    ]
    return sorted(tables, key=lambda table: (order.index(table.name) if table.name in order else -1, table.name))


def tables_markdown(tables: list[Table]) -> str:
    """The document. Pure."""
    parts = [_HEAD]
    for table in tables:
        kind = table.engine if not table.partition_key else f"{table.engine}, partitioned by `{table.partition_key}`"
        origin = f", made by `schemas/clickhouse/{table.migration}`" if table.migration else ""
        lines = [
            f"## {table.name}",
            "",
            f"{table.comment}.",
            "",
            f"{kind}{origin}.",
            "",
            "| column | type | meaning |",
            "|---|---|---|",
            *(_line(column) for column in table.columns),
            "",
        ]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _line(column: Column) -> str:
    name = f"**{column.name}**" if column.in_sorting_key else column.name
    return f"| {name} | `{column.type}` | {column.comment.replace('|', chr(92) + '|')} |"


def _rows(client: Client, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in client.query(sql).result_rows]
