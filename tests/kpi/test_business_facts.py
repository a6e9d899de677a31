"""Business facts: what is taken back no longer counts, what cannot be read is shown, exactness, and empty months."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

from schemas.catalog import Catalog, applied
from schemas.kpi import Direction, Goal, Kpi
from tests.support.made_kpis import business_facts, rows
from tests.support.made_usage import EVENT_COLUMNS, UsageTables

MAY = "2024-05-02T10:00:00"


def correct(tables: UsageTables, name: str, by: str) -> None:
    """Take the event of team-1 with an id out, as the worker does for a correction."""
    tables.client.insert(
        "corrections",
        [("team-1", "/crm", name, "log-1", 0, 50, "/crm", by, "replaced", 1)],
        column_names=(
            "subject", "source", "id", "epoch", "partition", "offset", "correction_source", "correction_id", "kind",
            "is_named",
        ),
    )  # fmt: skip


def test_a_cost_that_was_taken_back_is_not_spent(tables: UsageTables) -> None:
    costs = [("sales.cost", "team-1", MAY, {"amount": amount, "currency": "EUR"}) for amount in ("10", "20")]
    business_facts(tables, costs)
    correct(tables, "0", by="void-1")

    assert rows(tables, "SELECT sales_cost FROM kpi_cac WHERE month = '2024-05-01'") == [("20",)]


def test_a_cost_that_was_replaced_counts_as_its_replacement_says(tables: UsageTables) -> None:
    business_facts(tables, [("sales.cost", "team-1", MAY, {"amount": "10", "currency": "EUR"})])
    correct(tables, "0", by="r-1")
    inside = {"type": "sales.cost", "time": f"{MAY}Z", "data": {"amount": "11.50", "currency": "EUR"}}
    raw = json.dumps({"type": "metering.event.replaced", "data": {"source": "/crm", "id": "0", **inside}})
    at = datetime.fromisoformat(MAY).replace(tzinfo=UTC)
    # An accepted replacement stands in events under the type and time of what it puts there.
    row = ("team-1", "/crm", "r-1", "sales.cost", at, "log-1", 0, 50, at, 1, raw)
    tables.client.insert("events", [row], column_names=EVENT_COLUMNS)

    assert rows(tables, "SELECT currency, sales_cost FROM kpi_cac WHERE month = '2024-05-01'") == [("EUR", "11.5")]


def test_a_goal_whose_kpi_has_no_figure_is_unknown_and_is_not_said_to_be_missed_by_nothing(tables: UsageTables) -> None:
    goal = Goal(id="cheap", kpi=Kpi.CAC, currency="EUR", direction=Direction.AT_MOST, target=Decimal(100))
    tables.store(applied(1, Catalog(goals=(goal,)), ()))
    # Nobody was acquired, so nothing was spent for each.
    business_facts(tables, [("sales.cost", "team-1", MAY, {"amount": "10", "currency": "EUR"})])

    found = rows(tables, "SELECT value, missing, state FROM kpi_goals WHERE month = '2024-05-01'")

    assert found == [(None, None, "unknown")]


def test_an_event_that_a_retry_wrote_twice_counts_once(tables: UsageTables) -> None:
    for _ in range(2):
        business_facts(tables, [("marketing.cost", "x", MAY, {"amount": "0.000000000001", "currency": "EUR"})])
        tables.client.command("SYSTEM STOP MERGES events")

    assert rows(tables, "SELECT marketing_cost FROM kpi_cac WHERE currency = 'EUR'") == [("0.000000000001",)]
    tables.client.command("SYSTEM START MERGES events")


def test_a_cost_without_an_amount_is_shown_and_not_guessed(tables: UsageTables) -> None:
    data: list[dict[str, object]] = [
        {"amount": "ten"},
        {},
        {"amount": None},
        {"amount": {"value": 1}},
        {"amount": "5.25"},
        {"amount": 7},
    ]
    business_facts(tables, [("sales.cost", "team-1", MAY, {**one, "currency": "EUR"}) for one in data])

    assert rows(tables, "SELECT sales_cost, costs_unreadable, cac FROM kpi_cac") == [("12.25", "4", None)]


def test_costs_of_two_currencies_are_never_added_up(tables: UsageTables) -> None:
    costs = [("sales.cost", "t", MAY, {"amount": "1", "currency": currency}) for currency in ("EUR", "USD", "EUR")]
    business_facts(tables, costs)

    found = rows(tables, "SELECT currency, sales_cost FROM kpi_cac ORDER BY currency")

    assert found == [("EUR", "2"), ("USD", "1")]


def test_scores_outside_of_zero_to_ten_count_nowhere(tables: UsageTables) -> None:
    scores = [0, 6, 7, 8, 9, 10, 11, -1, "9", "good", None, 9.5]
    business_facts(tables, [("nps.response", f"s{place}", MAY, {"score": one}) for place, one in enumerate(scores)])

    found = rows(tables, "SELECT responses, promoters, passives, detractors, unreadable, nps FROM kpi_nps")

    assert found == [("7", "3", "2", "2", "5", "14.2857")]


def test_signups_without_a_visit_give_no_conversion_rate(tables: UsageTables) -> None:
    business_facts(tables, [("signup", "u", MAY, {})])

    found = rows(tables, "SELECT visitors, conversions, customer_conversion_rate FROM kpi_conversion")

    assert found == [("0", "1", None)]


def test_invitations_without_users_have_no_viral_coefficient(tables: UsageTables) -> None:
    business_facts(tables, [("invitation.sent", "u", MAY, {})])

    found = rows(tables, "SELECT users, invitations, invitation_conversion, viral_coefficient FROM kpi_viral")

    assert found == [("0", "1", "0", None)]


def test_a_partition_that_was_never_folded_has_no_lag_and_no_end(tables: UsageTables) -> None:
    business_facts(tables, [("signup", "u", MAY, {})])

    found = rows(tables, "SELECT folded_to_at, lag_ms, offsets_behind FROM pipeline_freshness")

    assert found == [(None, None, "1")]


def test_every_view_answers_where_nothing_is_stored(tables: UsageTables) -> None:
    views = tables.client.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View'"
    ).result_rows

    assert len(views) > 20
    for (name,) in views:
        assert rows(tables, f"SELECT count() FROM {name}") == [("0",)], name  # noqa: S608 - names of our own
