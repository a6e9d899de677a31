"""The users of an outside ClickHouse: the statements are ClickHouse's language, and name what is there.

The embedded engine has no users, so what they may do is checked in the text, as far as that goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from metering.clickhouse import connect
from metering.config import Settings
from metering.migrate import migrate, statements

ROLES = (Path(__file__).parents[2] / "docs/clickhouse-roles.sql").read_text(encoding="utf-8")
GRANT = re.compile(r"^(GRANT|REVOKE) ([A-Z, ]+) ON (\S+) (?:TO|FROM) (\w+)", re.MULTILINE)


def allowed(role: str, right: str) -> set[str]:
    """What the file lets a role do something with; `metering.*` stands for itself."""
    found: set[str] = set()
    for verb, rights, target, whose in GRANT.findall(ROLES):
        if whose == role and right in rights.split(", "):
            (found.add if verb == "GRANT" else found.discard)(target)
    return found


@pytest.fixture
def client(service_settings: Settings) -> Iterator[Client]:
    one = connect(service_settings)
    migrate(one)
    yield one
    one.close()


def test_every_statement_is_one_that_clickhouse_can_read(client: Client) -> None:
    found = statements(ROLES)

    assert len(found) > 35
    for statement in found:
        text = "\n".join(line for line in statement.splitlines() if not line.startswith("--"))
        assert client.query(f"EXPLAIN AST {text}").result_rows, text


def test_every_table_that_a_role_is_given_exists(client: Client) -> None:
    named = set(re.findall(r" ON metering\.(\w+) ", ROLES))
    rows = client.query("SELECT name FROM system.tables WHERE database = currentDatabase()").result_rows
    there = {name for (name,) in rows}

    assert len(named) > 10
    assert named - there == set()


def test_nobody_but_the_owner_can_change_a_table() -> None:
    for role in ("metering_writer", "metering_gateway", "metering_exporter", "metering_analyst"):
        for right in ("ALTER", "DROP TABLE", "TRUNCATE", "CREATE TABLE", "DROP DATABASE"):
            assert allowed(role, right) == set(), (role, right)


def test_the_gateway_writes_nothing_but_when_keys_were_used() -> None:
    assert allowed("metering_gateway", "INSERT") == {"metering.api_key_uses"}
    assert "metering.dead_letters" not in allowed("metering_gateway", "SELECT")
    assert "metering.line_items" not in allowed("metering_gateway", "SELECT")


def test_analysts_see_no_event_no_dead_letter_and_no_key() -> None:
    seen = allowed("metering_analyst", "SELECT")

    assert seen & {f"metering.{name}" for name in ("*", "events", "dead_letters", "api_keys", "audit_log")} == set()
    assert allowed("metering_analyst", "INSERT") == set()


def test_analysts_see_every_view(client: Client) -> None:
    rows = client.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'"
    ).result_rows

    assert {f"metering.{name}" for (name,) in rows} - allowed("metering_analyst", "SELECT") == set()


def test_only_views_that_count_are_read_with_their_owners_rights(client: Client) -> None:
    rows = client.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase()"
        " AND create_table_query LIKE '%SQL SECURITY DEFINER%'"
    ).result_rows

    assert {name for (name,) in rows} == {"business_facts", "pipeline_freshness", "dead_letter_counts"}


def test_analysts_cannot_write() -> None:
    assert "metering_analyst SETTINGS PROFILE 'metering_questions', readonly = 2" in ROLES


def test_those_who_ask_are_limited_in_rows_time_and_memory() -> None:
    (profile,) = re.findall(r"CREATE SETTINGS PROFILE [^;]+;", ROLES)

    for setting in ("max_result_rows", "max_rows_to_read", "max_execution_time", "max_memory_usage"):
        assert re.search(rf"{setting} = (\d+) MAX \1\b", profile), setting
