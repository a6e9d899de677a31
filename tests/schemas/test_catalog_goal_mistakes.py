"""Goals and rules for qualified leads that cannot be meant are refused, with the line."""

from __future__ import annotations

import pytest

from metering.catalog_diff import catalog_changes
from metering.catalog_file import parse_catalog
from schemas.errors import CatalogError
from schemas.kpi import Direction, Kpi

METERS = "meters: [{name: calls, event_type: call, aggregation: count}]\n"


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (
            "goals:\n- {id: g, kpi: mrr, target: 5}",
            "c.yaml:3: goals[0].currency: missing, expected the currency in which mrr is meant, such as USD",
        ),
        (
            "goals:\n- {id: g, kpi: nps, currency: EUR, target: 5}",
            "c.yaml:3: goals[0].currency: found EUR, expected none: nps has no currency",
        ),
        (
            "goals:\n- {id: g, kpi: nps, target: 5, tolerance: -1}",
            "c.yaml:3: goals[0].tolerance: found -1, expected 0 or more",
        ),
        (
            "goals:\n- {id: g, kpi: nps}",
            "c.yaml:3: goals[0].target: missing, expected a decimal number such as 12 or 0.5",
        ),
        (
            "goals:\n- {id: g, kpi: nps, target: 1}\n- {id: g, kpi: nps, target: 2}",
            "c.yaml:4: goals[1].id: 'g' stands twice, first at goals[0], expected once",
        ),
        (
            "qualified_leads:\n- {meter: call, events_min: 2}",
            "c.yaml:3: qualified_leads[0].meter: found 'call', expected a meter (calls); did you mean 'calls'?",
        ),
        (
            "qualified_leads:\n- {meter: calls, events_min: 0}",
            "c.yaml:3: qualified_leads[0].events_min: found '0', expected a whole number of 1 or more",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(section: str, problem: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(f"{METERS}{section}\n", where="c.yaml")

    assert caught.value.problems == [problem]


def test_an_unknown_kpi_is_refused_and_the_likely_one_named() -> None:
    with pytest.raises(CatalogError) as caught:
        parse_catalog("goals: [{id: g, kpi: mr, currency: USD, target: 1}]", where="c.yaml")

    (problem,) = caught.value.problems
    assert "c.yaml:1: goals[0].kpi: found 'mr', expected one of mrr, arr" in problem
    assert "did you mean 'mrr'" in problem


def test_a_goal_is_read_and_its_change_is_shown() -> None:
    before = parse_catalog(f"{METERS}goals: [{{id: g, kpi: cac, currency: USD, direction: at_most, target: 200.5}}]")
    after = parse_catalog(
        f"{METERS}goals: [{{id: g, kpi: cac, currency: USD, direction: at_most, target: 180}}]\n"
        "qualified_leads: [{meter: calls, events_min: 3}]"
    )

    assert (before.goals[0].kpi, before.goals[0].direction) == (Kpi.CAC, Direction.AT_MOST)
    assert [
        (one.section, one.name, one.change.value, [(field.field, field.before, field.after) for field in one.fields])
        for one in catalog_changes(before, after)
    ] == [
        ("goals", "g", "changed", [("target", "200.5", "180")]),
        ("qualified_leads", "calls", "added", [("events_min", None, "3")]),
    ]
