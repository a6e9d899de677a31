"""Catalog versions in a real ClickHouse: append-only, and one winner when two apply at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from threading import Barrier

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from metering import catalog_store
from metering.catalog_diff import catalog_changes
from metering.catalog_file import parse_catalog
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.config import Settings
from metering.migrate import migrate
from metering.testing import ClickHouseUnderTest
from schemas.catalog import AppliedCatalog, Catalog
from schemas.errors import CatalogError, InvariantViolationError, RequestError
from schemas.subscription import Migration

CLOCK = FixedClock(datetime(2013, 1, 1, tzinfo=UTC))
FIRST = parse_catalog("""
meters:
  - {name: flights, event_type: flight, aggregation: count}
customers:
  - {id: UA, name: United, subjects: [UA, U2], timezone: America/New_York}
  - {id: AA, subjects: [AA]}
plans:
  - {id: basic, charges: [{id: fee, model: flat, amount: 1.10}]}
""")
SECOND = parse_catalog("""
meters:
  - {name: flights, event_type: flight, aggregation: count}
  - {name: miles, event_type: flight, aggregation: sum, value: distance}
customers:
  - {id: UA, name: United, subjects: [UA], timezone: America/New_York}
  - {id: AA, subjects: [AA, U2]}
plans:
  - {id: basic, charges: [{id: fee, model: flat, amount: 1.20}]}
""")


@pytest.fixture
def settings(clickhouse: ClickHouseUnderTest, database: str) -> Settings:
    return Settings(
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=database,
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    opened = connect(settings)
    migrate(opened)
    yield opened
    opened.close()


def apply(client: Client, catalog: Catalog) -> AppliedCatalog:
    return catalog_store.apply(client, catalog, clock=CLOCK, applied_by="ada@engine")


def subjects(client: Client) -> list[tuple[str, str, int, int]]:
    rows = client.query(
        "SELECT subject, customer, active, catalog_version FROM subjects FINAL ORDER BY subject"
    ).result_rows
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def test_there_is_no_catalog_before_the_first_apply(client: Client) -> None:
    assert catalog_store.latest(client) is None
    assert catalog_store.latest_version(client) == 0


def test_versions_count_up_and_each_stays_as_it_was(client: Client) -> None:
    first, second = apply(client, FIRST), apply(client, SECOND)

    assert (first.version, second.version) == (1, 2)
    assert catalog_store.latest(client) == second
    assert catalog_store.load(client, 1).catalog == FIRST
    assert [(one.version, one.applied_by) for one in catalog_store.history(client)] == [
        (1, "ada@engine"),
        (2, "ada@engine"),
    ]


def test_an_unchanged_catalog_makes_no_new_version(client: Client) -> None:
    assert apply(client, FIRST) == apply(client, FIRST)
    assert len(catalog_store.history(client)) == 1


def test_subjects_follow_the_newest_catalog(client: Client) -> None:
    apply(client, FIRST)
    assert subjects(client) == [("AA", "AA", 1, 1), ("U2", "UA", 1, 1), ("UA", "UA", 1, 1)]

    apply(client, SECOND)
    assert subjects(client) == [("AA", "AA", 1, 2), ("U2", "AA", 1, 2), ("UA", "UA", 1, 2)]

    fewer = msgspec.structs.replace(SECOND, customers=SECOND.customers[:1])
    apply(client, fewer)
    assert subjects(client) == [("AA", "AA", 0, 3), ("U2", "AA", 0, 3), ("UA", "UA", 1, 3)]


def test_an_apply_that_died_before_its_subjects_is_finished_by_the_next(client: Client) -> None:
    apply(client, FIRST)
    client.command("TRUNCATE TABLE subjects")

    assert apply(client, FIRST).version == 1
    assert len(subjects(client)) == 3


def test_of_two_applies_at_once_one_wins_and_the_other_hears_of_it(client: Client, settings: Settings) -> None:
    apply(client, FIRST)
    together = Barrier(2)
    others = [msgspec.structs.replace(FIRST, event_types=(name,)) for name in ("left", "right")]

    def race(catalog: Catalog) -> str:
        own = connect(settings)
        try:
            before = catalog_store.latest(own)
            after = catalog_store.plan_apply(before, catalog)
            together.wait(timeout=30)
            catalog_store._claim(own, after, clock=CLOCK, applied_by="racer")
        except RequestError as error:
            return error.what
        else:
            return "won"
        finally:
            own.close()

    with ThreadPoolExecutor(2) as pool:
        ends = sorted(pool.map(race, others))

    assert ends == ["somebody else applied another catalog as version 2 at the same moment", "won"]
    assert [one.version for one in catalog_store.history(client)] == [1, 2]


def test_two_applies_of_the_same_catalog_at_once_agree(client: Client, settings: Settings) -> None:
    def race(_: int) -> AppliedCatalog:
        own = connect(settings)
        try:
            return apply(own, FIRST)
        finally:
            own.close()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(race, range(4)))

    assert {one.digest for one in found} == {found[0].digest}
    assert [one.version for one in catalog_store.history(client)] == [1]


def test_a_catalog_that_contradicts_the_applied_one_changes_nothing(client: Client) -> None:
    apply(client, FIRST)

    with pytest.raises(CatalogError, match="meter 'flights' was applied before and is missing"):
        apply(client, Catalog())
    assert catalog_store.latest_version(client) == 1


def test_a_version_that_was_edited_in_the_table_is_noticed(client: Client) -> None:
    apply(client, FIRST)
    client.command(
        "ALTER TABLE catalog_versions UPDATE document = replace(document, '1.10', '9.10') WHERE version = 1 "
        "SETTINGS mutations_sync = 2"
    )

    with pytest.raises(InvariantViolationError, match="version 1 does not match its digest"):
        catalog_store.load(client, 1)


def test_a_version_that_was_never_applied_is_no_version(client: Client) -> None:
    with pytest.raises(RequestError, match="catalog version 7 was never applied"):
        catalog_store.load(client, 7)


def test_a_new_meter_needs_a_rebuild_once_events_are_there(client: Client) -> None:
    assert catalog_store.unfilled_meters(client, apply(client, FIRST)) == []
    client.insert(
        "positions",
        [("log", "usage.events.v1", 0, 0, 9, 10)],
        column_names=["epoch", "topic", "partition", "first", "last", "accepted"],
    )

    assert catalog_store.unfilled_meters(client, apply(client, SECOND)) == ["miles"]


def test_the_difference_names_every_field_that_changes() -> None:
    found = [
        (one.change.value, one.section, one.name, [(field.field, field.before, field.after) for field in one.fields])
        for one in catalog_changes(FIRST, SECOND)
    ]

    assert found == [
        (
            "added",
            "meters",
            "miles",
            [("event_type", None, "flight"), ("aggregation", None, "sum"), ("value", None, "distance")],
        ),
        ("changed", "customers", "AA", [("subjects", '["AA"]', '["AA", "U2"]')]),
        ("changed", "customers", "UA", [("subjects", '["UA", "U2"]', '["UA"]')]),
        ("changed", "plans", "basic", [("charges[fee].amount", "1.10", "1.20")]),
    ]
    assert catalog_changes(SECOND, SECOND) == []


BEFORE_LIFE = """
customers:
- {id: UA, subjects: [UA]}
- {id: AA, subjects: [AA], credits: [{id: hi, amount: 5, currency: USD, start: 2013-01-01}]}
plans:
- {id: basic, charges: [{id: fee, model: flat, amount: 1}]}
subscriptions:
- {id: ua, customer: UA, plan: basic, start: 2013-01-01}
"""
AFTER_LIFE = """
customers: [{id: UA, subjects: [UA], discounts: [{id: loyal, percent: 5, periods: 3}]}, {id: AA, subjects: [AA]}]
plans:
- {id: basic, charges: [{id: fee, model: flat, amount: 1, discounts: [{id: promo, amount: 1}]}]}
- id: basic
  version: 2
  effective_from: 2013-06-01
  charges: [{id: fee, model: flat, amount: 2}]
  prices: {EUR: {charges: [{id: fee, model: flat, amount: 3}]}}
migrations:
- {plan: basic, from_version: 1, to_version: 2, at: 2013-07-01, customers: [UA]}
subscriptions:
- id: ua
  customer: UA
  plan: basic
  start: 2013-01-01
  pauses: [{start: 2013-02-01, end: 2013-03-01}]
  changes: [{at: 2013-04-01, plan: basic, version: 1}]
  overrides: [{id: fee, model: flat, amount: 0.50}]
"""


def test_the_difference_tells_versions_migrations_changes_pauses_discounts_and_grants_apart() -> None:
    before, after = parse_catalog(BEFORE_LIFE), parse_catalog(AFTER_LIFE)
    found = {
        (one.change.value, one.section, one.name): [
            f"{field.field}: {field.before} -> {field.after}" for field in one.fields
        ]
        for one in catalog_changes(before, after)
    }

    assert found == {
        ("changed", "customers", "AA"): [
            "credits[hi].amount: 5 -> None", "credits[hi].currency: USD -> None",
            "credits[hi].start: 2013-01-01 -> None",
        ],
        ("changed", "customers", "UA"): [
            "discounts[loyal].percent: None -> 5", "discounts[loyal].periods: None -> 3",
        ],
        ("changed", "plans", "basic"): ["charges[fee].discounts[promo].amount: None -> 1"],
        ("added", "plans", "basic version 2"): [
            "effective_from: None -> 2013-06-01", "charges[fee].model: None -> flat", "charges[fee].amount: None -> 2",
            "prices.EUR.charges[fee].model: None -> flat", "prices.EUR.charges[fee].amount: None -> 3",
        ],
        ("changed", "subscriptions", "ua"): [
            "changes[2013-04-01].plan: None -> basic", "changes[2013-04-01].version: None -> 1",
            "pauses[2013-02-01].end: None -> 2013-03-01",
            "overrides[fee].model: None -> flat", "overrides[fee].amount: None -> 0.50",
        ],
        ("added", "migrations", "basic version 1 to 2 on 2013-07-01"): ['customers: None -> ["UA"]'],
    }  # fmt: skip


def test_of_many_changes_of_one_kind_only_the_first_have_their_fields() -> None:
    customers = parse_catalog("customers: [{id: a, subjects: [a]}, {id: b, subjects: [b]}, {id: c, subjects: [c]}]")

    found = catalog_changes(None, customers, detailed_max=2)

    assert [(one.name, bool(one.fields)) for one in found] == [("a", True), ("b", True), ("c", False)]


def test_two_migrations_of_one_day_are_told_apart() -> None:
    plans = parse_catalog(AFTER_LIFE)
    moved = Migration(plan="basic", from_version=1, to_version=2, at=date(2013, 7, 1), customers=("AA",))

    found = catalog_changes(plans, msgspec.structs.replace(plans, migrations=(*plans.migrations, moved)))

    assert [(one.change.value, one.name) for one in found] == [("added", "basic version 1 to 2 on 2013-07-01 (2)")]


def test_a_field_that_falls_back_to_its_default_shows_what_it_becomes() -> None:
    before = parse_catalog("customers: [{id: a, subjects: [a], currency: EUR, name: Ada}]")
    after = parse_catalog("customers: [{id: a, subjects: [a], timezone: Asia/Tokyo}]")

    [found] = catalog_changes(before, after)

    assert [(one.field, one.before, one.after) for one in found.fields] == [
        ("name", "Ada", None), ("currency", "EUR", "USD"), ("timezone", "UTC", "Asia/Tokyo"),
    ]  # fmt: skip
