"""Events that were taken back or replaced, balances over time, and prices that depend on each event."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from billing_export import runs
from billing_export.close import recomputed
from billing_export.line_store import read_lines
from billing_export.usage_reader import RollupReader
from billing_export.verify import verify_period
from metering.clock import FixedClock
from schemas.line_item import LineItem, decode_line_item, encode_line_item
from tests.support.made_billing import JANUARY, at, close, closer, fold, store_world
from tests.support.made_usage import MadeEvent, UsageTables

LATER = FixedClock(datetime(2014, 1, 1, tzinfo=UTC))


def lines(world: UsageTables, run: str) -> list[LineItem]:
    """The lines of a run, proved from its events and made anew."""
    found = runs.by_id(world.client, run)
    assert verify_period(world.client, found.period).differences == ()
    documents = [line.document for line in read_lines(world.client, found)]
    anew = [encode_line_item(one).decode() for one in recomputed(world.client, found, RollupReader(world.client))]
    assert anew == documents
    return [decode_line_item(text) for text in documents]


def corrections(world: UsageTables, run: str) -> list[tuple[str, str, str, str, str]]:
    return [
        (one.charge, one.period, one.quantity, one.amount, one.adjustment.reason)
        for one in lines(world, run)
        if one.adjustment is not None
    ]


def test_an_event_that_was_taken_back_after_the_close_is_credited(world: UsageTables) -> None:
    close(world.client)
    # Offset 2 is one of acme's four calls, and its 0.2 GB in the region us.
    void = MadeEvent(offset=10, time=at("2013-02-10T00:00"), subject="s2", corrects="log-1-0-2", voids=True)
    fold(world, [void], JANUARY)

    close(world.client, "2013-02", clock=LATER)

    assert corrections(world, "2013-02.1") == [
        ("calls", "2013-01", "-1", "-0.50", "corrected_events"),
        ("traffic", "2013-01", "-0.2", "-0.07", "corrected_events"),
    ]
    assert lines(world, "2013-01.1")[1].quantity == "4"


def test_a_correction_that_empties_a_tier_rates_the_period_again_downwards(world: UsageTables) -> None:
    close(world.client)
    voids = [
        MadeEvent(offset=10 + place, time=at("2013-02-10T00:00"), subject=subject, corrects=name, voids=True)
        for place, (subject, name) in enumerate([("s2", "log-1-0-2"), ("s1", "log-1-0-3"), ("s1", "log-1-0-1")])
    ]
    fold(world, voids, JANUARY)

    close(world.client, "2013-02", clock=LATER)

    # From four calls (2.01 + 3 + 1) to one (1.01): the second tier and its flat amount are given back.
    calls = next(one for one in lines(world, "2013-02.1") if one.charge == "calls" and one.adjustment)
    assert (calls.quantity, calls.amount) == ("-3", "-5.00")


def test_an_event_that_moved_to_another_period_is_taken_from_one_and_billed_in_the_other(world: UsageTables) -> None:
    close(world.client)
    moved = MadeEvent(
        offset=10, time=at("2013-02-10T00:00"), subject="s2", value="3", region="us", corrects="log-1-0-2"
    )
    fold(world, [moved], JANUARY)

    close(world.client, "2013-02", clock=LATER)

    assert corrections(world, "2013-02.1") == [
        ("calls", "2013-01", "-1", "-0.50", "corrected_events"),
        ("traffic", "2013-01", "-0.2", "-0.07", "corrected_events"),
    ]
    february = {
        (one.charge, one.dimensions.get("region", "")): one for one in lines(world, "2013-02.1") if not one.adjustment
    }
    assert (february["traffic", "us"].quantity, february["calls", ""].quantity) == ("3", "2")


def test_a_correction_that_the_table_does_not_have_is_named(world: UsageTables) -> None:
    void = MadeEvent(offset=10, time=at("2013-01-30T00:00"), subject="s2", corrects="log-1-0-2", voids=True)
    fold(world, [void], JANUARY)
    close(world.client)
    world.client.command("TRUNCATE TABLE corrections")

    differences = verify_period(world.client, "2013-01").differences

    assert (
        "correction s2 / /made / log-1-0-10 of /made / log-1-0-2: it is not in the table of corrections" in differences
    )


def test_a_row_that_takes_an_event_out_without_a_correction_is_named(world: UsageTables) -> None:
    close(world.client)
    world.client.command(
        "INSERT INTO corrections "
        "(subject, source, id, epoch, partition, offset, correction_source, correction_id, is_named) "
        "VALUES ('s2', '/made', 'log-1-0-2', 'log-1', 0, 9, '/made', 'nothing', 1)"
    )

    assert any("no event up to the cut says so" in text for text in verify_period(world.client, "2013-01").differences)


MODELS = """
meters:
  - {name: count, event_type: used, aggregation: count, group_by: {kind: kind, region: region}}
  - {name: sum, event_type: used, aggregation: sum, value: n, unit: GB, group_by: {kind: kind, region: region}}
  - {name: time_weighted, event_type: used, aggregation: time_weighted, value: n, unit: seats,
     group_by: {kind: kind, region: region}}
customers: [{id: acme, subjects: [s1]}]
plans:
  - id: one
    charges:
      - %s
subscriptions: [{id: a, customer: acme, plan: one, start: 2013-01-01}]
"""


def used(*events: tuple[str, str]) -> list[MadeEvent]:
    """Events by time and value."""
    return [MadeEvent(offset=place, time=at(time), value=value) for place, (time, value) in enumerate(events)]


@pytest.mark.parametrize(
    ("charge", "events", "expected"),
    [
        (
            "{id: c, model: percentage, meter: sum, rate: 10, event_max: 5, free_events: 1}",
            [("2013-01-02T00:00", "100"), ("2013-01-03T00:00", "20"), ("2013-01-04T00:00", "70")],
            [("c", "190", "7.00")],
        ),
        (
            "{id: c, model: package, meter: sum, package_size: 10, package_amount: 1, bucket: day}",
            [("2013-01-02T00:00", "1"), ("2013-01-02T23:59", "1"), ("2013-01-03T00:00", "11")],
            [("c", "13", "3.00")],
        ),
        (
            "{id: c, model: dynamic, meter: count, amount_meter: sum, amount_factor: 0.01}",
            [("2013-01-02T00:00", "150"), ("2013-01-03T00:00", "50")],
            [("c", "2", "2.00")],
        ),
        (
            "{id: c, model: per_unit, meter: time_weighted, unit_amount: 1, time_unit: day, proration: second}",
            [("2012-12-31T00:00", "2"), ("2013-01-21T12:00", "1"), ("2013-01-31T12:00", "-3")],
            # 2 for 31 days, 1 more for 10.5, 3 less for half a day.
            [("c", "71", "71.00")],
        ),
        (
            "{id: c, model: per_unit, meter: time_weighted, unit_amount: 1, time_unit: day, proration: day}",
            [("2012-12-31T00:00", "2"), ("2013-01-21T12:00", "1"), ("2013-01-31T12:00", "-3")],
            # 2 on 20 days, 3 on the 11 from the 21st on.
            [("c", "73", "73.00")],
        ),
        (
            "{id: c, model: per_unit, meter: time_weighted, unit_amount: 10}",
            [("2012-12-31T00:00", "2"), ("2013-01-21T12:00", "1"), ("2013-01-22T12:00", "-2")],
            [("c", "3", "30.00")],
        ),
        (
            (
                "{id: c, model: graduated, meter: time_weighted, time_unit: period, proration: second, "
                "tiers: [{up_to: 2, unit_amount: 31}, {unit_amount: 62}]}"
            ),
            [("2012-12-31T00:00", "2"), ("2013-01-22T00:00", "1")],
            # Two seats all the month, a third, in the second tier, for 10 of 31 days.
            [("c", "2.322580645161", "82.00")],
        ),
        (
            (
                "{id: c, model: matrix, meter: count, group_by: [region], otherwise: {unit_amount: 1}, "
                "prices: [{values: {region: eu}, unit_amount: 2}]}"
            ),
            [("2013-01-02T00:00", "1")],
            [("c", "1", "2.00")],
        ),
    ],
    ids=["percentage", "buckets", "dynamic", "seat-days", "seats by day", "highest", "seats in tiers", "matrix"],
)
def test_every_kind_of_reading_is_billed_and_proved(
    world: UsageTables, charge: str, events: list[tuple[str, str]], expected: list[tuple[str, str, str]]
) -> None:
    store_world(world, used(*events), MODELS % charge)

    close(world.client, clock=LATER)

    assert [(one.charge, one.quantity, one.amount) for one in lines(world, "2013-01.1")] == expected


def test_unused_free_units_move_on_and_a_late_event_takes_them_back(world: UsageTables) -> None:
    charge = (
        "{id: c, model: per_unit, meter: count, unit_amount: 1, free_quantity: 3, rollover: {expires_after_periods: 1}}"
    )
    february = [(f"2013-02-0{day}T00:00", "1") for day in range(1, 6)]
    store_world(world, used(("2013-01-02T00:00", "1"), *february), MODELS % charge)
    closer(world.client, clock=LATER).close("2013-01")
    closer(world.client, clock=LATER).close("2013-02")

    # January left 2 of its 3 free units, so February's 5 are free.
    assert [(one.quantity, one.amount) for one in lines(world, "2013-02.1")] == [("5", "0.00")]
    fold(world, [MadeEvent(offset=6, time=at("2013-01-03T00:00"))])
    closer(world.client, clock=LATER).close("2013-03")

    # One more in January is free there; February has one free unit less then, and 5 were used of 4.
    assert corrections(world, "2013-03.1") == [
        ("c", "2013-01", "1", "0.00", "late_events"),
        ("c", "2013-02", "0", "1.00", "late_events"),
    ]


def test_a_late_change_of_a_balance_reaches_every_later_period(world: UsageTables) -> None:
    charge = "{id: c, model: per_unit, meter: time_weighted, unit_amount: 1, time_unit: day, proration: second}"
    store_world(world, used(("2013-01-01T00:00", "1")), MODELS % charge)
    for label in ("2013-01", "2013-02"):
        close(world.client, label, clock=LATER)
    fold(world, [MadeEvent(offset=1, time=at("2013-01-30T00:00"), value="1")])

    close(world.client, "2013-03", clock=LATER)

    assert corrections(world, "2013-03.1") == [
        ("c", "2013-01", "2", "2.00", "late_events"),
        ("c", "2013-02", "28", "28.00", "late_events"),
    ]
    assert [one.quantity for one in lines(world, "2013-03.1") if not one.adjustment] == ["62"]
