"""Bills of every kind of charge over a subscription's life: advance, proration, discounts, minimums, credits."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing_export import runs
from billing_export.close import recomputed
from billing_export.line_store import read_lines
from billing_export.run import Run
from billing_export.usage_reader import RollupReader
from billing_export.verify import verify_period
from metering.clock import FixedClock
from schemas.errors import PeriodNotOverError, RequestError, RunError
from schemas.line_item import LineItem, decode_line_item, encode_line_item
from tests.support.made_billing import METERS, REDUCED, apply, at, close, closer, fold, store_world
from tests.support.made_usage import MadeEvent, UsageTables

LATER = FixedClock(datetime(2014, 1, 1, tzinfo=UTC))
NO_EVENTS = [MadeEvent(offset=0, time=at("2012-01-01T00:00"), subject="nobody")]


def world_of(world: UsageTables, catalog: str, events: list[MadeEvent] | None = None) -> None:
    store_world(world, events or NO_EVENTS, METERS + catalog)


def bill(world: UsageTables, label: str) -> list[LineItem]:
    """Close a period, prove every run of it, make each anew, and give the lines of the newest."""
    run = close(world.client, label, clock=LATER).run
    assert verify_period(world.client, label).differences == ()
    anew = [encode_line_item(one).decode() for one in recomputed(world.client, run, RollupReader(world.client))]
    assert anew == [line.document for line in read_lines(world.client, run)]
    return [decode_line_item(text) for text in anew]


def shown(items: list[LineItem]) -> list[tuple[str, str, str, str]]:
    return [(one.kind.value, one.period, one.charge or one.reference, one.amount) for one in items]


def parts(items: list[LineItem]) -> list[tuple[str, str, str, str, str]]:
    return [
        (one.plan, one.charge, f"{one.service_start:%m-%d}", f"{one.service_end:%m-%d}", one.amount) for one in items
    ]


ADVANCE = """
customers: [{id: acme, subjects: [s1]}]
plans:
  - {id: small, charges: [{id: fee, model: flat, amount: 31, timing: advance, proration: day}]}
  - {id: large, charges: [{id: fee, model: flat, amount: 62, timing: advance, proration: day}]}
subscriptions:
  - {id: a, customer: acme, plan: small, start: 2013-01-11%s}
"""


def test_a_charge_in_advance_is_billed_with_the_period_before_and_the_first_one_with_its_own(
    world: UsageTables,
) -> None:
    world_of(world, ADVANCE % "")

    assert parts(bill(world, "2013-01")) == [
        ("small", "fee", "01-11", "02-01", "21.00"),
        ("small", "fee", "02-01", "03-01", "31.00"),
    ]
    assert parts(bill(world, "2013-02")) == [("small", "fee", "03-01", "04-01", "31.00")]


def test_an_upgrade_credits_the_rest_of_what_was_paid_in_advance(world: UsageTables) -> None:
    world_of(world, ADVANCE % "")
    bill(world, "2013-01")
    apply(world, METERS + ADVANCE % ", changes: [{at: 2013-02-15, plan: large}]")

    found = bill(world, "2013-02")

    # February has 28 days: 14 of them small, 14 large.
    assert parts(found) == [
        ("small", "fee", "02-01", "02-15", "-15.50"),
        ("large", "fee", "02-15", "03-01", "31.00"),
        ("large", "fee", "03-01", "04-01", "62.00"),
    ]
    assert [one.adjustment.reason if one.adjustment else "" for one in found] == [
        "subscription_changed",
        "subscription_changed",
        "",
    ]
    assert shown(bill(world, "2013-03")) == [("flat", "2013-04", "fee", "62.00")]


def test_a_subscription_that_ends_takes_back_what_was_paid_in_advance(world: UsageTables) -> None:
    world_of(world, ADVANCE % "")
    bill(world, "2013-01")
    apply(world, METERS + ADVANCE % ", end: 2013-02-15")

    assert shown(bill(world, "2013-02")) == [
        ("flat", "2013-02", "fee", "-15.50"),
        ("carried_forward", "2013-02", "2013-02.1", "15.50"),
    ]


def test_a_new_price_does_not_reach_back_to_what_was_billed_in_advance(world: UsageTables) -> None:
    world_of(world, ADVANCE % "")
    bill(world, "2013-01")
    apply(world, METERS + (ADVANCE % "").replace("amount: 31", "amount: 310"))

    assert shown(bill(world, "2013-02")) == [("flat", "2013-03", "fee", "310.00")]


def test_minimum_discounts_and_credits_come_in_the_documented_order(world: UsageTables) -> None:
    events = [MadeEvent(offset=place, time=at(f"2013-01-0{place + 1}T00:00")) for place in range(3)]
    world_of(world, REDUCED, events)

    january, february, march, april = (bill(world, f"2013-0{month}") for month in (1, 2, 3, 4))

    # 50 + 30 + 20 up to the minimum; half off the fee; 20 over 25, 30 and 20; ten percent of the rest; then the gift.
    assert shown(january) == [
        ("flat", "2013-01", "fee", "50.00"),
        ("discount", "2013-01", "fee", "-25.00"),
        ("discount", "2013-01", "fee", "-6.67"),
        ("usage", "2013-01", "calls", "30.00"),
        ("discount", "2013-01", "calls", "-8.00"),
        ("true_up", "2013-01", "minimum", "20.00"),
        ("discount", "2013-01", "start", "-5.33"),
        ("discount", "2013-01", "fee", "-1.83"),
        ("discount", "2013-01", "calls", "-2.20"),
        ("discount", "2013-01", "friend", "-1.47"),
        ("credit", "2013-01", "fee", "-16.50"),
        ("credit", "2013-01", "calls", "-19.80"),
        ("credit", "2013-01", "gift", "-13.20"),
    ]
    assert sum_of(january) == "0.00"
    assert [one.reduces for one in january if one.reference == "half"] == [january[0].id]
    assert [one.amount for one in february if one.kind.value == "credit"] == ["-22.50", "-28.00"]
    # The gift of 100 is drawn down, and nothing of it is left for March.
    assert [one.amount for one in march if one.kind.value == "credit"] == []
    assert sum_of(april) == "90.00"


def sum_of(items: list[LineItem]) -> str:
    return str(sum((Decimal(one.amount) for one in items), Decimal(0)))


def test_a_late_event_changes_the_minimum_and_the_discounts_of_its_period(world: UsageTables) -> None:
    world_of(world, REDUCED.replace("amount: 100, currency", "amount: 1, currency"))
    bill(world, "2013-01")
    fold(world, [MadeEvent(offset=1, time=at("2013-01-05T00:00"))])

    found = [one for one in bill(world, "2013-02") if one.adjustment]

    # 10 of calls instead of 10 of the minimum: the bill stays as it was.
    assert sum_of(found) == "0.00"
    assert ("usage", "2013-01", "calls", "10.00") in shown(found)
    assert ("true_up", "2013-01", "minimum", "-10.00") in shown(found)


def test_a_credit_is_not_drawn_twice_and_verify_says_when_it_was(world: UsageTables) -> None:
    world_of(world, REDUCED)
    bill(world, "2013-01")
    bill(world, "2013-02")
    world.client.command(
        "INSERT INTO line_items SELECT * REPLACE (99 AS line_number, generateUUIDv4() AS id) FROM line_items FINAL "
        "WHERE kind = 'credit' AND run = '2013-02.1' LIMIT 1"
    )

    assert any(
        "nothing in the events calls for it" in text for text in verify_period(world.client, "2013-02").differences
    )


def test_a_discount_that_was_changed_is_named(world: UsageTables) -> None:
    world_of(world, REDUCED)
    bill(world, "2013-01")
    world.client.command(
        "ALTER TABLE line_items UPDATE amount = -1 WHERE reference = 'half' SETTINGS mutations_sync = 2"
    )

    assert any(
        "amount is -1.0000, expected -25.0000" in text for text in verify_period(world.client, "2013-01").differences
    )


TWO = """
customers:
  - {id: acme, subjects: [s1], currency: EUR}
  - {id: bolt, subjects: [s3], timezone: America/New_York}
plans:
  - id: m
    prices: {EUR: {charges: [{id: calls, model: per_unit, meter: count, unit_amount: 2}]}}
    charges: [{id: calls, model: per_unit, meter: count, unit_amount: 3}]
  - {id: q, period: quarter, charges: [{id: support, model: flat, amount: 90}]}
subscriptions:
  - {id: a, customer: acme, plan: m, start: 2013-01-01}
  - {id: b, customer: acme, plan: q, start: 2013-01-01, currency: USD}
  - {id: c, customer: bolt, plan: m, start: 2013-01-01}
"""


def test_periods_of_every_length_have_runs_of_their_own_and_due_finds_them(world: UsageTables) -> None:
    world_of(world, TWO)
    clock = FixedClock(datetime(2013, 4, 3, tzinfo=UTC))

    done = closer(world.client, clock=clock).close_due()

    # bolt's March, in New York, ends four hours after acme's quarter.
    assert [(one.run.sequence, one.run.id) for one in done] == [
        (1, "2013-01.1"),
        (2, "2013-02.1"),
        (3, "2013-Q1.1"),
        (4, "2013-03.1"),
    ]
    assert closer(world.client, clock=clock).close_due() == []


def test_a_customer_is_billed_alone_and_the_rest_of_the_period_later(world: UsageTables) -> None:
    world_of(world, TWO)

    first = closer(world.client, clock=LATER).close("2013-01", customers=["bolt"])
    second = closer(world.client, clock=LATER).close("2013-01")
    third = closer(world.client, clock=LATER).close("2013-01", customers=["bolt"])

    def customers(run: Run) -> list[str]:
        return [decode_line_item(line.document).customer for line in read_lines(world.client, run)]

    assert (first.run.id, first.run.customers, customers(first.run)) == ("2013-01.1", ("bolt",), ["bolt"])
    assert (second.run.id, second.run.customers, customers(second.run)) == ("2013-01.2", (), ["acme"])
    assert (third.run.id, third.changed) == ("2013-01.2", False)


def test_one_customer_can_be_closed_as_soon_as_its_own_period_is_over(world: UsageTables) -> None:
    world_of(world, TWO)
    # acme's January and its grace are over on 2 February; bolt's, in New York, five hours later.
    clock = FixedClock(at("2013-02-02T00:00"))

    assert closer(world.client, clock=clock).close("2013-01", customers=["acme"]).changed
    with pytest.raises(PeriodNotOverError, match="over at 2013-02-02 05:00:00 UTC"):
        closer(world.client, clock=clock).close("2013-01")


@pytest.mark.parametrize(
    ("label", "customers", "error", "complaint"),
    [
        ("2013-01", ["nobody"], RequestError, "there is no customer 'nobody'"),
        ("2013-Q1", ["bolt"], RunError, "no subscription of bolt has any time in 2013-Q1"),
        ("2013-1", [], RequestError, "'2013-1' is no period"),
    ],
)
def test_what_cannot_be_closed_is_refused_with_a_reason(
    world: UsageTables, label: str, customers: list[str], error: type[Exception], complaint: str
) -> None:
    world_of(world, TWO)

    with pytest.raises(error, match=complaint):
        closer(world.client, clock=LATER).close(label, customers=customers)
    assert runs.listed(world.client) == []
