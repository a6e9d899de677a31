"""A charge that cannot be priced, or that says something without a meaning, is refused where it stands."""

# ruff: noqa: E501 - what is said about a mistake is easier to read whole

from __future__ import annotations

import pytest

from metering.catalog_file import parse_catalog
from schemas.catalog_check import check_catalog
from schemas.errors import CatalogError

METERS = """\
meters:
  - {name: calls, event_type: call, aggregation: count, group_by: {region: region, tier: tier}}
  - {name: money, event_type: call, aggregation: sum, value: amount, group_by: {region: region}}
  - {name: top, event_type: call, aggregation: max, value: amount}
  - {name: seats, event_type: seat, aggregation: time_weighted, value: change, time_unit: day}
"""


def mistakes(charge: str) -> list[str]:
    """What is wrong with one charge, without the place of the charge."""
    with pytest.raises(CatalogError) as caught:
        parse_catalog(f"{METERS}plans:\n- {{id: p, charges: [{charge}]}}\n", where="c.yaml")
    at = "c.yaml:7: plans[0].charges[0]"
    assert [one for one in caught.value.problems if not one.startswith(at)] == []
    return [one.removeprefix(at).removeprefix(".").removeprefix(": ") for one in caught.value.problems]


NOT_NEGATIVE = "expected 0 or more: a price is not negative"
PER_UNIT = "id: c, model: per_unit, meter: calls, unit_amount: 1"
DYNAMIC = "id: c, model: dynamic, meter: calls, amount_meter: money"
BY_EVENT = "id: c, model: percentage, meter: money, rate: 1, free_events: 3"
EACH_EVENT = "each event has its own price; see free_events and free_amount"
NO_STEPS = "expected none: without tiers, packages or a commitment it changes nothing"


@pytest.mark.parametrize(
    ("charge", "expected"),
    [
        ("id: c, model: flat, amount: -1", [f"amount: found -1, {NOT_NEGATIVE}"]),
        ("id: c, model: per_unit, meter: calls, unit_amount: -1", [f"unit_amount: found -1, {NOT_NEGATIVE}"]),
        (
            "id: c, model: package, meter: calls, package_size: 0, package_amount: -2",
            ["package_size: found 0, expected more than 0", f"package_amount: found -2, {NOT_NEGATIVE}"],
        ),
        (
            "id: c, model: percentage, meter: money, rate: -1, fixed_amount: -1, free_amount: -1",
            [f"{name}: found -1, {NOT_NEGATIVE}" for name in ("rate", "fixed_amount", "free_amount")],
        ),
        (
            "id: c, model: percentage, meter: money, rate: 1, event_min: 3, event_max: 2",
            ["event_max: found 2, expected at least event_min, 3"],
        ),
        (
            "id: c, model: graduated_percentage, meter: money, tiers: [{up_to: 5, rate: -1}, {rate: 1}]",
            [f"tiers[0].rate: found -1, {NOT_NEGATIVE}"],
        ),
        (
            "id: c, model: graduated_percentage, meter: money, tiers: [{up_to: 5, rate: 1}]",
            ["tiers[0].up_to: found 5, expected null: usage above it would have no price"],
        ),
        (
            "id: c, model: volume, meter: calls, tiers: [{up_to: 5, unit_amount: 1}]",
            ["tiers[0].up_to: found 5, expected null: usage above it would have no price"],
        ),
        (
            "id: c, model: volume, meter: calls, tiers: [{up_to: 5}, {from: 7}]",
            ["tiers[1].from: found 7, which leaves a gap, expected 5"],
        ),
        (f"{DYNAMIC}, amount_factor: 0", ["amount_factor: found 0, expected more than 0"]),
        (
            f"{PER_UNIT}, minimum: 5, maximum: 4, free_quantity: -1",
            ["maximum: found 4, expected at least the minimum, 5", f"free_quantity: found -1, {NOT_NEGATIVE}"],
        ),
        (
            f"{PER_UNIT}, rounding: {{mode: ceil, digits: 13}}",
            ["rounding.digits: found 13, expected -18 (whole numbers) to 12 (decimals)"],
        ),
        (f"{PER_UNIT}, rounding: {{mode: up}}", ["rounding.mode: found 'up', expected one of round, ceil, floor"]),
        (
            f"{PER_UNIT}, rollover: {{expires_after_periods: 1}}",
            ["rollover: found one without free_quantity, expected units that can remain"],
        ),
        (
            f"{PER_UNIT}, free_quantity: 5, rollover: {{expires_after_periods: 37, quantity_max: 1}}",
            ["rollover.expires_after_periods: found '37', expected a whole number, 1 to 36"],
        ),
        (
            f"{PER_UNIT}, free_quantity: 5, rollover: {{quantity_max: 0}}",
            ["rollover.quantity_max: found 0, expected more than 0"],
        ),
        (
            f"{PER_UNIT}, commitment: {{true_up: true}}",
            ["commitment: found none of them, expected exactly one of quantity, amount"],
        ),
        (
            f"{PER_UNIT}, commitment: {{quantity: 5, amount: 0, overage_factor: -1}}",
            [
                "commitment: found quantity and amount, expected exactly one of quantity, amount",
                "commitment.amount: found 0, expected more than 0",
                f"commitment.overage_factor: found -1, {NOT_NEGATIVE}",
            ],
        ),
        (
            f"{PER_UNIT}, commitment: {{amount: 5, true_up: maybe}}",
            ["commitment.true_up: found 'maybe', expected true or false"],
        ),
        (f"{PER_UNIT}, bucket: hour", [f"bucket: found hour, {NO_STEPS}"]),
        (f"{DYNAMIC}, bucket: day", [f"bucket: found day, {NO_STEPS}"]),
        (
            f"{PER_UNIT}, time_unit: hour",
            ["time_unit: found hour, expected none: meter 'calls' is a count, not time_weighted"],
        ),
        (
            "id: c, model: per_unit, meter: seats, unit_amount: 1, time_unit: hour",
            [
                (
                    "time_unit: found hour, expected proration second or day with it: without it the highest balance of "
                    "the period is charged"
                )
            ],
        ),
        (
            "id: c, model: graduated, meter: seats, tiers: [{unit_amount: 1}], bucket: hour",
            ["bucket: found hour, expected none: meter 'seats' is a balance, which is the same stock from hour to hour"],
        ),
        (f"{PER_UNIT}, group_by: [region, region]", ["group_by[1]: 'region' stands twice, expected once"]),
        (
            "id: c, model: percentage, meter: calls, rate: 1",
            ["meter: found 'calls', a count, expected a sum meter: it is read as an amount"],
        ),
        (
            "id: c, model: graduated_percentage, meter: top, tiers: [{rate: 1}]",
            ["meter: found 'top', a max, expected a sum meter: it is read as an amount"],
        ),
        (
            "id: c, model: dynamic, meter: calls, amount_meter: top",
            ["amount_meter: found 'top', a max, expected a sum meter: it is read as an amount"],
        ),
        (
            "id: c, model: dynamic, meter: calls, amount_meter: mony",
            ["amount_meter: found 'mony', expected a meter (calls, money, seats, top); did you mean 'money'?"],
        ),
        (
            f"{DYNAMIC}, group_by: [region, tier]",
            ["amount_meter: meter 'money' has no dimension 'tier', expected those of group_by"],
        ),
        (
            f"{BY_EVENT}, free_quantity: 1, commitment: {{quantity: 1}}, discounts: [{{id: d, quantity: 1}}]",
            [
                f"commitment.quantity: found 1, expected none: {EACH_EVENT}",
                f"free_quantity: found 1, expected none: {EACH_EVENT}",
                f"discounts[0].quantity: found 1, expected none: {EACH_EVENT}",
            ],
        ),
        (
            (f"{PER_UNIT}, discounts: [{{id: d}}, {{id: e, percent: 100.1}}, {{id: f, amount: 0}}, "
            "{id: f, percent: 1, periods: 0}]"),
            [
                "discounts[0]: found none of them, expected exactly one of percent, amount, quantity",
                "discounts[1].percent: found 100.1, expected more than 0 and at most 100",
                "discounts[2].amount: found 0, expected more than 0",
                "discounts[3].id: 'f' stands twice, first at plans[0].charges[0].discounts[2], expected once",
                "discounts[3].periods: found 0, expected more than 0",
            ],
        ),
        (
            f"{PER_UNIT}, discounts: [{{id: d, percent: 1, quantity: 2, charge: c, start: 1969-12-31}}]",
            [
                "discounts[0]: found percent and quantity, expected exactly one of percent, amount, quantity",
                "discounts[0].charge: found 'c', expected none: a discount in a charge is for that charge",
                "discounts[0].start: found 1969-12-31, expected a day of the years 1970 to 2099",
            ],
        ),
        (
            "id: c, model: flat, amount: 1, discounts: [{id: d, quantity: 2}]",
            ["discounts[0].quantity: found 2, expected percent or amount: a flat charge has no units"],
        ),
    ],
)  # fmt: skip
def test_a_charge_without_a_meaning_is_refused(charge: str, expected: list[str]) -> None:
    assert sorted(mistakes(f"{{{charge}}}")) == sorted(expected)


MATRIX = "id: c, model: matrix, meter: calls, otherwise: {unit_amount: 1}"


@pytest.mark.parametrize(
    ("charge", "expected"),
    [
        (
            f"{MATRIX}, prices: []",
            ["group_by: empty, expected the dimensions whose values have prices"],
        ),
        (
            f"{MATRIX}, group_by: [region], prices: [{{values: {{tier: gold}}, unit_amount: 1}}, {{unit_amount: 1}}]",
            [
                "prices[0].values.tier: found 'tier', expected a dimension in group_by (region)",
                "prices[1].values: empty, expected a value of at least one dimension in group_by",
            ],
        ),
        (
            (f"{MATRIX}, group_by: [region], prices: [{{values: {{region: eu}}}}, "
            "{values: {region: us}, unit_amount: 1, tiers: [{unit_amount: 1}]}]"),
            [
                "prices[0]: found none of them, expected exactly one of unit_amount, tiers",
                "prices[1]: found unit_amount and tiers, expected exactly one of unit_amount, tiers",
            ],
        ),
        (
            (f"{MATRIX}, group_by: [region], prices: [{{values: {{region: eu}}, unit_amount: -1}}, "
            "{values: {region: us}, tiers: [{up_to: 2}]}]"),
            [
                f"prices[0].unit_amount: found -1, {NOT_NEGATIVE}",
                "prices[1].tiers[0].up_to: found 2, expected null: usage above it would have no price",
            ],
        ),
        (
            (f"{MATRIX}, group_by: [region, tier], prices: [{{values: {{region: eu}}, unit_amount: 1}}, "
            "{values: {tier: a, region: eu}, unit_amount: 1}, {values: {tier: a}, unit_amount: 1}]"),
            [
                (
                    "prices[1].values: never reached, because plans[0].charges[0].prices[0] matches first; expected "
                    "the narrower price before it"
                ),
            ],
        ),
        (
            ("id: c, model: matrix, meter: calls, group_by: [region], prices: [], "
            "otherwise: {values: {region: eu}, unit_amount: 1}"),
            ["otherwise.values: found values, expected none: it is for what no other price names"],
        ),
    ],
)  # fmt: skip
def test_a_matrix_that_leaves_a_value_without_one_price_is_refused(charge: str, expected: list[str]) -> None:
    assert sorted(mistakes(f"{{{charge}}}")) == sorted(expected)


GOOD = """\
- {id: flat, model: flat, amount: 9.90, timing: advance, proration: day, tax_code: txcd_10000000}
- {id: seats, model: per_unit, meter: calls, unit_amount: 1, free_quantity: 3, minimum: 1, maximum: 5,
   proration: second, rounding: {mode: ceil, digits: -2}, rollover: {expires_after_periods: 2, quantity_max: 10},
   commitment: {quantity: 10, overage_factor: 1.5, true_up: true}, bucket: hour,
   discounts: [{id: a, percent: 10, periods: 3}, {id: b, amount: 1.5}, {id: c, quantity: 5, start: 2013-01-01}]}
- {id: stock, model: per_unit, meter: seats, unit_amount: 2, time_unit: period, proration: second}
- {id: peak, model: per_unit, meter: seats, unit_amount: 2, time_unit: period}
- {id: graduated, model: graduated, meter: calls, tiers: [{up_to: 10, unit_amount: 1}, {}], flat_amount_at_zero: true}
- {id: volume, model: volume, meter: calls, tiers: [{up_to: 0.5, flat_amount: 1}, {unit_amount: 2}], bucket: day}
- {id: package, model: package, meter: calls, package_size: 100, package_amount: 2.5, bucket: day}
- {id: percentage, model: percentage, meter: money, rate: 1.2, fixed_amount: 0.3, free_events: 3, free_amount: 500,
   event_min: 0.5, event_max: 10}
- {id: steps, model: graduated_percentage, meter: money, tiers: [{up_to: 10, rate: 3, flat_amount: 1}, {rate: 0}]}
- {id: dynamic, model: dynamic, meter: calls, amount_meter: money, amount_factor: 0.01, group_by: [region],
   free_quantity: 2}
- {id: matrix, model: matrix, meter: calls, group_by: [region, tier],
   prices: [{values: {region: eu, tier: a}, unit_amount: 2}, {values: {region: eu}, tiers: [{unit_amount: 1}]}],
   otherwise: {unit_amount: 3}}
"""


def test_every_model_is_read_with_all_it_can_have() -> None:
    charges = "".join(f"    {line}\n" for line in GOOD.splitlines())
    catalog = parse_catalog(f"{METERS}plans:\n- id: p\n  charges:\n{charges}")

    check_catalog(catalog)
    assert [str(one.__struct_config__.tag) for one in catalog.plans[0].charges] == [
        "flat", "per_unit", "per_unit", "per_unit", "graduated", "volume", "package", "percentage", "graduated_percentage",
        "dynamic", "matrix",
    ]  # fmt: skip


def test_a_time_unit_is_for_a_meter_that_has_a_balance() -> None:
    with pytest.raises(CatalogError) as caught:
        parse_catalog("meters: [{name: m, event_type: t, aggregation: sum, value: v, time_unit: day}]", where="c.yaml")

    assert caught.value.problems == [
        "c.yaml:1: meters[0].time_unit: found day, expected none: only a time_weighted meter has a balance over time"
    ]
