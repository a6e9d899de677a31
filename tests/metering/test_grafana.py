"""Grafana's part of the compose file: every question of the dashboard is asked of the real engine, as analysts may ask.

Grafana itself needs a Docker daemon and is not started.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from metering.testing import ClickHouseUnderTest
from tests.support.example_world import example_world
from tests.support.made_usage import UsageTables

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "grafana"
BOARD: dict[str, Any] = json.loads((FOLDER / "dashboards" / "metering.json").read_text(encoding="utf-8"))
SOURCE: dict[str, Any] = yaml.safe_load((FOLDER / "provisioning/datasources/clickhouse.yaml").read_text("utf-8"))
PROVIDER: dict[str, Any] = yaml.safe_load((FOLDER / "provisioning/dashboards/metering.yaml").read_text("utf-8"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
PANELS: dict[str, dict[str, Any]] = {panel["title"]: panel for panel in BOARD["panels"]}


@pytest.fixture(scope="module")
def world(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with example_world(clickhouse) as tables:
        yield tables


def sql_of(title: str) -> str:
    [target] = PANELS[title]["targets"]
    return str(target["rawSql"])


def filled_in(sql: str) -> str:
    """The question as the plugin sends it: its macro for days, and the variable as a quoted text."""
    days = r"\1 >= toDate('2024-01-01') AND \1 <= toDate('2024-06-30')"
    return re.sub(r"\$__dateFilter\((\w+)\)", days, sql).replace("${meter:sqlstring}", "'requests'")


def asked(world: UsageTables, sql: str) -> tuple[tuple[str, ...], list[Any]]:
    """Columns and rows, of a question that may read and not write."""
    found = world.client.query(filled_in(sql), settings={"readonly": 2})
    return tuple(found.column_names), list(found.result_rows)


@pytest.mark.parametrize("title", PANELS)
def test_every_question_of_the_dashboard_is_answered(world: UsageTables, title: str) -> None:
    columns, rows = asked(world, sql_of(title))

    assert "$" not in filled_in(sql_of(title))
    assert rows
    if PANELS[title]["type"] == "timeseries":
        assert columns[0] == "time"
        assert PANELS[title]["targets"][0]["format"] == 0


def test_the_answers_are_those_of_the_documented_example(world: UsageTables) -> None:
    _, revenue = asked(world, sql_of("Monthly recurring revenue"))
    _, goals = asked(world, sql_of("Goals"))
    _, usage = asked(world, sql_of("Usage of ${meter}, largest customers"))

    assert [row[2] for row in revenue if f"{row[0]:%Y-%m}" == "2024-03"] == [60.0]
    assert [(row[1], row[4], row[6]) for row in goals if f"{row[0]:%Y-%m}" == "2024-03"] == [
        ("delight", 25.0, "on_track"), ("grow", 60.0, "at_risk"), ("keep", 20.0, "missed"),
    ]  # fmt: skip
    assert usage == [("delta", 3.0, 3), ("acme", 2.0, 2), ("bolt", 1.0, 1), ("cargo", 1.0, 1), ("echo", 1.0, 1)]


def test_the_meters_to_choose_from_are_those_of_the_catalog(world: UsageTables) -> None:
    [variable] = BOARD["templating"]["list"]

    assert variable["name"] == "meter"
    assert [row[0] for row in asked(world, variable["query"])[1]] == ["requests", "storage"]


def test_every_view_that_is_asked_is_one_that_analysts_may_read() -> None:
    roles = (ROOT / "docs" / "clickhouse-roles.sql").read_text(encoding="utf-8")
    granted = set(re.findall(r"GRANT SELECT ON metering\.(\w+) TO metering_analyst", roles))
    questions = [*map(sql_of, PANELS), BOARD["templating"]["list"][0]["query"]]

    read = {name for sql in questions for name in re.findall(r"\bFROM (\w+)", sql)}
    assert {"pipeline_freshness", "usage_daily", "kpi_mrr"} <= read <= granted


def test_every_panel_asks_the_data_source_that_is_provisioned_and_none_covers_another() -> None:
    [source] = SOURCE["datasources"]
    named = {"type": source["type"], "uid": source["uid"]}
    places = [
        (x, y)
        for panel in BOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert all(panel["datasource"] == named == panel["targets"][0]["datasource"] for panel in BOARD["panels"])
    assert BOARD["templating"]["list"][0]["datasource"] == named
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_the_data_source_is_the_clickhouse_of_the_compose_file_and_only_reads() -> None:
    [source] = SOURCE["datasources"]
    grafana, clickhouse = COMPOSE["services"]["grafana"], COMPOSE["services"]["clickhouse"]

    assert source["jsonData"]["host"] == "clickhouse"
    assert clickhouse["ports"][0].endswith(f":{source['jsonData']['port']}")
    assert source["jsonData"]["username"] == clickhouse["environment"]["CLICKHOUSE_USER"]
    assert {"setting": "readonly", "value": "2"} in source["jsonData"]["customSettings"]
    assert source["editable"] is False
    # The password comes from the environment, which compose requires; no file has one.
    assert source["secureJsonData"] == {"password": "$CLICKHOUSE_PASSWORD"}
    assert grafana["environment"]["CLICKHOUSE_PASSWORD"] == clickhouse["environment"]["CLICKHOUSE_PASSWORD"]


def test_grafana_finds_what_is_provisioned_and_has_no_password_but_the_one_that_is_given() -> None:
    grafana = COMPOSE["services"]["grafana"]
    mounted = dict(volume.removesuffix(":ro").split(":") for volume in grafana["volumes"] if volume.endswith(":ro"))

    assert mounted == {
        "./grafana/provisioning": "/etc/grafana/provisioning",
        "./grafana/dashboards": PROVIDER["providers"][0]["options"]["path"],
    }
    assert all((ROOT / source).is_dir() for source in mounted)
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")
    assert grafana["environment"]["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert "GF_AUTH_ANONYMOUS_ENABLED" not in grafana["environment"]
    plugin, _, version = grafana["environment"]["GF_PLUGINS_PREINSTALL_SYNC"].partition("@")
    assert plugin == SOURCE["datasources"][0]["type"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    # Nobody gets it who does not ask for it.
    assert grafana["profiles"] == ["grafana"]
