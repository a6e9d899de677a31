"""What the same real usage would have cost under other plans, beside what it costs today."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from billing_export import runs
from billing_export.line_store import read_lines
from billing_export.simulate import simulate
from billing_export.simulate_records import Simulation
from billing_export.usage_reader import RollupReader
from metering.catalog_file import read_plans
from schemas.errors import CatalogError, RequestError, RunError
from schemas.line_item import decode_line_item
from tests.support.made_billing import CATALOG, apply, at, close, closer, fold, store_world
from tests.support.made_usage import MadeEvent, UsageTables

NOW = datetime(2013, 2, 3, tzinfo=UTC)
FLAT = """
plans:
  - id: standard
    charges:
      - {id: fee, model: flat, amount: 40}
      - {id: calls, model: per_unit, meter: count, unit_amount: 2}
"""


def simulated(
    world: UsageTables,
    plans: str,
    folder: Path,
    *,
    replaced: dict[str, str] | None = None,
    customers: tuple[str, ...] = (),
    label: str = "2013-01",
) -> Simulation:
    file = folder / "new.yaml"
    file.write_text(plans)
    return simulate(
        world.client,
        RollupReader(world.client),
        label=label,
        plans=lambda catalog: read_plans(file, tuple(catalog.meters.values())),
        replaced=replaced,
        customers=customers,
        now=NOW,
    )


def shown(found: Simulation) -> list[tuple[str, str, str, str, str]]:
    return [(one.customer, one.present, one.simulated, one.difference, one.currency) for one in found.customers]


def test_an_open_period_is_billed_by_both_plans_as_it_is_now(world: UsageTables, tmp_path: Path) -> None:
    # acme pays 49.90 + 6.01 + 4111110.92 today, and would pay 40 + 4 * 2; bolt has another plan.
    found = simulated(world, FLAT, tmp_path)

    assert shown(found) == [("bolt", "37", "37", "0", "JPY"), ("acme", "4111166.83", "48.00", "-4111118.83", "USD")]
    assert [(one.currency, one.customers_count, one.difference) for one in found.totals] == [
        ("JPY", 1, "0"),
        ("USD", 1, "-4111118.83"),
    ]
    assert (found.runs, found.is_frozen, found.is_over, found.plans) == ((), False, True, {"standard": "standard"})


def test_a_customer_asked_for_is_shown_by_charge(world: UsageTables, tmp_path: Path) -> None:
    [acme] = simulated(world, FLAT, tmp_path, customers=("acme",)).customers

    assert [(one.what, one.present, one.simulated, one.difference) for one in acme.charges] == [
        ("fee", "49.90", "40.00", "-9.90"),
        ("calls", "6.01", "8.00", "1.99"),
        ("traffic", "4111110.92", "0.00", "-4111110.92"),
    ]


def test_a_closed_period_is_simulated_as_of_its_run_whatever_came_since(world: UsageTables, tmp_path: Path) -> None:
    close(world.client)
    fold(world, [MadeEvent(offset=10, time=at("2013-01-20T00:00"), value="5", region="us")])
    apply(world, CATALOG.replace("49.90", "59.90"))

    found = simulated(world, FLAT, tmp_path)

    assert shown(found)[1] == ("acme", "4111166.83", "48.00", "-4111118.83", "USD")
    assert (found.runs, found.is_frozen) == (("2013-01.1",), True)


def test_the_present_side_of_a_closed_period_is_what_was_frozen(world: UsageTables, tmp_path: Path) -> None:
    close(world.client)
    frozen: dict[str, Decimal] = {}
    for line in read_lines(world.client, runs.by_id(world.client, "2013-01.1")):
        item = decode_line_item(line.document)
        frozen[item.customer] = frozen.get(item.customer, Decimal(0)) + Decimal(item.amount)

    found = simulated(world, FLAT, tmp_path)

    assert {one.customer: Decimal(one.present) for one in found.customers} == frozen
    assert [one.difference for one in simulated(world, PRESENT, tmp_path).customers] == ["0", "0.00"]


PRESENT = "plans:" + CATALOG.split("plans:")[1].split("subscriptions:")[0]
"""The plans as they are."""


def test_what_was_closed_is_as_of_its_run_and_the_rest_as_of_now(world: UsageTables, tmp_path: Path) -> None:
    closer(world.client).close("2013-01", customers=("bolt",))

    found = simulated(world, FLAT, tmp_path)

    assert (found.runs, found.is_frozen, len(found.customers)) == (("2013-01.1",), False, 2)


def test_a_plan_of_another_name_stands_for_one_of_today_and_discounts_and_minimum_are_part_of_it(
    world: UsageTables, tmp_path: Path
) -> None:
    plans = """
plans:
  - id: new
    currency: JPY
    minimum: 100
    discounts: [{id: start, percent: 10}]
    charges: [{id: calls, model: per_unit, meter: count, unit_amount: 20}]
"""
    # Three calls cost 60; the minimum for 22 of 31 days is 71; ten percent off.
    found = simulated(world, plans, tmp_path, replaced={"yen": "new"}, customers=("bolt",))

    assert shown(found) == [("bolt", "37", "64", "27", "JPY")]
    assert [(one.what, one.simulated) for one in found.customers[0].charges if one.simulated != "0"] == [
        ("calls", "60"),
        ("discount start", "-7"),
        ("true up minimum", "11"),
    ]


def test_the_customers_who_would_pay_most_more_come_first(world: UsageTables, tmp_path: Path) -> None:
    store_world(
        world,
        [MadeEvent(offset=place, time=at("2013-01-10T00:00"), subject=f"s{place // 3}") for place in range(9)],
        """
meters: [{name: count, event_type: used, aggregation: count, group_by: {kind: kind, region: region}}]
customers: [{id: a, subjects: [s0]}, {id: b, subjects: [s1]}, {id: c, subjects: [s2]}, {id: none, subjects: [s9]}]
plans:
  - {id: small, charges: [{id: calls, model: per_unit, meter: count, unit_amount: 1}]}
  - {id: large, charges: [{id: calls, model: per_unit, meter: count, unit_amount: 5}]}
subscriptions:
  - {id: 1, customer: a, plan: small, start: 2013-01-01}
  - {id: 2, customer: b, plan: large, start: 2013-01-01}
  - {id: 3, customer: c, plan: small, start: 2013-01-01, changes: [{at: 2013-01-05, plan: large}]}
  - {id: 4, customer: none, plan: large, start: 2013-01-01}
""",
    )
    both = "plans: [{id: large, charges: [{id: calls, model: per_unit, meter: count, unit_amount: 2}]}]"

    assert shown(simulated(world, both, tmp_path, replaced={"small": "large"})) == [
        ("a", "3.00", "6.00", "3.00", "USD"),
        ("none", "0.00", "0.00", "0.00", "USD"),
        ("b", "15.00", "6.00", "-9.00", "USD"),
        ("c", "15.00", "6.00", "-9.00", "USD"),
    ]


def test_a_period_that_is_not_over_says_so(world: UsageTables, tmp_path: Path) -> None:
    found = simulated(world, FLAT, tmp_path, label="2013-02")

    # One call so far, and 1000 GB, beside the fee.
    assert shown(found) == [("acme", "383.91", "42.00", "-341.91", "USD")]
    assert not found.is_over


def test_nothing_is_written(world: UsageTables, tmp_path: Path) -> None:
    simulated(world, FLAT, tmp_path)

    assert runs.listed(world.client) == []
    assert world.client.query("SELECT count() FROM line_items").result_rows == [(0,)]


def test_a_file_with_anything_but_right_plans_is_refused_with_its_lines(world: UsageTables, tmp_path: Path) -> None:
    for text, words in (
        (FLAT.replace("meter: count", "meter: cuont"), "new.yaml:6: plans[0].charges[1].meter: found 'cuont'"),
        (FLAT + "meters: []\n", "new.yaml:7: meters: not read here, expected plans alone"),
        ("plans: []\n", "no plan"),
        ("", "new.yaml:1: empty, expected"),
        (FLAT.replace("amount: 40", "amount: lots"), "plans[0].charges[0].amount"),
    ):
        with pytest.raises(CatalogError) as caught:
            simulated(world, text, tmp_path)
        assert words in str(caught.value)


def test_what_cannot_stand_side_by_side_says_why(world: UsageTables, tmp_path: Path) -> None:
    misspelt = FLAT.replace("standard", "standart")
    for text, replaced, customers, words in (
        (misspelt, {}, (), "stands for no plan of today; there are standard, yen. Did you mean 'standard'?"),
        (FLAT, {"yan": "standard"}, (), "there is no plan 'yan'. Did you mean 'yen'?"),
        (FLAT, {"yen": "standart"}, (), "the file has no plan 'standart'. Did you mean 'standard'?"),
        (FLAT, {"yen": "standard"}, (), "plan 'standard' has no prices in JPY, in which customers pay (1: bolt)"),
        (FLAT + "    period: quarter\n", {}, (), "is billed by quarter, calendar, plan 'standard' by month, calendar"),
        (FLAT, {}, ("acne",), "there is no customer 'acne'. Did you mean 'acme'?"),
    ):
        with pytest.raises(RequestError) as caught:
            simulated(world, text, tmp_path, replaced=replaced, customers=customers)
        assert words in str(caught.value)
    with pytest.raises(RunError, match="it has not begun"):
        simulated(world, FLAT, tmp_path, label="2013-05")
    with pytest.raises(RunError, match="no subscription has any time in 2012-01"):
        simulated(world, FLAT, tmp_path, label="2012-01")
