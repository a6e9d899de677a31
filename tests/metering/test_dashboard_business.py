"""The dashboard's pages of KPIs and of dead letters, on the example of docs/kpis.md and a real Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import TestClient

from metering import audit_log
from metering.clock import FixedClock
from metering.config import Settings
from metering.dashboard.app import create_dashboard
from metering.kafka import ensure_topics, log_ends
from metering.testing import ClickHouseUnderTest, KafkaUnderTest
from schemas.topics import USAGE_EVENTS
from tests.support.example_world import example_world
from tests.support.made_kpis import rows
from tests.support.made_usage import UsageTables
from tests.support.read_page import ReadPage

NOW = datetime(2024, 6, 15, tzinfo=UTC)
WAIT_S = 120
MENDED = (
    b'{"specversion":"1.0","id":"late-1","source":"/shop","type":"request","subject":"acme",'
    b'"time":"2024-03-06T11:00:00Z","data":{"note":"<b>bold</b>"}}'
)
BROKEN = b'{"specversion":"1.0","id":"late-2","source":"/shop","type":"never.heard.of","subject":"acme"}\x1b[31m'


@pytest.fixture(scope="module")
def world(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with example_world(clickhouse) as tables:
        at = datetime(2024, 3, 6, 12, tzinfo=UTC)
        rows = [
            ("log-1", USAGE_EVENTS, 1, 7, "unknown_type", "type", "no meter reads it", b"acme", MENDED, at, 1),
            ("log-1", USAGE_EVENTS, 1, 8, "not_json", "", "trailing characters", b"acme", BROKEN, at, 1),
        ]
        tables.client.insert("dead_letters", rows)
        yield tables


@pytest.fixture(scope="module")
def settings(world: UsageTables, kafka: KafkaUnderTest) -> Settings:
    made = msgspec.structs.replace(world.settings, kafka_servers=kafka.bootstrap)
    ensure_topics(made)
    return made


@pytest.fixture(scope="module")
def http(settings: Settings) -> Iterator[TestClient[Litestar]]:
    app = create_dashboard(settings, clock=FixedClock(NOW), patience_s=WAIT_S)
    with TestClient(app, base_url="http://127.0.0.1:18082") as client:
        yield client


def page(http: TestClient[Litestar], address: str) -> ReadPage:
    found = http.get(address)
    assert found.status_code == 200, found.text
    return ReadPage(found.text)


def test_the_kpis_are_the_numbers_of_the_documented_example(http: TestClient[Litestar]) -> None:
    found = page(http, "/kpis")

    assert found.tables["mrr-USD"][1:6] == [
        ["2024-01", "50"], ["2024-02", "70"], ["2024-03", "60"], ["2024-04", "60"], ["2024-05", "70"],
    ]  # fmt: skip
    assert ["2024-03", "42.8571"] in found.tables["revenue_churn_rate-USD"]
    # What would be divided by nothing has no answer, and is not 0.
    assert ["2024-01", "–"] in found.tables["customer_churn_rate-USD"]  # noqa: RUF001 - a dash


def test_a_goal_says_its_target_what_it_misses_and_its_state(http: TestClient[Litestar]) -> None:
    goals = {row[0]: row[1:] for row in page(http, "/kpis").tables["goals"][1:]}

    assert goals["grow"] == ["mrr USD", "2024-06", "70", "at least 65", "10", "0", "on track"]
    assert goals["delight"][-1] in ("on track", "at risk", "missed")
    assert set(goals) == {"grow", "keep", "delight"}


def test_a_customers_health_stands_with_all_its_parts_as_the_view_has_them(
    http: TestClient[Litestar], world: UsageTables
) -> None:
    found = page(http, "/customer?id=acme")

    parts = rows(
        world,
        "SELECT part, figure, score, weight FROM kpi_customer_health_parts "
        "WHERE customer = 'acme' AND month = '2024-06-01'",
    )
    months = rows(
        world,
        "SELECT formatDateTime(month, '%Y-%m'), health, weight_covered FROM kpi_customer_health "
        "WHERE customer = 'acme' AND month <= '2024-06-15' ORDER BY month DESC LIMIT 6",
    )
    shown = {row[0]: row[2:] for row in found.tables["health-parts"][1:]}
    dash = "–"  # noqa: RUF001 - a dash
    units = {"recency": " days", "breadth": " %", "engagement": " %", "contacts": " times"}
    assert shown == {
        str(part): [dash if figure is None else f"{figure}{units.get(str(part), '')}", score or dash, weight]
        for part, figure, score, weight in parts
    }
    assert shown["trend"] == [dash, dash, "20"]
    assert found.tables["healths"][1:] == [list(row) for row in months]
    assert (found.figures["health"], found.figures["health-covered"]) == (months[0][1], f"{months[0][2]} %")
    assert len(months) == 6


def test_every_chart_of_a_kpi_has_its_numbers_beside_it(http: TestClient[Litestar]) -> None:
    text = http.get("/kpis").text
    sections = [part for part in text.split("<section") if "<svg" in part]

    assert len(sections) > 5
    for part in sections:
        table = next(iter(ReadPage("<section" + part.partition("</section>")[0] + "</section>").tables.values()))
        known = [row[1] for row in table[1:] if row[1] != "–"]  # noqa: RUF001 - a dash
        assert part.count('class="dots') == len(known) > 0
        assert 'role="img"' in part
        assert "<style" not in part
        assert "<script" not in part


def test_dead_letters_are_counted_by_reason_and_listed_with_what_is_wrong(http: TestClient[Litestar]) -> None:
    found = page(http, "/dead-letters")

    counts = {row[0]: row[1:5] for row in found.tables["reasons"][1:]}
    assert counts == {"unknown type": ["3", "2", "1", "0"], "not json": ["1", "1", "0", "0"]}
    assert [(row[0], row[2], row[4]) for row in found.tables["letters"][1:]] == [
        ("0/100", "unknown type", ""),
        ("1/7", "unknown type", "no meter reads it"),
        ("1/8", "not json", "trailing characters"),
    ]
    replayed = page(http, "/dead-letters?state=replayed")
    assert [row[0] for row in replayed.tables["letters"][1:]] == ["0/101"]


def test_a_letters_page_shows_its_bytes_as_text_and_obeys_none(http: TestClient[Litestar]) -> None:
    mended, broken = (http.get(f"/dead-letter?partition=1&offset={offset}").text for offset in (7, 8))

    assert "&lt;b&gt;bold&lt;/b&gt;" in mended
    assert "<b>bold" not in mended
    assert "\x1b" not in broken
    assert "\N{REPLACEMENT CHARACTER}[31m" in broken
    assert http.get("/dead-letter?partition=1&offset=9").status_code == 404
    assert http.get("/dead-letter?partition=-1&offset=9").status_code == 404


def test_a_rehearsal_sends_nothing_and_a_replay_sends_what_is_mended(
    http: TestClient[Litestar], settings: Settings, world: UsageTables
) -> None:
    token = page(http, "/dead-letters").hidden["form_token"]

    def records() -> int:
        return sum(end for _, end in log_ends(settings, USAGE_EVENTS).values())

    before = records()
    form = {"form_token": token, "place": "1/7", "epoch": "log-1"}
    rehearsed = http.post("/dead-letters/replay", data={**form, "rehearse": "yes"})
    assert (rehearsed.status_code, records()) == (200, before)
    assert "would be sent again" in rehearsed.text

    hidden = ReadPage(rehearsed.text).hidden
    sent = http.post("/dead-letters/replay", data=hidden)
    assert (sent.status_code, records()) == (200, before + 1)
    assert "was sent again" in sent.text
    assert "1/7" not in [row[0] for row in page(http, "/dead-letters").tables["letters"][1:]]
    assert [one.by for one in audit_log.entries(world.client, action=audit_log.Action.DEAD_LETTERS_REPLAYED)] == [
        "dashboard"
    ]

    kept = http.post("/dead-letters/replay", data={"form_token": token, "reason": "not_json"})
    assert (kept.status_code, records()) == (200, before + 1)
    assert "would be rejected once more and kept" in kept.text


@pytest.mark.parametrize("form", [{}, {"place": "x"}, {"place": "1/7/8"}, {"place": "1/-7"}, {"every": "no"}])
def test_a_form_that_names_no_letter_sends_none(http: TestClient[Litestar], form: dict[str, str]) -> None:
    token = page(http, "/dead-letters").hidden["form_token"]

    assert http.post("/dead-letters/replay", data={**form, "form_token": token}).status_code == 400
    assert http.post("/dead-letters/replay", data={**form, "every": "yes"}).status_code == 403
