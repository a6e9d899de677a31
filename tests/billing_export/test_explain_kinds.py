"""How lines of further kinds came about: promises, units rolled over, balances, dynamic amounts, credit handed on."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing_export import runs
from billing_export.explain import Explainer
from billing_export.explain_records import Explanation
from billing_export.line_store import read_lines
from billing_export.usage_reader import RollupReader
from metering.clock import FixedClock
from schemas.errors import RequestError
from schemas.line_item import LineItem, decode_line_item
from tests.support.made_billing import METERS, apply, at, close, store_world
from tests.support.made_usage import MadeEvent, UsageTables

LATER = FixedClock(datetime(2014, 1, 1, tzinfo=UTC))


def bill(world: UsageTables, label: str) -> list[LineItem]:
    run = close(world.client, label, clock=LATER).run
    return [decode_line_item(line.document) for line in read_lines(world.client, runs.by_id(world.client, run.id))]


def explained(world: UsageTables, line: LineItem) -> Explanation:
    """The explanation of a line, which is the line itself, and whose steps add up to its exact amount."""
    found = Explainer(world.client, line.id, RollupReader(world.client)).explain()
    assert found.recomputed.differences == ()
    if found.rating is not None:
        assert sum(Decimal(one.amount) for one in found.rating.steps) == Decimal(line.amount_unrounded)
        assert found.rating.amount == line.amount
    return found


def steps(found: Explanation) -> list[tuple[str, str | None, str]]:
    assert found.rating is not None
    return [(one.what, one.quantity, one.amount) for one in found.rating.steps]


def calls(*days: str) -> list[MadeEvent]:
    return [MadeEvent(offset=place, time=at(day)) for place, day in enumerate(days)]


OVERPAID = """
customers: [{id: acme, subjects: [s1]}]
plans:
  - {id: small, charges: [{id: fee, model: flat, amount: 31, timing: advance, proration: day}]}
  - {id: other, charges: [{id: support, model: flat, amount: 4}]}
subscriptions:
  - {id: a, customer: acme, plan: small, start: 2013-01-01%s}
  - {id: b, customer: acme, plan: other, start: 2013-03-01}
"""


def test_credit_that_is_brought_forward_names_what_was_carried_and_what_was_used_of_it(world: UsageTables) -> None:
    nothing = [MadeEvent(offset=0, time=at("2012-01-01T00:00"), subject="nobody")]
    store_world(world, nothing, METERS + OVERPAID % "")
    bill(world, "2013-01")
    # Half of February was paid for in advance and is not used: 15.50, of which each month uses 4.
    apply(world, METERS + OVERPAID % ", end: 2013-02-15")
    bill(world, "2013-02")
    [_, from_february, to_april] = bill(world, "2013-03")
    [_, from_march, to_may] = bill(world, "2013-04")

    first, second, left = (explained(world, one) for one in (from_february, from_march, to_may))

    assert [one.amount for one in (from_february, to_april, from_march, to_may)] == [
        "-15.50",
        "11.50",
        "-11.50",
        "7.50",
    ]
    assert [[(one.run, one.amount) for one in basis.lines] for basis in first.based_on] == [[("2013-02.1", "15.50")]]
    assert [[(one.run, one.amount) for one in basis.lines] for basis in second.based_on] == [
        [("2013-02.1", "15.50"), ("2013-03.1", "-15.50"), ("2013-03.1", "11.50")]
    ]
    assert [one.based_on[0].total for one in (first, second, left)] == ["15.50", "11.50", "-7.50"]


PROMISED = """
customers: [{id: acme, subjects: [s1]}]
plans:
  - id: one
    commitment: {amount: 100, overage_factor: 1.5, true_up: true}
    charges:
      - {id: fee, model: flat, amount: 50}
      - {id: calls, model: per_unit, meter: count, unit_amount: 10}
subscriptions: [{id: a, customer: acme, plan: one, start: 2013-01-01}]
"""


def test_a_plans_commitment_says_what_went_beyond_it_or_is_short(world: UsageTables) -> None:
    # Eight calls in January, 50 + 80; one in February, 50 + 10.
    days = [f"2013-01-0{day}T00:00" for day in range(1, 9)]
    store_world(world, calls(*days, "2013-02-01T00:00"), METERS + PROMISED)

    beyond, short = (explained(world, bill(world, label)[-1]) for label in ("2013-01", "2013-02"))

    assert steps(beyond) == [("calls beyond the commitment of 100", None, "15")]
    assert steps(short) == [("the plan's commitment", None, "100"), ("spent in 2 lines", None, "-60")]
    assert [
        [(one.what, one.total, [(line.charge, line.amount) for line in one.lines]) for one in found.based_on]
        for found in (beyond, short)
    ] == [
        [("lines that count for it", "130.00", [("fee", "50.00"), ("calls", "80.00")])],
        [("lines that count for it", "60.00", [("fee", "50.00"), ("calls", "10.00")])],
    ]


ALLOWED = """
customers: [{id: acme, subjects: [s1]}]
plans:
  - id: one
    charges:
      - id: calls
        model: per_unit
        meter: count
        unit_amount: 2
        free_quantity: 3
        rollover: {expires_after_periods: 1}
      - id: reserved
        model: per_unit
        meter: count
        unit_amount: 2
        commitment: {quantity: 4, overage_factor: 1.5, true_up: true}
subscriptions: [{id: a, customer: acme, plan: one, start: 2013-01-01}]
"""


def test_units_rolled_over_and_a_charges_commitment_are_steps(world: UsageTables) -> None:
    # One call in January, which leaves two of three free ones; seven in February.
    days = [f"2013-02-0{day}T00:00" for day in range(1, 8)]
    store_world(world, calls("2013-01-05T00:00", *days), METERS + ALLOWED)

    [_, short] = [explained(world, one) for one in bill(world, "2013-01")]
    [rolled, beyond] = [explained(world, one) for one in bill(world, "2013-02")]

    assert rolled.rating is not None
    assert [(f"{one.start:%Y-%m}", one.free_quantity, one.quantity) for one in rolled.rating.rolled_over] == [
        ("2013-01", "3", "1")
    ]
    assert steps(rolled) == [("used", "7", "0"), ("free, rolled over", "-2", "0"), ("free", "-3", "0"),
                             ("2 each", "2", "4")]  # fmt: skip
    assert steps(short) == [("used", "1", "0"), ("2 each", "1", "2"), ("short of the commitment", None, "6")]
    assert steps(beyond) == [("used", "7", "0"), ("2 each", "7", "14"),
                             ("beyond the commitment at 1.5 times the price", None, "3")]  # fmt: skip


STOCKED = """
  - {name: time_weighted, event_type: used, aggregation: time_weighted, value: n, unit: seats,
     group_by: {kind: kind, region: region}}
customers: [{id: acme, subjects: [s1]}]
plans:
  - id: one
    charges:
      - {id: seconds, model: per_unit, meter: time_weighted, unit_amount: 1, time_unit: day, proration: second}
      - {id: days, model: per_unit, meter: time_weighted, unit_amount: 1, time_unit: day, proration: day}
      - {id: highest, model: per_unit, meter: time_weighted, unit_amount: 1}
      - id: seats
        model: graduated
        meter: time_weighted
        time_unit: period
        proration: second
        tiers: [{up_to: 5, unit_amount: 10}, {unit_amount: 8}]
subscriptions: [{id: a, customer: acme, plan: one, start: 2013-01-01}]
"""


def test_a_balance_is_shown_day_by_day_in_the_unit_that_its_charge_counts(world: UsageTables) -> None:
    # 2 seats to noon of the 11th, 7 to noon of the 21st, then 3.
    events = [
        MadeEvent(offset=0, time=at("2012-12-20T00:00"), value="2"),
        MadeEvent(offset=1, time=at("2013-01-11T12:00"), value="5"),
        MadeEvent(offset=2, time=at("2013-01-21T12:00"), value="-4"),
    ]
    store_world(world, events, METERS + STOCKED)
    of_bill = bill(world, "2013-01")

    found = {one.charge: explained(world, one).meter for one in of_bill}

    # 10.5 * 2 + 10 * 7 + 10.5 * 3; by the day 10 * 2 + 11 * 7 + 10 * 3; the highest; and a 31st of the first.
    assert {name: one and one.quantity for name, one in found.items()} == {
        "seconds": "122.5",
        "days": "127",
        "highest": "7",
        "seats": "3.951612903226",
    }
    by_day = {f"2013-01-{day:02}": "2" if day < 11 else "7" if day < 21 else "3" for day in range(1, 32)}
    by_day |= {"2013-01-11": "4.5", "2013-01-21": "5"}
    for name in ("seconds", "days", "highest"):
        meter = found[name]
        assert meter is not None
        assert ({one.local[:10]: one.quantity for one in meter.windows}, meter.time_unit) == (by_day, "day")
    seats = found["seats"]
    assert seats is not None
    assert (seats.windows[0].quantity, seats.time_unit) == ("0.064516129032", "period")
    assert {name: one and one.note.split("; ")[-1] for name, one in found.items()} == {
        "seconds": "Windows show the balance over time, and together they are the quantity.",
        "seats": "Windows show the balance over time, and together they are the quantity.",
        "days": "what counts is the highest balance of each local day for the whole day.",
        "highest": "what counts is the highest balance of all the time.",
    }

    page = Explainer(world.client, of_bill[0].id, RollupReader(world.client)).events(page=1, page_size=10)
    assert (page.opening_balance, page.opening_adds) == ("2", "62")
    assert [(one.value, one.adds) for one in page.events] == [("5", "102.5"), ("-4", "-42")]


DYNAMIC = """
customers: [{id: acme, subjects: [s1]}]
plans:
  - id: one
    charges:
      - {id: sms, model: dynamic, meter: count, amount_meter: sum, amount_factor: 0.01, free_quantity: 1}
      - {id: calls, model: per_unit, meter: count, unit_amount: 1}
subscriptions: [{id: a, customer: acme, plan: one, start: 2013-01-01}]
"""


def test_a_dynamic_charge_shows_the_events_that_say_what_it_costs(world: UsageTables) -> None:
    # Three messages cost 70, 80 and 30 cents; one of three is free.
    events = [
        MadeEvent(offset=0, time=at("2013-01-05T00:00"), value="70"),
        MadeEvent(offset=1, time=at("2013-01-05T12:00"), value="80"),
        MadeEvent(offset=2, time=at("2013-01-21T12:00"), value="30"),
    ]
    store_world(world, events, METERS + DYNAMIC)
    [sms, other] = bill(world, "2013-01")

    found = explained(world, sms)

    assert steps(found) == [("used", "3", "0"), ("free", "-1", "0"), ("amounts of the events times 0.01", "2", "1.2")]
    assert found.meter is not None
    assert found.amounts is not None
    assert [(one.local[:10], one.quantity) for one in found.meter.windows] == [("2013-01-05", "2"), ("2013-01-21", "1")]
    assert (found.amounts.name, found.amounts.quantity) == ("sum", "180")
    assert [(one.local[:10], one.quantity) for one in found.amounts.windows] == [
        ("2013-01-05", "150"),
        ("2013-01-21", "30"),
    ]
    explainer = Explainer(world.client, sms.id, RollupReader(world.client))
    pages = [explainer.events(page=number, page_size=2, of_amounts=True) for number in (1, 2)]
    assert [[(one.id, one.adds) for one in page.events] for page in pages] == [
        [("log-1-0-0", "70"), ("log-1-0-1", "80")],
        [("log-1-0-2", "30")],
    ]
    assert {page.quantity for page in pages} == {"180"}
    assert [one.adds for one in explainer.events(page=1, page_size=9).events] == ["1", "1", "1"]
    with pytest.raises(RequestError, match="is not of a dynamic charge"):
        Explainer(world.client, other.id, RollupReader(world.client)).events(page=1, page_size=2, of_amounts=True)
