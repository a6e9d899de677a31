"""How a frozen line came about: usage by window, each step of its price, what reduces and corrects it, its events."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from billing_export import runs
from billing_export.balance import BalanceChange, Stock, stock_usage
from billing_export.explain import Explainer, explain
from billing_export.explain_records import Explanation
from billing_export.explain_stock import StockSoFar
from billing_export.line_store import read_lines
from billing_export.money import as_quantity
from billing_export.segments import Segment, segments
from billing_export.usage_reader import RollupReader
from metering.clock import FixedClock
from schemas.catalog import Catalog, Customer, applied
from schemas.charges import PerUnitCharge, Proration, TimeUnit, Timing
from schemas.errors import RequestError
from schemas.line_item import LineItem, LineKind, decode_line_item
from schemas.meter import Aggregation, Meter
from schemas.period import period_of
from schemas.plan import Plan
from schemas.subscription import Subscription
from schemas.subscription_life import phases
from schemas.usage_query import Window
from tests.support.made_billing import METERS, REDUCED, apply, at, close, fold, store_world
from tests.support.made_usage import MadeEvent, UsageTables

LATER = FixedClock(datetime(2014, 1, 1, tzinfo=UTC))


def lines(world: UsageTables, run: str) -> list[LineItem]:
    return [decode_line_item(line.document) for line in read_lines(world.client, runs.by_id(world.client, run))]


def line_of(
    world: UsageTables, run: str, charge: str, *, kind: str = "", region: str = "", customer: str = ""
) -> LineItem:
    [found] = [
        one
        for one in lines(world, run)
        if one.charge == charge
        and (not kind or one.kind.value == kind)
        and (not region or one.dimensions["region"] == region)
        and (not customer or one.customer == customer)
    ]
    return found


def explained(world: UsageTables, line: LineItem, window: Window = Window.DAY) -> Explanation:
    found = explain(world.client, line.id, RollupReader(world.client), window=window)
    assert found.recomputed.differences == ()
    return found


def steps(found: Explanation) -> list[tuple[str, str | None, str]]:
    assert found.rating is not None
    return [(one.what, one.quantity, one.amount) for one in found.rating.steps]


def test_a_tiered_line_shows_its_days_its_tiers_and_the_way_to_its_amount(world: UsageTables) -> None:
    close(world.client)

    found = explained(world, line_of(world, "2013-01.1", "calls", customer="acme"))

    assert found.meter is not None
    assert found.rating is not None
    # Four calls on three days of New York: the first two at 1.005, then 3 once and 0.5 each.
    assert [(one.local[:10], one.quantity) for one in found.meter.windows] == [
        ("2013-01-01", "1"),
        ("2013-01-15", "2"),
        ("2013-01-31", "1"),
    ]
    assert [(one.from_, one.quantity, one.amount) for one in found.rating.tiers] == [
        ("0", "2", "2.01"),
        ("2", "2", "4"),
    ]
    assert [one[1:] for one in steps(found)] == [("4", "0"), ("2", "2.01"), ("2", "4")]
    assert steps(found)[1][0] == "from 0 up to 2 at 1.005 each"
    assert (found.rating.amount_unrounded, found.rating.amount) == ("6.01", "6.01")
    assert (found.run.id, found.run.catalog_version, found.run.code_version) == ("2013-01.1", 1, "test")


def test_every_line_is_explained_equal_and_its_events_add_up_to_its_quantity_and_digest(world: UsageTables) -> None:
    close(world.client)
    metered = [one for one in lines(world, "2013-01.1") if one.kind is LineKind.USAGE]

    assert len(metered) == 9
    for one in metered:
        explainer = Explainer(world.client, one.id, RollupReader(world.client))
        pages = [explainer.events(page=number, page_size=2) for number in range(1, -(-one.events_count // 2) + 1)]
        assert explainer.explain().recomputed.is_equal
        assert sum(Decimal(page.page_sum) for page in pages) == Decimal(one.quantity)
        assert sum(len(page.events) for page in pages) == one.events_count
        assert {(page.quantity, page.digest) for page in pages} == {(one.quantity, one.digest)}


def test_a_page_of_events_has_what_each_adds(world: UsageTables) -> None:
    close(world.client)

    def adds(charge: str) -> list[tuple[str, str, str, int]]:
        line = line_of(world, "2013-01.1", charge, customer="bolt")
        page = Explainer(world.client, line.id, RollupReader(world.client)).events(page=1, page_size=10)
        return [(one.id, one.value, one.adds, one.offset) for one in page.events]

    # 3, 7 and 6, by the users u1, u2 and u1; the last two at one instant.
    assert adds("users") == [("log-1-0-7", "u1", "1", 7), ("log-1-0-8", "u2", "1", 8), ("log-1-0-9", "u1", "0", 9)]
    assert [one[1:3] for one in adds("peak")] == [("3", "3"), ("7", "4"), ("6", "0")]
    assert [one[1:3] for one in adds("level")] == [("3", "3"), ("7", "4"), ("6", "-1")]
    assert [one[1:3] for one in adds("mean")] == [("3", "3"), ("7", "2"), ("6", "0.333333333333")]


def test_windows_can_be_hours_and_quarters(world: UsageTables) -> None:
    close(world.client)
    line = line_of(world, "2013-01.1", "traffic", region="us")

    for window in (Window.HOUR, Window.QUARTER_HOUR):
        found = explained(world, line, window)
        assert found.meter is not None
        assert [(one.local, one.quantity) for one in found.meter.windows] == [("2013-01-15T07:00:00-05:00", "0.2")]


def test_the_beginning_of_an_id_is_enough_and_what_is_no_id_is_answered_with_what_was_meant(world: UsageTables) -> None:
    close(world.client)
    line = line_of(world, "2013-01.1", "fee")
    mistyped = line.id[:-1] + ("0" if line.id[-1] != "0" else "1")
    reader = RollupReader(world.client)

    assert explain(world.client, line.id[:13].upper(), reader).line == line
    for text, words in {
        "": "there is no line item ''",
        "xyz": "there is no line item 'xyz'",
        mistyped: f"Did you mean\n  {line.id}  2013-01.1  acme  flat fee  49.90 USD",
        "bolt": "The newest lines of 'bolt' are\n",
    }.items():
        with pytest.raises(RequestError) as caught:
            explain(world.client, text, reader)
        assert words in str(caught.value)


def test_a_beginning_that_several_have_lists_them(world: UsageTables) -> None:
    close(world.client)
    first = {one.id[0] for one in lines(world, "2013-01.1")}
    several = next(one for one in sorted(first) if sum(line.id[0] == one for line in lines(world, "2013-01.1")) > 1)

    with pytest.raises(RequestError, match="line items begin with"):
        explain(world.client, several, RollupReader(world.client))


def test_before_anything_was_closed_it_says_what_to_run(world: UsageTables) -> None:
    with pytest.raises(RequestError, match=r"nothing was closed yet.*metering close"):
        explain(world.client, "abc", RollupReader(world.client))


def test_a_flat_line_has_no_events(world: UsageTables) -> None:
    close(world.client)

    with pytest.raises(RequestError, match="is a flat line, which has no events"):
        Explainer(world.client, line_of(world, "2013-01.1", "fee").id, RollupReader(world.client)).events(
            page=1, page_size=1
        )


def test_a_correction_shows_the_whole_rated_again_and_the_chain_from_the_first_line(world: UsageTables) -> None:
    store_world(world)
    close(world.client)
    first = line_of(world, "2013-01.1", "calls", customer="acme")
    fold(world, [MadeEvent(offset=10, time=at("2013-01-20T00:00"), value="5", region="us")])
    close(world.client, "2013-02", clock=LATER)
    [late] = [one for one in lines(world, "2013-02.1") if one.corrects == first.id]

    found = explained(world, late)

    # Five calls cost 2.01 + 3 + 3 * 0.5 = 6.51, of which 6.01 were billed.
    assert steps(found)[-1] == ("billed before", "-4", "-6.01")
    assert found.rating is not None
    assert (found.rating.amount_unrounded, found.rating.amount) == ("0.5", "0.50")
    assert [(one.run, one.quantity, one.amount, one.amount_before, one.amount_after) for one in found.chain] == [
        ("2013-01.1", "4", "6.01", None, None),
        ("2013-02.1", "1", "0.50", "6.01", "6.51"),
    ]
    assert found.notes[0] == (
        f"It corrects line {first.id} (late events): the whole was rated again, quantity 4 became 5, "
        "amount 6.01 became 6.51 USD."
    )
    # The first line is still what its own cut says, and shows who corrected it.
    assert [one.id for one in explained(world, first).chain] == [first.id, late.id]


def test_what_reduces_a_line_and_what_it_follows_from_is_named(world: UsageTables) -> None:
    events = [MadeEvent(offset=place, time=at(f"2013-01-0{place + 1}T00:00")) for place in range(3)]
    store_world(world, events, METERS + REDUCED)
    close(world.client, clock=LATER)
    of_bill = lines(world, "2013-01.1")
    fee = line_of(world, "2013-01.1", "fee", kind="flat")
    [minimum] = [one for one in of_bill if one.kind is LineKind.TRUE_UP]
    [friend] = [one for one in of_bill if one.reference == "friend" and one.reduces == fee.id]
    gifts = [one for one in of_bill if one.kind is LineKind.CREDIT]

    of_fee, of_minimum, of_friend = (explained(world, one) for one in (fee, minimum, friend))

    # 50 less half is 25; 20 off 25 + 30 + 20 are 6.67, 8 and 5.33; ten percent of what is left; the gift pays the rest.
    assert [(one.reference, one.amount) for one in of_fee.reductions] == [
        ("half", "-25.00"),
        ("start", "-6.67"),
        ("friend", "-1.83"),
        ("gift", "-16.50"),
    ]
    assert of_fee.net_amount == "0.00"
    assert steps(of_minimum) == [("the plan's minimum", None, "100"), ("spent in 2 lines", None, "-80")]
    assert [(one.charge, one.amount) for one in of_minimum.based_on[0].lines] == [("fee", "50.00"), ("calls", "30.00")]
    assert of_friend.notes == (
        "Discount friend takes 10 percent off, given for the whole bill.",
        f"It reduces line {fee.id}, of which 18.33 was left, by 1.83.",
    )
    assert [(one.what, one.total) for one in of_friend.based_on] == [
        ("the line it reduces", "50.00"),
        ("discounts taken off that line before", "-31.67"),
        ("the same discount on other lines of the bill", "-3.67"),
    ]
    given = "Grant gift of 100 USD from 2013-01-01, until 2013-04-01, priority 0: "
    assert [explained(world, one).notes[0].removeprefix(given) for one in gifts] == [
        "100 was left, 16.50 was drawn, 83.5 is left.",
        "83.5 was left, 19.80 was drawn, 63.7 is left.",
        "63.7 was left, 13.20 was drawn, 50.5 is left.",
    ]


ADVANCE = """
customers: [{id: acme, subjects: [s1]}]
plans: [{id: small, charges: [{id: fee, model: flat, amount: 31, timing: advance, proration: day}]}]
subscriptions: [{id: a, customer: acme, plan: small, start: 2013-01-11%s}]
"""


def test_a_part_of_a_period_in_advance_and_what_is_carried_and_brought_forward(world: UsageTables) -> None:
    nothing = [MadeEvent(offset=0, time=at("2012-01-01T00:00"), subject="nobody")]
    store_world(world, nothing, METERS + ADVANCE % "")
    close(world.client, clock=LATER)
    apply(world, METERS + ADVANCE % ", end: 2013-02-15")
    close(world.client, "2013-02", clock=LATER)
    [january, february] = lines(world, "2013-01.1")
    [credit, carried] = lines(world, "2013-02.1")

    first, back, forward = (explained(world, one) for one in (january, credit, carried))

    assert steps(first) == [("flat amount", "1", "31"), ("21/31 of the period", None, "-10")]
    assert first.notes == ("It is for a part of the period, 2013-01-11T00:00:00+00:00 to 2013-02-01T00:00:00+00:00.",)
    # 14 of 28 days of February are left of what was paid.
    assert steps(back) == [
        ("flat amount", "1", "31"),
        ("1/2 of the period", None, "-15.5"),
        ("billed before", "-1", "-31"),
    ]
    assert [one.id for one in back.chain] == [february.id, credit.id]
    assert [(one.what, one.total) for one in forward.based_on] == [("the other lines of the bill", "-15.50")]


SEATS = Meter(name="seats", event_type="used", aggregation=Aggregation.TIME_WEIGHTED, value="n")
STOCK = [
    (datetime(2013, 1, 10, 12, tzinfo=UTC), Decimal(5)),
    (datetime(2013, 1, 20, tzinfo=UTC), Decimal(-3)),
    (datetime(2013, 1, 20, 18, tzinfo=UTC), Decimal(40)),
    (datetime(2013, 1, 20, 18, tzinfo=UTC), Decimal(-40)),
    (datetime(2013, 1, 21, tzinfo=UTC), Decimal(1)),
]


@pytest.mark.parametrize("unit", ["hour", "day", "period"])
@pytest.mark.parametrize("proration", ["second", "day", "none"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
def test_a_balance_counted_change_by_change_agrees_with_the_whole_after_every_change(
    proration: str, unit: str, zone: str
) -> None:
    charge = PerUnitCharge(
        id="seats", meter="seats", unit_amount=Decimal(1), proration=Proration(proration), time_unit=TimeUnit(unit)
    )
    segment = segment_of(charge, zone)
    counted = StockSoFar(segment, charge, SEATS, Decimal(2))

    for place in range(len(STOCK) + 1):
        stock = Stock(
            start=segment.start,
            end=segment.end,
            opening=Decimal(2),
            changes=tuple(BalanceChange(time=time, amount=amount) for time, amount in STOCK[:place]),
        )
        whole = stock_usage(
            stock,
            whole=(segment.last.period.start, segment.last.period.end),
            proration=charge.proration,
            time_unit=TimeUnit(unit),
            timezone=zone,
        )
        assert counted.quantity == as_quantity(whole.quantity)
        if place < len(STOCK):
            counted.change(*STOCK[place])


def segment_of(charge: PerUnitCharge, zone: str) -> Segment:
    """A charge over the part of January from the 5th, on the clock of a zone."""
    customer = Customer(id="acme", subjects=("s1",), timezone=zone)
    plan = Plan(id="p", charges=(charge,))
    subscription = Subscription(id="a", customer="acme", plan="p", start=date(2013, 1, 5))
    catalog = applied(1, Catalog(customers=(customer,), plans=(plan,), subscriptions=(subscription,)), ())
    [found] = segments(phases(catalog, subscription, period_of("2013-01", zone)), Timing.ARREARS)
    return found
