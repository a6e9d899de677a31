"""How the life of subscriptions gets into its table: whole, by version, once, and the newest version counts."""

from __future__ import annotations

from metering import catalog_store
from metering.catalog_file import parse_catalog
from metering.clock import FixedClock
from metering.subscription_store import write_lives
from tests.support.made_kpis import APPLIED_AT, apply, rows
from tests.support.made_usage import UsageTables

HEAD = """
plans: [{id: basic, charges: [{id: fee, model: flat, amount: 10}]}]
customers: [{id: a, subjects: [a]}, {id: b, subjects: [b]}]
subscriptions:
"""
OPEN = HEAD + "  - {id: s, customer: a, plan: basic, start: 2024-01-01}\n"
ENDED = HEAD + "  - {id: s, customer: a, plan: basic, start: 2024-01-01, end: 2024-03-01}\n"
OTHER = HEAD + "  - {id: t, customer: b, plan: basic, start: 2024-02-01}\n"
EVENTS = "SELECT subscription, type, day, catalog_version FROM subscription_events ORDER BY subscription, number"
COUNT = "SELECT count() FROM subscription_facts"


def test_the_same_catalog_applied_twice_writes_a_life_once(tables: UsageTables) -> None:
    apply(tables, OPEN)
    apply(tables, OPEN)

    assert rows(tables, COUNT) == [("1",)]
    assert rows(tables, EVENTS) == [("s", "subscription.started", "2024-01-01", "1")]


def test_a_life_that_changes_is_written_again_and_the_old_one_stays(tables: UsageTables) -> None:
    apply(tables, OPEN)
    apply(tables, ENDED)

    assert rows(tables, EVENTS) == [
        ("s", "subscription.started", "2024-01-01", "2"),
        ("s", "subscription.cancelled", "2024-03-01", "2"),
    ]
    assert rows(tables, COUNT) == [("3",)]


def test_an_end_that_is_taken_back_is_no_end_any_more(tables: UsageTables) -> None:
    for catalog in (ENDED, OPEN):
        apply(tables, catalog)

    assert rows(tables, EVENTS) == [("s", "subscription.started", "2024-01-01", "2")]


def test_a_subscription_taken_out_of_the_catalog_counts_as_if_it_had_never_been(tables: UsageTables) -> None:
    apply(tables, OPEN)
    apply(tables, OTHER)

    assert rows(tables, EVENTS) == [("t", "subscription.started", "2024-02-01", "2")]
    assert rows(
        tables, "SELECT type, status FROM subscription_facts WHERE subscription = 's' ORDER BY catalog_version"
    ) == [
        ("subscription.started", "paying"),
        ("subscription.withdrawn", "ended"),
    ]


def test_a_subscription_that_comes_back_counts_again(tables: UsageTables) -> None:
    for catalog in (OPEN, OTHER, OPEN):
        apply(tables, catalog)

    assert rows(tables, EVENTS) == [("s", "subscription.started", "2024-01-01", "3")]


def test_an_apply_that_died_before_the_lives_is_finished_by_the_next(tables: UsageTables) -> None:
    apply(tables, ENDED)
    tables.client.command("TRUNCATE TABLE subscription_facts")
    apply(tables, ENDED)

    assert [row[1] for row in rows(tables, EVENTS)] == ["subscription.started", "subscription.cancelled"]


def test_an_apply_that_was_overtaken_does_not_win(tables: UsageTables) -> None:
    clock = FixedClock(APPLIED_AT)
    first = catalog_store.apply(tables.client, parse_catalog(OPEN), clock=clock, applied_by="test")
    second = catalog_store.plan_apply(first, parse_catalog(ENDED))
    third = catalog_store.plan_apply(second, parse_catalog(OPEN))

    # The third version says again what the first said, and is written down before the second gets there.
    write_lives(tables.client, second, third)
    write_lives(tables.client, first, second)

    assert rows(tables, EVENTS) == [("s", "subscription.started", "2024-01-01", "3")]


def test_a_price_that_changes_under_a_subscription_is_a_life_that_changes(tables: UsageTables) -> None:
    apply(tables, OPEN)
    apply(tables, OPEN.replace("amount: 10", "amount: 12"))

    assert rows(tables, "SELECT recurring, catalog_version FROM subscription_events") == [("12", "2")]


def test_a_zone_that_changes_moves_the_days_of_a_life(tables: UsageTables) -> None:
    apply(tables, OPEN)
    apply(tables, OPEN.replace("subjects: [a]", "subjects: [a], timezone: Asia/Kathmandu"))

    assert rows(tables, "SELECT at, catalog_version FROM subscription_events") == [("2023-12-31 18:15:00", "2")]


def test_many_lives_are_written_and_found_unchanged(tables: UsageTables) -> None:
    customers = "".join(f"  - {{id: c{n}, subjects: [c{n}]}}\n" for n in range(2_000))
    lives = "".join(
        f"  - {{id: s{n}, customer: c{n}, plan: basic, start: 2024-01-01, end: 2024-03-01}}\n" for n in range(2_000)
    )
    catalog = f"plans: [{{id: basic, charges: [{{id: fee, model: flat, amount: 10}}]}}]\ncustomers:\n{customers}"
    for _ in range(2):
        apply(tables, f"{catalog}subscriptions:\n{lives}")

    assert rows(tables, COUNT) == [("4000",)]
