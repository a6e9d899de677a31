"""Every mistake of a catalog file is named at once: file, line, path, what was found, what was expected."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from textwrap import dedent

import pytest

from metering.catalog_file import parse_catalog, read_catalog
from schemas.catalog import Catalog, Customer
from schemas.catalog_check import check_catalog
from schemas.charges import FlatCharge, GraduatedCharge, Tier
from schemas.errors import CatalogError
from schemas.plan import Plan
from schemas.subscription import Subscription

HEAD = """\
meters:
  - {name: flights, event_type: flight, aggregation: count, group_by: {origin: origin}}
customers:
  - {id: UA, subjects: [UA]}
  - {id: AA, subjects: [AA]}
"""


def mistakes(text: str) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(dedent(text), where="c.yaml")
    return caught.value.problems


def charge_mistakes(charge: str) -> list[str]:
    """What is wrong with one charge, which stands in line 8."""
    return mistakes(f"{HEAD}plans:\n  - id: standard\n    charges: [{charge}]\n")


def test_all_mistakes_of_all_sections_are_named_in_the_order_of_the_file() -> None:
    text = """\
    metres: []
    meters:
      - {name: miles, event_type: flight, aggregation: summ, value: distance}
      - {name: bytes, event_type: t, aggregation: sum, effective_from: 2013-01-01T00:00:01Z}
    customers:
      - {id: UA, subjects: [UA, AA], timezone: America/NewYork}
      - {id: AA, subjects: [AA], currency: XXY}
    plans:
      - id: standard
        charges:
          - {id: fee, model: flat, amount: -1.10}
          - {id: fee, model: per_unit, meter: mile, unit_amount: 1e-13}
    subscriptions:
      - {id: s1, customer: UA, plan: standard, start: 2013-02-30}
      - {id: s2, customer: UB, plan: standart, start: 2013-01-01, end: 2013-01-01}
    """
    amount = "an exact decimal amount in the plan's currency, at most 12 decimals"

    assert mistakes(text) == [
        (
            "c.yaml:1: metres: unknown key, expected one of event_types, meters, customers, plans, subscriptions, "
            "migrations, goals, qualified_leads, quotas, alerts, health; did you mean 'meters'?"
        ),
        (
            "c.yaml:3: meters[0].aggregation: found 'summ', expected one of count, sum, min, max, avg, latest, "
            "unique_count, time_weighted; did you mean 'sum'?"
        ),
        "c.yaml:4: meters[1].value: missing, expected the path inside data that sum reads, such as amount",
        (
            "c.yaml:4: meters[1].effective_from: found 2013-01-01T00:00:01+00:00, expected the start of a 15-minute "
            "window such as 2013-01-31T00:15:00Z"
        ),
        (
            "c.yaml:6: customers[0].timezone: found 'America/NewYork', expected an IANA zone such as America/New_York; "
            "did you mean 'America/New_York'?"
        ),
        (
            "c.yaml:7: customers[1].subjects[0]: subject 'AA' belongs to customer 'UA' already "
            "(customers[0].subjects[1]), expected one customer"
        ),
        "c.yaml:7: customers[1].currency: found 'XXY', expected a currency of ISO 4217 such as USD",
        "c.yaml:11: plans[0].charges[0].amount: found -1.10, expected 0 or more: a price is not negative",
        f"c.yaml:12: plans[0].charges[1].unit_amount: 1e-13 has more than 12 decimals, expected {amount}",
        "c.yaml:12: plans[0].charges[1].meter: found 'mile', expected a meter (bytes, miles); did you mean 'miles'?",
        "c.yaml:14: subscriptions[0].start: found '2013-02-30', expected a date such as 2013-01-31",
        "c.yaml:15: subscriptions[1].customer: found 'UB', expected a customer (AA, UA)",
        "c.yaml:15: subscriptions[1].plan: found 'standart', expected a plan (standard); did you mean 'standard'?",
        "c.yaml:15: subscriptions[1].end: found 2013-01-01, expected a day after start (2013-01-01): end is exclusive",
    ]


def test_a_price_keeps_the_digits_that_stand_in_the_file() -> None:
    catalog = parse_catalog(
        HEAD + "plans: [{id: p, charges: [{id: f, model: flat, amount: 1.10}, {id: g, model: flat, amount: 0.1e-5}]}]"
    )

    amounts = [charge.amount for charge in catalog.plans[0].charges if isinstance(charge, FlatCharge)]
    assert [str(amount) for amount in amounts] == ["1.10", "0.000001"]
    assert all(type(amount) is Decimal for amount in amounts)


def test_ids_are_texts_whatever_yaml_would_make_of_them() -> None:
    catalog = parse_catalog("customers: [{id: 007, subjects: [9E, 1.10, NO, 2013-01-01, 0x10]}]")

    assert (catalog.customers[0].id, catalog.customers[0].subjects) == (
        "007",
        ("9E", "1.10", "NO", "2013-01-01", "0x10"),
    )


def test_anchors_and_merged_keys_are_read_as_yaml_says() -> None:
    catalog = parse_catalog(
        """
        meters:
          - &base {name: a, event_type: t, aggregation: count}
          - {<<: *base, name: b}
        """
    )

    assert [(one.name, one.event_type) for one in catalog.meters] == [("a", "t"), ("b", "t")]


def test_a_json_file_is_a_catalog_too() -> None:
    assert parse_catalog('{"event_types": ["a"]}') == Catalog(event_types=("a",))


@pytest.mark.parametrize(
    ("tiers", "mistake"),
    [
        ("[]", "tiers: empty, expected at least one tier"),
        (
            "[{up_to: 10, unit_amount: 1}]",
            "tiers[0].up_to: found 10, expected null: usage above it would have no price",
        ),
        (
            "[{unit_amount: 1}, {up_to: null, unit_amount: 1}]",
            "tiers[0].up_to: open, expected a bound: only the last tier may be open",
        ),
        (
            "[{up_to: 10, unit_amount: 1}, {up_to: 5, unit_amount: 1}, {unit_amount: 1}]",
            "tiers[1].up_to: found 5, expected more than 10, the bound of the tier before: tiers go upwards",
        ),
        (
            "[{up_to: 0, unit_amount: 1}, {unit_amount: 1}]",
            "tiers[0].up_to: found 0, expected more than 0: tiers go upwards",
        ),
        (
            "[{from: 0, up_to: 10, unit_amount: 1}, {from: 12, unit_amount: 1}]",
            "tiers[1].from: found 12, which leaves a gap, expected 10",
        ),
        (
            "[{up_to: 10, unit_amount: 1}, {from: 9, unit_amount: 1}]",
            "tiers[1].from: found 9, which leaves an overlap, expected 10",
        ),
        (
            "[{up_to: 10, unit_amount: 1}, {unit_amount: -1, flat_amount: -2}]",
            "tiers[1].unit_amount: found -1, expected 0 or more: a price is not negative",
        ),
    ],
)
def test_tiers_that_leave_a_quantity_without_one_price_are_refused(tiers: str, mistake: str) -> None:
    found = charge_mistakes(f"{{id: g, model: graduated, meter: flights, tiers: {tiers}}}")

    assert found[0] == f"c.yaml:8: plans[0].charges[0].{mistake}"


def test_tiers_may_be_written_as_whole_numbers_that_follow_each_other() -> None:
    parse_catalog(
        HEAD + "plans: [{id: p, charges: [{id: g, model: graduated, meter: flights, "
        "tiers: [{from: 0, up_to: 10, unit_amount: 1}, {from: 11, up_to: 20, unit_amount: 1}, "
        "{from: 20, unit_amount: 1}]}]}]"
    )


MODELS = "flat, per_unit, graduated, volume, package, percentage, graduated_percentage, dynamic, matrix"


@pytest.mark.parametrize(
    ("charge", "mistake"),
    [
        ("{id: g, model: tiered}", f"model: found 'tiered', expected one of {MODELS}"),
        ("{id: g, model: graduatd}", f"model: found 'graduatd', expected one of {MODELS}; did you mean 'graduated'?"),
        ("{id: g, model: [flat]}", f"model: found a list, expected one of {MODELS}"),
        ("{id: g}", f"model: missing, expected one of {MODELS}"),
        ("flat", "found 'flat', expected a mapping with model and id"),
        (
            "{id: g, model: per_unit, meter: flights, unit_amount: 1, group_by: [orign]}",
            "group_by[0]: found 'orign', expected a dimension of meter 'flights' (origin); did you mean 'origin'?",
        ),
        (
            "{id: g, model: flat, amount: NaN}",
            ("amount: 'NaN' is not a decimal number such as 12 or 0.5, expected an exact decimal amount in the plan's "
            "currency, at most 12 decimals"),
        ),
        ("{id: g, model: flat, amount: 1, amount: 2}", "amount: stands twice in one mapping, expected once"),
    ],
)  # fmt: skip
def test_a_charge_that_cannot_be_priced_is_refused(charge: str, mistake: str) -> None:
    at = "plans[0].charges[0]" + (":" if mistake.startswith("found") else ".")

    assert charge_mistakes(charge) == [f"c.yaml:8: {at}{' ' if at.endswith(':') else ''}{mistake}"]


def test_a_broken_entry_is_reported_once_and_not_again_where_it_is_referred_to() -> None:
    text = """\
    meters:
      - {name: flights, event_type: flight, aggregation: cuont}
    customers:
      - {id: UA}
    plans:
      - {id: p, charges: [{id: g, model: per_unit, meter: flights, unit_amount: 1}]}
    subscriptions:
      - {id: s, customer: UA, plan: p, start: 2013-01-01}
    """

    assert [one.split(": ")[0] + ": " + one.split(": ")[1] for one in mistakes(text)] == [
        "c.yaml:2: meters[0].aggregation",
        "c.yaml:4: customers[0].subjects",
    ]


SUBSCRIBED = f"""\
{HEAD}plans:
  - {{id: p, charges: [{{id: f, model: flat, amount: 1}}]}}
  - {{id: q, charges: [{{id: f, model: flat, amount: 1}}]}}
  - {{id: r, charges: [{{id: h, model: flat, amount: 1}}]}}
subscriptions:
"""


def test_a_charge_is_not_billed_twice_at_a_time() -> None:
    subscriptions = (
        "  - {id: s1, customer: UA, plan: p, start: 2013-01-01, end: 2013-03-01}\n"
        "  - {id: s2, customer: UA, plan: p, start: 2013-02-28}\n"
        "  - {id: s3, customer: UA, plan: q, start: 2012-01-01, end: 2013-01-02}\n"
    )
    same = "at the same time (subscriptions[0]), expected spans that do not overlap"

    assert mistakes(SUBSCRIBED + subscriptions) == [
        f"c.yaml:12: subscriptions[1]: plan 'p' is charged to customer 'UA' by subscription 's1' {same}",
        f"c.yaml:13: subscriptions[2]: charge 'f' is charged to customer 'UA' by subscription 's1' {same}",
    ]


def test_subscriptions_that_follow_each_other_or_charge_other_things_are_fine() -> None:
    subscriptions = (
        "  - {id: s1, customer: UA, plan: p, start: 2013-01-01, end: 2013-03-01}\n"
        "  - {id: s2, customer: UA, plan: q, start: 2013-03-01}\n"
        "  - {id: s3, customer: UA, plan: r, start: 2013-01-01}\n"
        "  - {id: s4, customer: AA, plan: p, start: 2013-01-01}\n"
    )

    assert len(parse_catalog(SUBSCRIBED + subscriptions).subscriptions) == 4


def test_a_plan_in_another_currency_than_the_customers_is_refused() -> None:
    text = """\
    customers: [{id: UA, subjects: [UA], currency: EUR}]
    plans: [{id: p, currency: USD, charges: [{id: f, model: flat, amount: 1}]}]
    subscriptions: [{id: s, customer: UA, plan: p, start: 2013-01-01}]
    """

    assert mistakes(text) == [
        (
            "c.yaml:3: subscriptions[0].plan: plan 'p' version 1 has prices in USD, expected EUR, the currency of "
            "customer 'UA'"
        )
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "1: empty, expected meters, customers, plans and subscriptions"),
        (
            "- a",
            (
                "1: catalog: found a list, expected a mapping with event_types, meters, customers, plans, "
                "subscriptions, migrations, goals, qualified_leads, quotas, alerts, health"
            ),
        ),
        (
            "meters:\n\t- a",
            "2: while scanning for the next token found character that cannot start any token, expected YAML",
        ),
        (
            "meters: []\n---\nmeters: []",
            "2: found a second document, expected one",
        ),
        ("meters:", "1: meters: empty, expected a list"),
        (
            "plans: [!secret x]",
            "1: plans[0]: found 'x' tagged !secret, expected a mapping with id, charges",
        ),
    ],
)
def test_a_text_that_is_no_catalog_is_refused_in_one_line(text: str, mistake: str) -> None:
    assert mistakes(text) == [f"c.yaml:{mistake}"]


def test_a_list_that_contains_itself_ends() -> None:
    assert len(mistakes("meters: &a [*a]")) == 1


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot be read: No such file"):
        read_catalog(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"meters: \xff")
    with pytest.raises(CatalogError, match="byte 8 is not UTF-8"):
        read_catalog(tmp_path / "latin.yaml")


def test_a_catalog_built_in_code_is_checked_by_the_same_rules() -> None:
    bounded = Tier(up_to=Decimal(1), unit_amount=Decimal(1))
    catalog = Catalog(
        customers=(Customer(id="UA", subjects=("UA", "UA"), timezone="Mars"),),
        plans=(
            Plan(id="p", charges=(GraduatedCharge(id="g", meter="m", tiers=(bounded,)),)),
        ),
        subscriptions=(Subscription(id="s", customer="UB", plan="p", start=date(2013, 1, 1)),),
    )  # fmt: skip

    with pytest.raises(CatalogError) as caught:
        check_catalog(catalog)
    assert [one.split(":")[0] for one in caught.value.problems] == [
        "plans[0].charges[0].meter",
        "subscriptions[0].customer",
        "customers[0].timezone",
        "plans[0].charges[0].tiers[0].up_to",
        "customers[0].subjects[1]",
    ]
