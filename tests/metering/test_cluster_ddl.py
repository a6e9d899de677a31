"""The migrations are the one source of both shapes: one server's, which they are, and a cluster's, made of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from typer.testing import CliRunner

from metering.cli import build_app
from metering.clickhouse import connect
from metering.cluster_ddl import cluster_statements
from metering.cluster_tables import SHARDED, WHOLE, local_name
from metering.config import Settings
from metering.migrate import migrate, migrations, printed, shaped, statements
from metering.testing import ClickHouseUnderTest
from schemas.errors import InvariantViolationError

GOLDEN = Path(__file__).parent / "golden"
SHOWN = ("events", "members", "meter_fills", "api_key_uses", "line_items", "usage_other")
"""Tables and views in the golden files: of every engine, spread and whole, changed later and not, and a view."""


def clustered(statement: str) -> list[str]:
    return cluster_statements(statement, cluster="main", database="billing")


def statement_name(statement: str) -> str:
    found = re.search(r"^(?:CREATE|ALTER)\b(?: OR REPLACE| TABLE| VIEW| IF NOT EXISTS)* (\w+)", statement, re.MULTILINE)
    assert found is not None, statement
    return found[1]


def test_without_a_cluster_what_is_run_is_the_text_of_the_migrations(
    clickhouse: ClickHouseUnderTest, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=database,
    )
    client = connect(settings)
    ran: list[str] = []
    command = client.command

    def noted(text: str, *rest: Any, **named: Any) -> Any:
        ran.append(text)
        return command(text, *rest, **named)

    monkeypatch.setattr(client, "command", noted)
    migrate(client)
    client.close()

    files = sorted((Path(__file__).parents[2] / "schemas" / "clickhouse").glob("*.sql"))
    written = [part for file in files for part in statements(file.read_text())]
    assert ran[0].startswith("CREATE TABLE IF NOT EXISTS schema_migrations\n")
    assert ran[1:] == written
    assert not any("ON CLUSTER" in one or "Replicated" in one or "Distributed" in one for one in ran)


def test_the_engine_parses_every_statement_of_both_shapes(clickhouse_client: Client) -> None:
    for cluster in ("", "main"):
        for text in [part.rstrip(";") for part in printed(cluster=cluster, database="billing").split(";\n\n")]:
            if re.sub(r"^--.*$", "", text, flags=re.MULTILINE).strip():
                clickhouse_client.command(f"EXPLAIN AST {text}")


def test_every_statement_goes_to_every_node() -> None:
    for _, text in migrations():
        for statement in shaped(text, cluster="main", database="billing"):
            first = statement.splitlines()[0]
            assert re.search(r"^(CREATE|ALTER) .* ON CLUSTER `main`( AS \w+)?$", first), first


def test_every_table_is_replicated_and_the_spread_ones_are_distributed_over_their_parts() -> None:
    made: dict[str, str] = {}
    for statement in printed(cluster="main", database="billing").split(";\n\n"):
        if found := re.search(
            r"^CREATE TABLE IF NOT EXISTS (\w+) .*?^ENGINE = (\w+)", statement, re.DOTALL | re.MULTILINE
        ):
            made[found[1]] = found[2]

    assert set(made) == {*WHOLE, *SHARDED, *map(local_name, SHARDED)}
    for table, engine in made.items():
        if table in SHARDED:
            assert engine == "Distributed"
        else:
            assert re.fullmatch(r"Replicated(Replacing|Aggregating|)MergeTree", engine), table


def test_rows_that_replace_each_other_are_on_one_shard(clickhouse: ClickHouseUnderTest, database: str) -> None:
    """What a row is spread by is part of the key it is replaced by."""
    client = connect(
        Settings(
            clickhouse_url=clickhouse.url,
            clickhouse_username=clickhouse.username,
            clickhouse_password=clickhouse.password,
            clickhouse_database=database,
        )
    )
    migrate(client)
    found = client.query("SELECT name, sorting_key FROM system.tables WHERE database = currentDatabase()").result_rows
    keys = {str(name): str(key) for name, key in found}
    client.close()

    for table, expression in SHARDED.items():
        columns = re.findall(r"[a-z_]+(?=[,)])", expression)
        assert columns
        assert set(columns) <= set(keys[table].split(", ")), table


@pytest.mark.parametrize("shape", ["one_server", "cluster"])
def test_the_statements_of_some_tables_are_those_that_were_looked_at(shape: str) -> None:
    """After a change that is meant, write what the failure shows into the golden file."""
    cluster = "main" if shape == "cluster" else ""
    shown = [
        statement
        for _, text in migrations()
        for source in statements(text)
        if statement_name(source) in SHOWN
        for statement in (clustered(source) if cluster else [source])
    ]

    assert "".join(f"{one};\n\n" for one in shown) == (GOLDEN / f"{shape}.sql").read_text()


def test_a_claim_holds_for_longer_than_the_hour_that_replicated_tables_remember_tokens_for() -> None:
    [runs] = clustered(
        "CREATE TABLE IF NOT EXISTS runs\n(\n    run String\n)\nENGINE = MergeTree\nORDER BY run\n"
        "SETTINGS non_replicated_deduplication_window = 100000\nCOMMENT 'Runs'"
    )

    assert "replicated_deduplication_window = 100000, replicated_deduplication_window_seconds = 315360000" in runs


def test_equal_blocks_stay_two_where_one_server_keeps_two() -> None:
    """A replicated table drops a block like one before, unless it is told not to."""
    [uses] = clustered(
        "CREATE TABLE IF NOT EXISTS api_key_uses\n(\n    key String\n)\nENGINE = AggregatingMergeTree\nORDER BY key\n"
        "COMMENT 'Uses'"
    )

    assert "SETTINGS replicated_deduplication_window = 0\n" in uses


def test_an_index_and_a_sorting_key_are_changed_where_the_rows_are() -> None:
    parts, whole = clustered(
        "ALTER TABLE members\n    ADD COLUMN IF NOT EXISTS gone UInt8 COMMENT '1, (when gone)',\n"
        "    ADD INDEX IF NOT EXISTS by_gone gone TYPE minmax GRANULARITY 1,\n    MODIFY ORDER BY (meter, gone)"
    )

    assert parts == (
        "ALTER TABLE members_local ON CLUSTER `main`\n"
        "    ADD COLUMN IF NOT EXISTS gone UInt8 COMMENT '1, (when gone)',\n"
        "    ADD INDEX IF NOT EXISTS by_gone gone TYPE minmax GRANULARITY 1,\n    MODIFY ORDER BY (meter, gone)\n"
        "SETTINGS alter_sync = 2"
    )
    assert whole == (
        "ALTER TABLE members ON CLUSTER `main`\n    ADD COLUMN IF NOT EXISTS gone UInt8 COMMENT '1, (when gone)'"
    )


def test_a_subquery_of_a_view_is_asked_of_all_shards_and_words_in_texts_stay() -> None:
    [view] = clustered(
        "CREATE OR REPLACE VIEW v\n(\n    s String COMMENT 'In: not IN (SELECT 1)'\n)\nAS SELECT s FROM events\n"
        "WHERE s IN (SELECT subject FROM members) AND s NOT IN\n    (SELECT 'IN (SELECT 1)') AND s IN ('a', 'b')\n"
        "COMMENT 'x'"
    )

    assert view == (
        "CREATE OR REPLACE VIEW v ON CLUSTER `main`\n(\n    s String COMMENT 'In: not IN (SELECT 1)'\n)\n"
        "AS SELECT s FROM events\n"
        "WHERE s GLOBAL IN (SELECT subject FROM members) AND s GLOBAL NOT IN\n    (SELECT 'IN (SELECT 1)') "
        "AND s IN ('a', 'b')\nCOMMENT 'x'"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE IF NOT EXISTS nobody_knows\n(\n    a UInt8\n)\nENGINE = MergeTree\nORDER BY a\nCOMMENT 'x'",
        "CREATE TABLE IF NOT EXISTS runs\n(\n    a UInt8\n)\nENGINE = SummingMergeTree\nORDER BY a\nCOMMENT 'x'",
        "CREATE TABLE IF NOT EXISTS runs\n(\n    a UInt8\n)\nENGINE = MergeTree\nORDER BY a\nTTL b\nCOMMENT 'x'",
        "CREATE TABLE runs\n(\n    a UInt8\n)\nENGINE = MergeTree\nORDER BY a\nCOMMENT 'x'",
        "CREATE MATERIALIZED VIEW IF NOT EXISTS v\n(\n    a UInt8\n)\nAS SELECT 1",
        "ALTER TABLE events\n    MODIFY TTL logged_at",
        "ALTER TABLE nobody_knows\n    ADD COLUMN IF NOT EXISTS a UInt8",
        "ALTER TABLE events\n    ADD COLUMN IF NOT EXISTS a UInt8,\n    DROP COLUMN b",
        "INSERT INTO runs VALUES (1)",
        "-- a comment",
    ],
)
def test_a_statement_that_is_not_known_is_refused(statement: str) -> None:
    with pytest.raises(InvariantViolationError, match="has no cluster shape"):
        clustered(statement)


def test_the_statements_can_be_read_before_they_are_run() -> None:
    shown = CliRunner().invoke(
        build_app(["migrate"]),
        ["migrate", "--print"],
        env={"METERING_CLICKHOUSE_CLUSTER": "main", "METERING_CLICKHOUSE_DATABASE": "billing"},
    )

    assert shown.exit_code == 0
    assert shown.stdout == printed(cluster="main", database="billing")
    assert "ENGINE = Distributed(`main`, `billing`, rollups_local, cityHash64(subject))" in shown.stdout


def test_what_is_printed_for_one_server_is_the_text_of_the_migrations() -> None:
    shown = printed(cluster="", database="billing")

    for _, text in migrations():
        for statement in statements(text):
            assert f"{statement};\n" in shown
