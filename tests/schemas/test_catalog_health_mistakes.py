"""What customer health is blended of: mistakes are refused with the line, and changes are shown."""

from __future__ import annotations

from decimal import Decimal

import pytest

from metering.catalog_diff import catalog_changes
from metering.catalog_file import parse_catalog
from schemas.catalog import Catalog
from schemas.catalog_check import check_catalog
from schemas.errors import CatalogError
from schemas.health import Health, Trend


@pytest.mark.parametrize(
    ("health", "problem"),
    [
        (
            "health: {trnd: {weight: 1}}",
            (
                "c.yaml:1: health.trnd: unknown key, expected one of trend, breadth, recency, limits, engagement, nps, "
                "contacts; did you mean 'trend'?"
            ),
        ),
        (
            "health: 5",
            (
                "c.yaml:1: health: found '5', expected a mapping with trend, breadth, recency, limits, engagement, "
                "nps, contacts"
            ),
        ),
        ("health:\n  nps: {weight: -1}", "c.yaml:2: health.nps.weight: found -1, expected 0 to 1000"),
        ("health:\n  nps: {weight: 1000.1}", "c.yaml:2: health.nps.weight: found 1000.1, expected 0 to 1000"),
        (
            "health:\n  nps: {weight: much}",
            (
                "c.yaml:2: health.nps.weight: 'much' is not a decimal number such as 12 or 0.5, expected a decimal "
                "number such as 12 or 0.5"
            ),
        ),
        (
            "health:\n  recency: {full_at: 30}",
            "c.yaml:2: health.recency.full_at: found 30, expected less than zero_at (30): less of it is better",
        ),
        (
            "health:\n  trend: {zero_at: 120}",
            "c.yaml:2: health.trend.full_at: found 100, expected more than zero_at (120): more of it is better",
        ),
        (
            "health:\n  contacts: {zero_at: 0, full_at: 5}",
            "c.yaml:2: health.contacts.full_at: found 5, expected less than zero_at (0): less of it is better",
        ),
        (
            (
                "health: {trend: {weight: 0}, breadth: {weight: 0}, recency: {weight: 0}, limits: {weight: 0}, "
                "engagement: {weight: 0}, nps: {weight: 0}, contacts: {weight: 0}}"
            ),
            "c.yaml:1: health: every weight is 0, expected a part that counts",
        ),
    ],
)
def test_a_mistake_in_the_blend_is_named_with_its_line(health: str, problem: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(health, where="c.yaml")

    assert caught.value.problems == [problem]


def test_a_catalog_built_in_code_is_checked_alike() -> None:
    with pytest.raises(CatalogError, match="full_at: found 100, expected more than zero_at"):
        check_catalog(Catalog(health=Health(trend=Trend(zero_at=Decimal(100)))))


def test_what_a_file_says_of_a_part_is_shown_when_it_comes_changes_and_goes() -> None:
    none = parse_catalog("event_types: [a]")
    some = parse_catalog("event_types: [a]\nhealth: {nps: {weight: 20}}")
    other = parse_catalog("event_types: [a]\nhealth: {nps: {weight: 20.5, zero_at: 5}}")

    def shown(before: Catalog, after: Catalog) -> list[tuple[str, str, str, list[tuple[str, str | None, str | None]]]]:
        return [
            (one.section, one.name, one.change.value, [(each.field, each.before, each.after) for each in one.fields])
            for one in catalog_changes(before, after)
        ]

    assert shown(none, some) == [("health", "nps", "added", [("weight", None, "20")])]
    assert shown(some, other) == [("health", "nps", "changed", [("weight", "20", "20.5"), ("zero_at", "0", "5")])]
    assert shown(other, none) == [("health", "nps", "removed", [("weight", "20.5", None), ("zero_at", "5", None)])]
    assert none == parse_catalog("event_types: [a]\nhealth: {nps: {weight: 10}, trend: {}}")
