"""What a running bill says of each charge: included, used and left, every tier, and the amount of the line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from billing_export.preview import previewed
from billing_export.running_account import ChargeAccount, Part, accounts_of
from billing_export.usage_reader import RollupReader
from metering.testing import ClickHouseUnderTest
from tests.support.made_billing import METERS, at, store_world
from tests.support.made_usage import MadeEvent, UsageTables, usage_tables

PLAN = """
customers: [{id: acme, subjects: [s1]}]
plans:
  - id: one
    charges:
      - {id: fee, model: flat, amount: 50}
      - {id: calls, model: graduated, meter: count, tiers: [{up_to: 3, unit_amount: 0}, {unit_amount: 2}]}
      - {id: traffic, model: per_unit, meter: sum, unit_amount: 0.5, group_by: [region], free_quantity: 2,
         rollover: {expires_after_periods: 1}, discounts: [{id: gift, quantity: 1}]}
      - {id: packs, model: package, meter: count, package_size: 2, package_amount: 1}
subscriptions: [{id: a, customer: acme, plan: one, start: 2012-12-01}]
"""
EVENTS = [
    MadeEvent(offset=0, time=at("2012-12-05T00:00"), value="0.5"),
    MadeEvent(offset=1, time=at("2013-01-02T00:00"), value="4"),
    MadeEvent(offset=2, time=at("2013-01-03T00:00"), value="1"),
    MadeEvent(offset=3, time=at("2013-01-04T00:00"), value="0.5", region="us"),
    MadeEvent(offset=4, time=at("2013-01-04T00:01"), value=None),
    MadeEvent(offset=5, time=at("2013-01-04T00:02"), value=None),
    MadeEvent(offset=6, time=at("2013-01-20T00:00"), value="1000"),
]
NOW = at("2013-01-10T00:00")


@pytest.fixture(scope="module")
def world(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as tables:
        store_world(tables, EVENTS, METERS + PLAN)
        yield tables


def accounts(world: UsageTables) -> dict[tuple[str, str], ChargeAccount]:
    [found] = previewed(world.client, "acme", RollupReader(world.client), now=NOW)
    return {(one.charge, one.dimensions.get("region", "")): one for one in accounts_of(found)}


def test_what_is_included_is_the_free_units_with_those_rolled_over_and_given_and_tells_what_is_left(
    world: UsageTables,
) -> None:
    # December left 1.5 of 2 in eu, and all 2 in us; January has 2 and a gift of 1.
    found = accounts(world)

    said = {key: (one.quantity, one.allowance) for key, one in found.items() if one.charge == "traffic"}
    eu, us = said["traffic", "eu"], said["traffic", "us"]
    assert eu[1] is not None
    assert us[1] is not None
    assert (eu[0], eu[1].quantity, eu[1].used, eu[1].left) == ("5", "4.5", "4.5", "0")
    assert (us[0], us[1].quantity, us[1].used, us[1].left) == ("0.5", "5", "0.5", "4.5")
    assert eu[1].parts == (
        Part(what="free", quantity="2"),
        Part(what="rolled over", quantity="1.5"),
        Part(what="by discount", quantity="1"),
    )


def test_tiers_without_a_price_are_included_and_the_others_stand_with_what_they_cost(world: UsageTables) -> None:
    calls = accounts(world)["calls", ""]

    assert calls.allowance is not None
    assert (calls.quantity, calls.allowance.quantity, calls.allowance.left) == ("5", "3", "0")
    assert [(one.from_, one.up_to, one.quantity, one.unit_amount, one.amount) for one in calls.tiers] == [
        ("0", "3", "3", "0", "0"),
        ("3", None, "2", "2", "4"),
    ]


def test_a_charge_that_includes_nothing_says_so_by_having_no_allowance(world: UsageTables) -> None:
    found = accounts(world)

    assert (found["fee", ""].allowance, found["packs", ""].allowance) == (None, None)


def test_the_amounts_are_those_of_the_running_bill_and_the_steps_lead_to_them(world: UsageTables) -> None:
    [found] = previewed(world.client, "acme", RollupReader(world.client), now=NOW)

    listed = {
        (one.charge, one.dimensions.get("region", "")): (one.quantity_so_far, one.amount_so_far)
        for one in found.bill.lines
    }
    told = {key: (one.quantity, one.amount) for key, one in accounts(world).items()}
    assert told == listed
    assert told["packs", ""] == ("5", "3.00")
    packs = accounts(world)["packs", ""]
    assert sum(int(one.amount) for one in packs.steps) == 3
