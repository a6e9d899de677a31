"""Plans, versions, migrations, subscriptions and grants that contradict themselves or each other are refused."""

# ruff: noqa: E501 - what is said about a mistake is easier to read whole

from __future__ import annotations

import pytest

from metering.catalog_file import parse_catalog
from schemas.errors import CatalogError

HEAD = """\
meters: [{name: calls, event_type: call, aggregation: count}]
customers:
- {id: acme, subjects: [acme]}
- {id: euro, subjects: [euro], currency: EUR}
"""
PLANS = """\
plans:
- {id: basic, charges: [{id: fee, model: flat, amount: 1}, {id: use, model: per_unit, meter: calls, unit_amount: 1}]}
- {id: basic, version: 2, effective_from: 2013-03-01, charges: [{id: fee, model: flat, amount: 2}]}
- {id: pro, charges: [{id: fee, model: flat, amount: 3}], prices: {EUR: {charges: [{id: fee, model: flat, amount: 4}]}}}
- {id: yearly, period: year, charges: [{id: fee, model: flat, amount: 30}]}
- {id: addon, charges: [{id: extra, model: flat, amount: 1}], discounts: [{id: promo, percent: 1}]}
- {id: later, effective_from: 2013-06-01, charges: [{id: fee, model: flat, amount: 1}]}
"""


def mistakes(text: str, first_line: int) -> list[str]:
    """What is wrong with a section, without the name of the file and the line, which must lie in the section."""
    with pytest.raises(CatalogError) as caught:
        parse_catalog(text, where="c.yaml")
    found = [one.split(":", 2) for one in caught.value.problems]
    assert all(int(line) >= first_line for _, line, _ in found)
    return [what.strip() for _, _, what in found]


def plan_mistakes(*plans: str) -> list[str]:
    listed = "".join(f"- {{{one}}}\n" for one in plans)
    return mistakes(f"{HEAD}plans:\n{listed}", 6)


def life_mistakes(section: str, *entries: str) -> list[str]:
    listed = "".join(f"- {{{one}}}\n" for one in entries)
    return mistakes(f"{HEAD}{PLANS}{section}:\n{listed}", 13)


FEE = "charges: [{id: fee, model: flat, amount: 1}]"
USE = "{id: use, model: per_unit, meter: calls, unit_amount: 1}"


@pytest.mark.parametrize(
    ("plans", "expected"),
    [
        (["id: p, charges: []"], ["plans[0].charges: empty, expected at least one charge"]),
        (
            [f"id: p, period: fortnight, {FEE}"],
            ["plans[0].period: found 'fortnight', expected one of week, month, quarter, year, days"],
        ),
        (
            [f"id: p, period: days, {FEE}"],
            ["plans[0].period_days: missing, expected the number of days of a period"],
        ),
        (
            [f"id: p, period_days: 30, {FEE}"],
            ["plans[0].period_days: found 30, expected none: it belongs to period days, and this is month"],
        ),
        (
            [f"id: p, period: days, period_days: 0, {FEE}"],
            ["plans[0].period_days: found '0', expected a whole number, 1 to 3660"],
        ),
        (
            [f"id: p, minimum: -1, commitment: {{quantity: 1}}, {FEE}"],
            [
                "plans[0].minimum: found -1, expected 0 or more: a price is not negative",
                "plans[0].commitment.quantity: found 1, expected amount: the charges of a plan have no common unit",
            ],
        ),
        (
            [f"id: p, discounts: [{{id: d, quantity: 1}}, {{id: e, percent: 1, charge: fee}}], {FEE}"],
            [
                (
                    "plans[0].discounts[0].quantity: found 1, expected percent or amount: the charges of a plan have no "
                    "common unit"
                ),
                (
                    "plans[0].discounts[1].charge: found 'fee', expected none: a plan's discount is for all its charges; "
                    "write it into the charge"
                ),
            ],
        ),
        (
            [
                ("id: p, discounts: [{id: d, percent: 1}], charges: [{id: fee, model: flat, amount: 1, "
                "discounts: [{id: d, percent: 2}]}]")
            ],
            [
                (
                    "plans[0].charges[0].discounts[0].id: discount 'd' stands in the plan already, expected another id: "
                    "both meet on one bill"
                )
            ],
        ),
        (
            [f"id: p, version: 0, {FEE}"],
            ["plans[0].version: found '0', expected a whole number of 1 or more"],
        ),
        (
            [f"id: p, {FEE}", f"id: p, effective_from: 2013-01-01, {FEE}"],
            ["plans[1].version: version 1 of plan 'p' stands twice, first at plans[0], expected another version"],
        ),
        (
            [f"id: p, version: 2, {FEE}", f"id: p, {FEE}"],
            ["plans[0].effective_from: missing, expected the day from which version 2 of plan 'p' is sold"],
        ),
        (
            [
                f"id: p, version: 1, effective_from: 2013-02-01, {FEE}",
                f"id: p, version: 2, effective_from: 2013-02-01, {FEE}",
            ],
            [
                (
                    "plans[1].effective_from: found 2013-02-01, expected the day from which version 2 of plan 'p' is "
                    "sold after 2013-02-01, where version 1 does"
                )
            ],
        ),
        (
            [f"id: p, currency: XXY, prices: {{USD: {{{FEE}}}, XYZ: {{{FEE}}}, dollar: {{{FEE}}}}}, {FEE}"],
            [
                (
                    "plans[0].prices.dollar: found 'dollar', expected three capital letters of ISO 4217, such as USD"
                ),
            ],
        ),
        (
            [f"id: p, currency: XXY, prices: {{XYZ: {{{FEE}}}}}, {FEE}"],
            [
                "plans[0].currency: found 'XXY', expected a currency of ISO 4217 such as USD",
                "plans[0].prices.XYZ: found 'XYZ', expected a currency of ISO 4217 such as USD",
            ],
        ),
        (
            [f"id: p, prices: {{USD: {{{FEE}}}}}, {FEE}"],
            [
                (
                    "plans[0].prices.USD: found a price list in USD, expected other currencies: the plan itself is in it"
                )
            ],
        ),
        (
            [f"id: p, charges: [{USE}], prices: {{EUR: {{{FEE}}}}}"],
            [
                (
                    "plans[0].prices.EUR.charges: without 'use', expected every charge of plan 'p'"
                ),
                "plans[0].prices.EUR.charges[0].id: found 'fee', expected a charge of plan 'p' (use)",
            ],
        ),
        (
            [f"id: p, charges: [{USE}], prices: {{EUR: {{charges: [{{id: use, model: flat, amount: 1}}]}}}}"],
            [
                (
                    "plans[0].prices.EUR.charges[0]: charge 'use' differs from the plan's in more than prices, expected "
                    "the same model, meter, dimensions, bucket and time unit"
                )
            ],
        ),
        (
            [f"id: p, prices: {{EUR: {{charges: [{{id: fee, model: flat, amount: -1}}]}}}}, {FEE}"],
            ["plans[0].prices.EUR.charges[0].amount: found -1, expected 0 or more: a price is not negative"],
        ),
    ],
)  # fmt: skip
def test_a_plan_that_contradicts_itself_is_refused(plans: list[str], expected: list[str]) -> None:
    assert sorted(plan_mistakes(*plans)) == sorted(expected)


BASIC = "id: s, customer: acme, plan: basic, start: 2013-01-01"


@pytest.mark.parametrize(
    ("subscription", "expected"),
    [
        (
            f"{BASIC}, end: 2013-01-01",
            ["subscriptions[0].end: found 2013-01-01, expected a day after start (2013-01-01): end is exclusive"],
        ),
        (
            "id: s, customer: acme, plan: basic, start: 1969-12-31",
            ["subscriptions[0].start: found 1969-12-31, expected a day of the years 1970 to 2099"],
        ),
        (f"{BASIC}, version: 3", ["subscriptions[0].version: found 3, expected a version of plan 'basic' (1, 2)"]),
        (
            "id: s, customer: acme, plan: later, start: 2013-05-31",
            [
                (
                    "subscriptions[0].plan: plan 'later' has no version in effect on 2013-05-31, expected a day from "
                    "2013-06-01 on"
                )
            ],
        ),
        (
            f"{BASIC}, currency: EUR",
            ["subscriptions[0].plan: plan 'basic' version 1 has prices in USD, expected EUR, its currency"],
        ),
        (f"{BASIC}, currency: eur", ["subscriptions[0].currency: found 'eur', expected three capital letters of ISO 4217, such as USD"]),
        (
            "id: s, customer: euro, plan: pro, start: 2013-01-01, changes: [{at: 2013-02-01, plan: basic}]",
            [
                (
                    "subscriptions[0].changes[0].plan: plan 'basic' version 1 has prices in USD, expected EUR, the "
                    "currency of customer 'euro'"
                )
            ],
        ),
        (
            f"{BASIC}, changes: [{{at: 2013-02-01, plan: yearly}}]",
            [
                (
                    "subscriptions[0].changes[0].plan: plan 'yearly' is billed by year, calendar, expected month, "
                    "calendar as before: end this subscription and begin another for other periods"
                )
            ],
        ),
        (
            f"{BASIC}, changes: [{{at: 2013-02-01, plan: prooo}}, {{at: 2013-03-01, plan: pro, version: 9}}]",
            [
                (
                    "subscriptions[0].changes[0].plan: found 'prooo', expected a plan (addon, basic, later, pro, "
                    "yearly); did you mean 'pro'?"
                )
            ],
        ),
        (
            f"{BASIC}, changes: [{{at: 2013-03-01, plan: pro, version: 9}}]",
            ["subscriptions[0].changes[0].version: found 9, expected a version of plan 'pro' (1)"],
        ),
        (
            (f"{BASIC}, end: 2013-04-01, changes: [{{at: 2013-01-01, plan: pro}}, {{at: 2013-03-01, plan: basic}}, "
            "{at: 2013-02-01, plan: pro}, {at: 2013-04-01, plan: basic}]"),
            [
                (
                    "subscriptions[0].changes[0].at: found 2013-01-01, expected a day after 2013-01-01: changes stand in "
                    "the order of their days"
                ),
                (
                    "subscriptions[0].changes[2].at: found 2013-02-01, expected a day after 2013-03-01: changes stand in "
                    "the order of their days"
                ),
                (
                    "subscriptions[0].changes[3].at: found 2013-04-01, expected a day after 2013-03-01 and before its "
                    "end (2013-04-01): changes stand in the order of their days"
                ),
            ],
        ),
        (
            (f"{BASIC}, end: 2013-04-01, pauses: [{{start: 2013-02-01}}, {{start: 2013-02-10, end: 2013-02-20}}, "
            "{start: 2012-12-31, end: 2013-01-02}, {start: 2013-04-01}, {start: 2013-01-05, end: 2013-01-05}]"),
            [
                (
                    "subscriptions[0].pauses[1].start: found 2013-02-10, within the pause before it, expected pauses "
                    "that do not overlap"
                ),
                (
                    "subscriptions[0].pauses[2].start: found 2012-12-31, expected a day on which the subscription runs "
                    "(2013-01-01 to 2013-04-01)"
                ),
                (
                    "subscriptions[0].pauses[3].start: found 2013-04-01, expected a day on which the subscription runs "
                    "(2013-01-01 to 2013-04-01)"
                ),
                (
                    "subscriptions[0].pauses[4].end: found 2013-01-05, expected a day after start (2013-01-05): end is "
                    "exclusive"
                ),
            ],
        ),
        (
            f"{BASIC}, overrides: [{{id: fees, model: flat, amount: 1}}, {{id: use, model: flat, amount: -1}}]",
            [
                (
                    "subscriptions[0].overrides[0].id: found 'fees', expected a charge of its plans (fee, use); did you "
                    "mean 'fee'?"
                ),
                "subscriptions[0].overrides[1].amount: found -1, expected 0 or more: a price is not negative",
            ],
        ),
        (
            f"{BASIC}, overrides: [{{id: fee, model: flat, amount: 1}}, {{id: fee, model: flat, amount: 2}}]",
            [
                (
                    "subscriptions[0].overrides[1].id: 'fee' stands twice, first at subscriptions[0].overrides[0], "
                    "expected once"
                )
            ],
        ),
        (
            (f"{BASIC}, discounts: [{{id: a, quantity: 1}}, {{id: b, quantity: 1, charge: fee}}, "
            "{id: c, percent: 1, charge: fees}, {id: d, quantity: 1, charge: use}]"),
            [
                "subscriptions[0].discounts[0].charge: missing, expected the metered charge whose units are free",
                (
                    "subscriptions[0].discounts[1].quantity: found 1, expected percent or amount for charge 'fee': a "
                    "flat charge has no units"
                ),
                (
                    "subscriptions[0].discounts[2].charge: found 'fees', expected a charge of its plans (fee, use); did "
                    "you mean 'fee'?"
                ),
            ],
        ),
        (
            "id: s, customer: acme, plan: addon, start: 2013-01-01, discounts: [{id: promo, percent: 1}]",
            [
                (
                    "subscriptions[0].discounts[0].id: found 'promo', which plan 'addon' has, expected another id: both "
                    "meet on one bill"
                )
            ],
        ),
    ],
)  # fmt: skip
def test_a_subscription_that_cannot_be_lived_is_refused(subscription: str, expected: list[str]) -> None:
    found = life_mistakes("subscriptions", subscription)

    assert sorted(found) == sorted(expected)


MOVE = "plan: basic, from_version: 1, to_version: 2, at: 2013-05-01"
TWICE = "moves customers from version 1 on 2013-05-01 whom migrations[0] moves too, expected one migration for each"


@pytest.mark.parametrize(
    ("migrations", "expected"),
    [
        (
            ["plan: basic, from_version: 3, to_version: 4, at: 2013-05-01"],
            [
                "migrations[0].from_version: found 3, expected a version of plan 'basic' (1, 2)",
                "migrations[0].to_version: found 4, expected a version of plan 'basic' (1, 2)",
            ],
        ),
        (
            ["plan: basic, from_version: 1, to_version: 1, at: 2013-05-01"],
            ["migrations[0].to_version: found 1 twice, expected another version"],
        ),
        (
            ["plan: basics, from_version: 1, to_version: 2, at: 2013-05-01, customers: [acme, acme, acne]"],
            [
                (
                    "migrations[0].plan: found 'basics', expected a plan (addon, basic, later, pro, yearly); did you "
                    "mean 'basic'?"
                ),
                "migrations[0].customers[1]: 'acme' stands twice, expected once",
                "migrations[0].customers[2]: found 'acne', expected a customer (acme, euro); did you mean 'acme'?",
            ],
        ),
        ([MOVE, MOVE], [f"migrations[1]: {TWICE}"]),
        ([f"{MOVE}, customers: [acme]", MOVE], [f"migrations[1]: {TWICE}"]),
        ([MOVE, f"{MOVE}, customers: [acme]"], [f"migrations[1]: {TWICE}"]),
        ([f"{MOVE}, customers: [acme, euro]", f"{MOVE}, customers: [euro]"], [f"migrations[1]: {TWICE}"]),
    ],
)
def test_a_migration_to_nowhere_or_twice_is_refused(migrations: list[str], expected: list[str]) -> None:
    assert sorted(life_mistakes("migrations", *migrations)) == sorted(expected)


def test_a_migration_keeps_the_periods() -> None:
    text = (
        f"{HEAD}plans:\n- {{id: p, {FEE}}}\n- {{id: p, version: 2, effective_from: 2013-01-01, anchor: anniversary, {FEE}}}\n"
        "migrations: [{plan: p, from_version: 1, to_version: 2, at: 2013-05-01}]\n"
    )

    assert mistakes(text, 8) == [
        (
            "migrations[0].to_version: version 2 is billed by month, anniversary, expected month, calendar as version 1: "
            "periods stay"
        )
    ]


def test_a_migration_into_other_currencies_is_refused_at_the_subscription_it_concerns() -> None:
    text = (
        f"{HEAD}plans:\n- {{id: p, currency: EUR, {FEE}}}\n- {{id: p, version: 2, effective_from: 2013-03-01, {FEE}}}\n"
        "migrations: [{plan: p, from_version: 1, to_version: 2, at: 2013-05-01}]\n"
        "subscriptions: [{id: s, customer: euro, plan: p, start: 2013-01-01}]\n"
    )

    assert mistakes(text, 9) == [
        (
            "subscriptions[0].plan: plan 'p' version 2 has prices in USD, expected EUR, the currency of customer 'euro' (it "
            "is migrated on 2013-05-01)"
        )
    ]


def customer_mistakes(more: str) -> list[str]:
    plans = PLANS.replace(USE, "")
    return mistakes(f"{plans}customers:\n- {{id: a, subjects: [a], {more}}}\n", 9)


@pytest.mark.parametrize(
    ("customer", "expected"),
    [
        (
            "credits: [{id: g, amount: 0, currency: XXY, start: 2013-02-01, expires: 2013-02-01, charges: [fees]}]",
            [
                "credits[0].amount: found 0, expected more than 0",
                "credits[0].currency: found 'XXY', expected a currency of ISO 4217 such as USD",
                "credits[0].expires: found 2013-02-01, expected a day after start (2013-02-01)",
                "credits[0].charges[0]: found 'fees', expected a charge of any plan (extra, fee); did you mean 'fee'?",
            ],
        ),
        (
            "credits: [{id: g, amount: 1, currency: USD, start: 2013-02-01, priority: -1}]",
            ["credits[0].priority: found '-1', expected a whole number, 0 to 1000"],
        ),
        (
            "discounts: [{id: d, quantity: 1}, {id: e, percent: 5, charge: fee}]",
            [
                "discounts[0].quantity: found 1, expected percent or amount: a discount on the whole invoice has no units",
                "discounts[1].charge: found 'fee', expected none: a customer's discount is for the whole invoice",
            ],
        ),
        ("external_ids: {stripe: ''}", ["external_ids.stripe: empty, expected the id that stripe has"]),
    ],
)
def test_a_customer_with_a_grant_or_a_discount_that_cannot_be_used_is_refused(
    customer: str, expected: list[str]
) -> None:
    found = [one.removeprefix("customers[0].") for one in customer_mistakes(customer)]

    assert sorted(found) == sorted(expected)


def test_an_invoice_discount_must_not_be_called_as_one_of_the_plan() -> None:
    text = HEAD.replace("id: acme, ", "id: acme, discounts: [{id: promo, percent: 1}], ")
    subscriptions = "subscriptions: [{id: s, customer: acme, plan: addon, start: 2013-01-01}]"

    assert mistakes(f"{text}{PLANS}{subscriptions}", 12) == [
        (
            "subscriptions[0]: discount 'promo' of customer 'acme' meets that of plan 'addon' on one bill, expected "
            "different ids"
        )
    ]


def test_a_plan_that_cannot_be_read_is_not_reported_again_where_it_is_referred_to() -> None:
    broken = PLANS.replace("version: 2, effective_from: 2013-03-01", "version: two, effective_from: 2013-03-01")
    more = (
        f"subscriptions: [{{{BASIC}, version: 2, discounts: [{{id: x, percent: 1, charge: gone}}]}}]\n"
        f"migrations: [{{{MOVE}}}]\n"
    )

    assert mistakes(f"{HEAD}{broken}{more}", 7) == [
        "plans[1].version: found 'two', expected a whole number of 1 or more"
    ]


def test_a_change_collides_with_another_subscription_only_while_both_charge_the_same() -> None:
    subscriptions = [
        "id: one, customer: acme, plan: addon, start: 2013-01-01, changes: [{at: 2013-03-01, plan: basic}]",
        "id: two, customer: acme, plan: pro, start: 2013-01-01, end: 2013-03-02",
        "id: three, customer: acme, plan: addon, start: 2013-03-01",
    ]

    assert life_mistakes("subscriptions", *subscriptions) == [
        (
            "subscriptions[1]: charge 'fee' is charged to customer 'acme' by subscription 'one' at the same time "
            "(subscriptions[0]), expected spans that do not overlap"
        )
    ]
    fine = [subscriptions[0], subscriptions[1].replace("03-02", "03-01"), subscriptions[2]]
    listed = "".join(f"- {{{one}}}\n" for one in fine)
    assert len(parse_catalog(f"{HEAD}{PLANS}subscriptions:\n{listed}").subscriptions) == 3


def test_a_long_list_of_mistakes_is_cut_and_counted() -> None:
    plans = "\n".join(f"- {{id: p{number}}}" for number in range(1_200))

    with pytest.raises(CatalogError) as caught:
        parse_catalog(f"plans:\n{plans}\n", where="c.yaml")
    found = caught.value.problems
    assert len(found) == 1_001
    assert found[0].startswith("c.yaml:2: plans[0].charges: missing")
    assert found[-1] == "c.yaml: and 200 more problems"
