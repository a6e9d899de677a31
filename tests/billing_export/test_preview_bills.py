"""A running bill: so far, and projected to the end of its period."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from billing_export import runs
from billing_export.preview import Preview, preview
from billing_export.projection import ended, projected, until
from billing_export.readings import Ask, Reading, Used
from billing_export.usage_reader import RollupReader
from metering.clock import FixedClock
from schemas.errors import RequestError, RunError
from schemas.meter import Aggregation
from tests.support.made_billing import at, close, store_world
from tests.support.made_usage import MadeEvent, UsageTables

LATER = FixedClock(datetime(2014, 1, 1, tzinfo=UTC))
METERS = """
meters:
  - {name: count, event_type: used, aggregation: count, unit: calls, group_by: {kind: kind, region: region}}
  - {name: sum, event_type: used, aggregation: sum, value: n, unit: GB, group_by: {kind: kind, region: region}}
  - {name: time_weighted, event_type: used, aggregation: time_weighted, value: n, unit: seats,
     group_by: {kind: kind, region: region}}
"""


def previewed(world: UsageTables, customer: str, now: str, label: str = "") -> Preview:
    [found] = preview(world.client, customer, RollupReader(world.client), now=at(now), label=label)
    return found


def shown(found: Preview) -> list[tuple[str, str | None, str | None, str | None, str | None]]:
    return [
        (
            f"{one.kind.value} {one.reference or one.charge}",
            one.quantity_so_far,
            one.quantity_projected,
            one.amount_so_far,
            one.amount_projected,
        )
        for one in found.lines
    ]


def test_counts_and_sums_go_on_as_so_far_and_tiers_rate_what_that_gives(world: UsageTables) -> None:
    # Ten of the 31 days of acme's January are over; until then one call of 0.1 GB was made.
    found = previewed(world, "acme", "2013-01-11T05:00:00")

    assert (found.period, found.elapsed) == ("2013-01", "10/31")
    assert shown(found) == [
        ("flat fee", "1", "1", "49.90", "49.90"),
        ("usage calls", "1", "3", "1.01", "5.51"),
        ("usage traffic", "0.1", "0.31", "0.03", "0.10"),
    ]
    assert [(one.currency, one.so_far, one.projected) for one in found.totals] == [("USD", "50.94", "55.51")]


def test_only_the_active_part_counts_and_what_does_not_add_up_stays(world: UsageTables) -> None:
    # bolt began on the 10th: of 22 days 11 are over, with the values 3, 7 and 6 of two users.
    found = previewed(world, "bolt", "2013-01-21T00:00:00")

    assert shown(found) == [
        ("usage calls", "3", "6", "2", "3"),
        ("usage users", "2", "2", "14", "14"),
        ("usage peak", "7", "7", "7", "7"),
        ("usage level", "6", "6", "6", "6"),
        ("usage mean", "5.333333333333", "5.333333333333", "5", "5"),
        ("usage low", "3", "3", "3", "3"),
    ]


def test_a_period_that_is_over_is_the_same_in_both_columns_and_is_what_a_close_would_bill(world: UsageTables) -> None:
    found = previewed(world, "acme", "2013-02-02T00:00:00", "2013-01")

    assert [one.amount_so_far for one in found.lines] == [one.amount_projected for one in found.lines]
    assert [(one.so_far, one.projected) for one in found.totals] == [("4111166.83", "4111166.83")]


REDUCED = """
customers:
  - {id: acme, subjects: [s1], discounts: [{id: friend, percent: 10}],
     credits: [{id: gift, amount: 20, currency: USD, start: 2013-01-01}]}
plans:
  - id: one
    minimum: 100
    charges:
      - {id: fee, model: flat, amount: 62, proration: day}
      - {id: calls, model: per_unit, meter: count, unit_amount: 10}
subscriptions: [{id: a, customer: acme, plan: one, start: 2013-01-01}]
"""


def test_minimum_discounts_and_credits_are_those_of_each_column(world: UsageTables) -> None:
    events = [MadeEvent(offset=place, time=at(f"2013-01-0{place + 1}T00:00")) for place in range(3)]
    store_world(world, events, METERS + REDUCED)

    # Half of January is over: 3 calls become 6. So far 62 + 30 are 8 short of the minimum; 62 + 60 are above it.
    found = previewed(world, "acme", "2013-01-16T12:00:00")

    assert sorted(shown(found), key=lambda one: one[0]) == [
        ("credit gift", "1", "1", "-20.00", "-20.00"),
        ("discount friend", "1", "1", "-6.20", "-6.20"),
        ("discount friend", "1", "1", "-3.00", "-6.00"),
        ("discount friend", "1", None, "-0.80", None),
        ("flat fee", "1", "1", "62.00", "62.00"),
        ("true_up minimum", "1", None, "8.00", None),
        ("usage calls", "3", "6", "30.00", "60.00"),
    ]
    assert [(one.so_far, one.projected) for one in found.totals] == [("70.00", "89.80")]


SEATS = """
customers: [{id: acme, subjects: [s1]}]
plans:
  - id: one
    charges:
      - {id: by_second, model: per_unit, meter: time_weighted, unit_amount: 1, time_unit: day, proration: second}
      - {id: by_day, model: per_unit, meter: time_weighted, unit_amount: 1, time_unit: day, proration: day}
      - {id: highest, model: per_unit, meter: time_weighted, unit_amount: 1}
subscriptions: [{id: a, customer: acme, plan: one, start: 2013-01-01}]
"""


def test_a_balance_is_counted_until_now_and_carried_on_to_the_end(world: UsageTables) -> None:
    # Five seats since December; on the 6th three of them go.
    events = [
        MadeEvent(offset=0, time=at("2012-12-24T00:00"), value="5"),
        MadeEvent(offset=1, time=at("2013-01-06T00:00"), value="-3"),
    ]
    store_world(world, events, METERS + SEATS)

    # Five days with five and five with two; then 21 more with two.
    assert shown(previewed(world, "acme", "2013-01-11T00:00:00")) == [
        ("usage by_second", "35", "77", "35.00", "77.00"),
        ("usage by_day", "35", "77", "35.00", "77.00"),
        ("usage highest", "5", "5", "5.00", "5.00"),
    ]


def test_nothing_is_written(world: UsageTables) -> None:
    previewed(world, "acme", "2013-01-11T05:00:00")

    assert runs.listed(world.client) == []
    assert world.client.query("SELECT count() FROM line_items").result_rows == [(0,)]


def test_what_cannot_be_previewed_says_why(world: UsageTables) -> None:
    for customer, now, label, words in (
        ("acne", "2013-01-11T00:00:00", "", "there is no customer 'acne'. Did you mean 'acme'?"),
        ("bolt", "2013-03-01T00:00:00", "", "no subscription of bolt is in a period now"),
        ("bolt", "2013-01-11T00:00:00", "2013-03", "no subscription of bolt has any time in 2013-03"),
        ("acme", "2013-01-11T00:00:00", "2013-03", "it has not begun"),
        ("acme", "2013-01-11T00:00:00", "January", "January"),
    ):
        with pytest.raises((RequestError, RunError)) as caught:
            preview(world.client, customer, RollupReader(world.client), now=at(now), label=label)
        assert words in str(caught.value)
    close(world.client)
    with pytest.raises(RunError, match=r"it was billed to acme already \(run 2013-01.1\)"):
        preview(world.client, "acme", RollupReader(world.client), now=at("2013-02-01T06:00:00"), label="2013-01")


READING = Reading(
    catalog_version=1,
    meter="m",
    group_by=(),
    start=at("2013-01-01T00:00:00"),
    end=at("2013-01-06T00:00:00"),
    timezone="UTC",
)
NOW = at("2013-01-03T12:00:00")


def used(day: float, quantity: str) -> Used:
    return Used(
        dimensions={}, at=READING.start + timedelta(days=day), quantity=Decimal(quantity), events_count=1, digest=7
    )


def quantities(found: list[Used]) -> list[str]:
    return [str(one.quantity) for one in found]


def test_days_that_are_over_repeat_and_the_present_one_is_filled_up() -> None:
    days = msgspec.structs.replace(READING, ask=Ask.DAY)

    # Two days are over, half of the third; the fourth and fifth are like the first and second.
    assert quantities(projected(days, Aggregation.SUM, [used(0, "4"), used(1, "6"), used(2, "1")], NOW)) == [
        "4", "6", "2", "4", "6",
    ]  # fmt: skip
    assert quantities(projected(days, Aggregation.MAX, [used(0, "4"), used(2, "1")], NOW)) == ["4", "1", "4"]
    assert quantities(projected(days, Aggregation.COUNT, [used(0, "3")], at("2013-01-01T12:00:00"))) == ["6"] * 5


def test_single_events_repeat_in_their_order() -> None:
    events = msgspec.structs.replace(READING, ask=Ask.EVENTS)

    # Half of the time is over, so three events become six.
    assert quantities(projected(events, Aggregation.SUM, [used(0, "1"), used(1, "2"), used(2, "3")], NOW)) == [
        "1", "2", "3", "1", "2", "3",
    ]  # fmt: skip


def test_what_is_over_or_has_not_begun_is_not_projected() -> None:
    after, before = at("2013-01-06T00:00:00"), at("2012-12-31T00:00:00")

    assert quantities(projected(READING, Aggregation.SUM, [used(0, "3")], after)) == ["3"]
    assert until(READING, after) == READING
    assert until(READING, before) is None
    assert until(READING, NOW) == msgspec.structs.replace(READING, end=NOW)


def test_a_balance_that_is_ended_adds_up_to_nothing_from_then_on() -> None:
    found = ended([used(0, "5"), used(1, "-2")], NOW)

    assert quantities(found) == ["5", "-2", "-3"]
    assert found[-1].at == NOW
    assert ended([used(0, "5"), used(1, "-5")], NOW) == [used(0, "5"), used(1, "-5")]
