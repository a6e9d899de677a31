"""The views for analysts, against counts in plain Python and against the answers of `metering usage`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from zoneinfo import ZoneInfo

import pytest

from metering.testing import ClickHouseUnderTest
from metering.usage.answer import answer
from schemas.catalog import Customer
from schemas.quantity import EXACT
from schemas.usage_query import By, UsageQuery, Window
from tests.support.made_usage import (
    AGGREGATIONS,
    MadeEvent,
    UsageTables,
    counted,
    made_catalog,
    plain_quantity,
    usage_tables,
)

VIEWS = {"usage_15m": "window_start", "usage_daily": "day", "usage_monthly": "month"}

# Each customer has a zone of its own, and clocks change in all but one of them in the days that events are made for.
CUSTOMERS = (
    Customer(id="acme", name="Acme, Inc.", subjects=("s1", "s2"), timezone="America/New_York"),
    Customer(id="bolt", name="Bolt", subjects=("s3",), timezone="Asia/Kathmandu"),
    Customer(id="cove", name="Cove", subjects=("s4",), timezone="Australia/Lord_Howe"),
)
ZONES = {"s1": "America/New_York", "s2": "America/New_York", "s3": "Asia/Kathmandu", "s4": "Australia/Lord_Howe"}
CHANGES = (
    datetime(2013, 3, 10, 7, tzinfo=UTC),
    datetime(2013, 4, 6, 15, tzinfo=UTC),
    datetime(2013, 3, 31, tzinfo=UTC),
)
CHANGED_AT = datetime(2013, 3, 31, 6, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def module_tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        yield made


@pytest.fixture
def tables(module_tables: UsageTables) -> UsageTables:
    module_tables.clear()
    return module_tables


def made_events(seed: int) -> list[MadeEvent]:
    choose = random.Random(seed)
    ends: dict[tuple[str, int], int] = {}
    events = []
    for _ in range(400):
        place = choose.choice([("log-1", 0), ("log-1", 1), ("log-2", 0)])
        ends[place] = ends.get(place, -1) + 1
        events.append(
            MadeEvent(
                subject=choose.choice(["s1", "s2", "s3", "s4", "stray"]),
                time=choose.choice(CHANGES) + timedelta(seconds=choose.randrange(-60 * 3600, 60 * 3600)),
                value=choose.choice([None, "1", "-2.000000000001", "0.1", f"{choose.randrange(10**18)}.5"]),
                kind=choose.choice("ab"),
                region=choose.choice(["eu", "us", "o'r"]),
                user=choose.choice(["ann", "bob", "eve", ""]),
                epoch=place[0],
                partition=place[1],
                offset=ends[place],
            )
        )
    return events


def label_of(view: str, event: MadeEvent) -> datetime | date:
    day = event.time.astimezone(ZoneInfo(ZONES.get(event.subject, "UTC"))).date()
    return {"usage_15m": event.quarter, "usage_daily": day, "usage_monthly": day.replace(day=1)}[view]


def rows_of(tables: UsageTables, view: str, meter: str) -> dict[tuple[object, ...], tuple[Decimal, int]]:
    rows = tables.client.query(
        "SELECT subject, {column:Identifier}, dimensions['kind'], dimensions['region'], toString(quantity),"
        " events_count FROM {view:Identifier} WHERE meter = {meter:String}",
        {"column": VIEWS[view], "view": view, "meter": meter},
    ).result_rows
    found = {tuple(row[:4]): (EXACT.create_decimal(row[4]), row[5]) for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("view", sorted(VIEWS))
def test_a_view_says_what_a_plain_count_says(tables: UsageTables, view: str, seed: int) -> None:
    events = made_events(seed)
    tables.store(made_catalog(CUSTOMERS, changed_at=CHANGED_AT))
    tables.fold(events, changed_at=CHANGED_AT, live_from=40)

    for meter in AGGREGATIONS:

        def key(event: MadeEvent) -> tuple[object, ...]:
            return event.subject, label_of(view, event), event.kind, event.region

        expected = {}
        for group, members in groupby(sorted(counted(events, meter, CHANGED_AT), key=lambda e: repr(key(e))), key=key):
            held = list(members)
            expected[group] = (plain_quantity(meter, held), len(held))
        assert rows_of(tables, view, meter) == expected, meter


@pytest.mark.parametrize(("view", "window"), [("usage_daily", Window.DAY), ("usage_monthly", Window.MONTH)])
def test_a_view_agrees_with_answers_in_the_zone_of_the_customer(tables: UsageTables, view: str, window: Window) -> None:
    catalog = made_catalog(CUSTOMERS)
    tables.store(catalog)
    tables.fold(made_events(3))

    for customer in CUSTOMERS:
        zone = ZoneInfo(customer.timezone)
        for meter in AGGREGATIONS:
            rows = answer(
                tables.client,
                catalog,
                UsageQuery(
                    meter=meter,
                    start=datetime(2013, 1, 1, tzinfo=zone),
                    end=datetime(2014, 1, 1, tzinfo=zone),
                    window=window,
                    timezone=customer.timezone,
                    by=By.SUBJECT,
                    customers=(customer.id,),
                    group_by=("kind", "region"),
                ),
            )
            answered = {
                (row.who, row.window_start.astimezone(zone).date(), *row.dimensions.values()): (
                    row.quantity,
                    row.events_count,
                )
                for row in rows
            }
            seen = rows_of(tables, view, meter)
            assert {key: seen[key] for key in seen if key[0] in customer.subjects} == answered


@pytest.mark.parametrize(("view", "window"), [("usage_daily", Window.DAY), ("usage_monthly", Window.MONTH)])
def test_a_balance_is_shown_as_answers_have_it_also_where_nothing_changed(
    tables: UsageTables, view: str, window: Window
) -> None:
    catalog = made_catalog(CUSTOMERS)
    tables.store(catalog)
    tables.fold(made_events(4))
    seen = {key: found for key, found in rows_of(tables, view, "time_weighted").items() if str(key[1]) < "2014-01-01"}

    answered: dict[tuple[object, ...], tuple[Decimal, int]] = {}
    for customer in CUSTOMERS:
        zone = ZoneInfo(customer.timezone)
        query = UsageQuery(
            meter="time_weighted",
            start=datetime(2013, 1, 1, tzinfo=zone),
            end=datetime(2014, 1, 1, tzinfo=zone),
            window=window,
            timezone=customer.timezone,
            by=By.SUBJECT,
            customers=(customer.id,),
            group_by=("kind", "region"),
        )
        for row in answer(tables.client, catalog, query):
            key = (row.who, row.window_start.astimezone(zone).date(), *row.dimensions.values())
            answered[key] = (row.quantity, row.events_count)

    assert {key: found for key, found in seen.items() if key[0] != "stray"} == answered
    assert {count for _, count in answered.values()} > {0}


def test_a_balance_in_15_minutes_is_shown_where_it_changed(tables: UsageTables) -> None:
    catalog = made_catalog(CUSTOMERS)
    tables.store(catalog)
    tables.fold(made_events(5))
    query = UsageQuery(
        meter="time_weighted",
        start=datetime(2013, 3, 1, tzinfo=UTC),
        end=datetime(2013, 4, 15, tzinfo=UTC),
        window=Window.QUARTER_HOUR,
        by=By.SUBJECT,
        group_by=("kind", "region"),
    )

    answered = {
        (row.who, row.window_start, *row.dimensions.values()): (row.quantity, row.events_count)
        for row in answer(tables.client, catalog, query, rows_max=1_000_000)
        if row.events_count
    }

    assert rows_of(tables, "usage_15m", "time_weighted") == answered


def test_what_was_taken_out_is_in_no_view(tables: UsageTables) -> None:
    tables.store(made_catalog(CUSTOMERS))
    wrong = MadeEvent(subject="s3", time=datetime(2013, 1, 31, tzinfo=UTC), offset=0)
    void = MadeEvent(subject="s3", time=datetime(2013, 2, 1, tzinfo=UTC), offset=1, corrects=wrong.name, voids=True)
    tables.fold([wrong, void])

    counts = [tables.client.command("SELECT count() FROM {view:Identifier}", {"view": name}) for name in VIEWS]

    assert counts == [0, 0, 0]


def test_a_row_names_its_owner_zone_and_unit_and_usage_that_nobody_owns_is_there_too(tables: UsageTables) -> None:
    tables.store(made_catalog(CUSTOMERS))
    tables.fold(
        [
            MadeEvent(subject="s3", time=datetime(2013, 1, 31, 18, 15, tzinfo=UTC), offset=0),
            MadeEvent(subject="stray", time=datetime(2013, 1, 31, 18, 15, tzinfo=UTC), offset=1),
        ]
    )

    rows = tables.client.query(
        "SELECT subject, customer, customer_name, timezone, aggregation, unit, day FROM usage_daily"
        " WHERE meter = 'count' ORDER BY subject"
    ).result_rows

    assert rows == [
        ("s3", "bolt", "Bolt", "Asia/Kathmandu", "count", "things", date(2013, 2, 1)),
        ("stray", "", "", "UTC", "count", "things", date(2013, 1, 31)),
    ]


def test_a_subject_that_left_the_catalog_belongs_to_nobody(tables: UsageTables) -> None:
    tables.store(made_catalog(CUSTOMERS))
    tables.client.insert("subjects", [("s3", "bolt", "Bolt", "Asia/Kathmandu", "USD", 0, 2)])
    tables.fold([MadeEvent(subject="s3", time=datetime(2013, 1, 31, 18, 15, tzinfo=UTC), offset=0)])

    rows = tables.client.query("SELECT customer, timezone, day FROM usage_daily WHERE meter = 'count'").result_rows

    assert rows == [("", "UTC", date(2013, 1, 31))]


def test_meter_versions_are_those_of_the_newest_catalog(tables: UsageTables) -> None:
    tables.store(made_catalog(CUSTOMERS))
    tables.store(made_catalog(CUSTOMERS, changed_at=CHANGED_AT, version=2))

    rows = tables.client.query(
        "SELECT meter_version, aggregation, unit, event_type, in_force_from, in_force_to, introduced_in,"
        " catalog_version FROM meter_versions WHERE meter = 'sum' ORDER BY meter_version"
    ).result_rows

    assert rows == [
        (1, "sum", "things", "used", None, CHANGED_AT, 1, 2),
        (2, "sum", "things", "used", CHANGED_AT, None, 1, 2),
    ]


def test_before_anything_was_applied_or_used_the_views_are_empty(tables: UsageTables) -> None:
    names = [*VIEWS, "meter_versions", "usage_parts", "balance_days"]
    counts = [tables.client.command("SELECT count() FROM {view:Identifier}", {"view": name}) for name in names]

    assert counts == [0, 0, 0, 0, 0, 0]
