"""What a catalog's text is read as: YAML and JSON alike, quickly or field by field, whatever is odd about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from textwrap import dedent
from typing import Any

import pytest
from babel.numbers import list_currencies
from hypothesis import given
from hypothesis import strategies as st

from metering.catalog_file import parse_catalog
from metering.catalog_lines import lines_of
from metering.catalog_text import plain_of
from metering.currency import billing_currencies
from schemas.catalog import applied, document, from_document
from schemas.charges import FlatCharge
from schemas.errors import CatalogError

FULL = """\
event_types: [ping]
meters:
- {name: calls, event_type: call, aggregation: count, effective_from: 2013-01-31T01:00:00+01:00}
customers:
- id: acme
  name: "Ac\\u00e9me \\U0001f600"
  subjects: [acme, 007]
  timezone: Europe/Paris
  currency: EUR
  external_ids: {stripe: cus_1, sap: 0042}
  discounts: [{id: loyal, percent: 5.0, periods: 12, start: 2013-02-01}]
  credits:
  - {id: welcome, amount: 1e2, currency: EUR, priority: 1, start: 2013-01-01, expires: 2014-01-01, charges: [fee]}
plans:
- id: basic
  name: NO
  currency: USD
  prices:
    EUR:
      minimum: 3
      charges: [{id: fee, model: flat, amount: 1.10}]
      discounts: [{id: first, amount: 1, periods: 1}]
  commitment: {amount: 10, true_up: yes}
  charges: [{id: fee, model: flat, amount: 1.20}]
  anchor: anniversary
  trial_days: 7
  rounding: half_even
  terms_days: 30
- id: basic
  version: 2
  effective_from: 2013-06-01
  currency: EUR
  anchor: anniversary
  charges: [{id: fee, model: flat, amount: 1.30}]
subscriptions:
- id: one
  customer: acme
  plan: basic
  start: 2013-01-31
  end: null
  trial_days: 0
  changes: [{at: 2014-01-01, plan: basic, version: 2}]
  pauses: [{start: 2013-03-01, end: 2013-04-01}, {start: 2014-03-01}]
  overrides: [{id: fee, model: flat, amount: 0.5}]
  discounts: [{id: half, percent: 50, charge: fee}]
migrations:
- {plan: basic, from_version: 1, to_version: 2, at: 2013-07-01, customers: [acme]}
"""


NUMBERS = ("1.10", "0.000000000001", "123456789012345678.123456789012", "0")


def as_json(text: str) -> str:
    return json.dumps(plain_of(text, "c.yaml"))


def mistakes(text: str) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        parse_catalog(dedent(text), where="c")
    return caught.value.problems


def test_yaml_and_json_say_the_same() -> None:
    catalog = parse_catalog(FULL.replace("true_up: yes", "true_up: true"))

    assert parse_catalog(as_json(FULL).replace('"true_up": "yes"', '"true_up": true')) == catalog
    assert catalog.customers[0].name == "Acéme \U0001f600"
    assert (catalog.plans[0].name, catalog.customers[0].subjects) == ("NO", ("acme", "007"))
    assert [format(one.amount, "f") for one in catalog.customers[0].credits] == ["100"]
    assert catalog.meters[0].effective_from is not None
    assert catalog.meters[0].effective_from.isoformat() == "2013-01-31T00:00:00+00:00"


def test_a_stored_catalog_with_everything_in_it_reads_back_equal() -> None:
    catalog = parse_catalog(FULL.replace("true_up: yes", "true_up: true"))
    one = applied(1, catalog, ())

    assert from_document(1, document(one.catalog, one.meter_versions)) == one


def test_true_is_true_and_yes_is_no_word_for_it() -> None:
    assert mistakes(FULL) == ["c:23: plans[0].commitment.true_up: found 'yes', expected true or false"]


def test_numbers_of_json_are_kept_digit_for_digit() -> None:
    amounts = "".join(f'{{"id": "c{n}", "model": "flat", "amount": {text}}},' for n, text in enumerate(NUMBERS))
    catalog = parse_catalog(f'{{"plans": [{{"id": "p", "charges": [{amounts[:-1]}]}}]}}')

    assert [format(one.amount, "f") for one in catalog.plans[0].charges if isinstance(one, FlatCharge)] == list(NUMBERS)


@pytest.mark.parametrize(
    "number", ["1_000", "NaN", "Infinity", "\u0661", "+1", "1.", ".5", "0x10", "1 5", "1e-13", "true"]
)
@pytest.mark.parametrize("write", [str, json.dumps])
def test_what_is_no_plain_decimal_is_no_amount(number: str, write: Callable[[str], str]) -> None:
    amount = write(number)
    text = f'{{"plans": [{{"id": "p", "charges": [{{"id": "c", "model": "flat", "amount": {amount}}}]}}]}}'

    assert ["plans[0].charges[0].amount: " in one for one in mistakes(text)] == [True]


def test_aliases_and_merged_keys_reach_into_records_that_are_read_at_once() -> None:
    catalog = parse_catalog(
        """
        customers:
        - &one {id: a, subjects: &own [x], timezone: Asia/Tokyo}
        - {<<: *one, id: b, subjects: [y]}
        - {<<: [{name: C}, *one], id: c, subjects: []}
        event_types: *own
        """
    )

    assert [(one.id, one.subjects, one.timezone, one.name) for one in catalog.customers] == [
        ("a", ("x",), "Asia/Tokyo", ""), ("b", ("y",), "Asia/Tokyo", ""), ("c", (), "Asia/Tokyo", "C"),
    ]  # fmt: skip
    assert catalog.event_types == ("x",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "customers:\n- {id: a, subjects: [a], id: b}",
            ["c:2: customers[0].id: stands twice in one mapping, expected once"],
        ),
        (
            "customers:\n- {id: a, subjects: [a], external_ids: {x: 1, x: 2}}",
            ["c:2: customers[0].external_ids.x: stands twice in one mapping, expected once"],
        ),
        (
            '{"customers": [\n{"id": "a", "subjects": ["a"],\n"external_ids": {"x": "1", "x": "2"}}]}',
            ["c:3: customers[0].external_ids.x: stands twice in one mapping, expected once"],
        ),
        (
            "customers:\n- {id: a, subjects: [a, ~, [b]]}\n-\n- a",
            [
                "c:2: customers[0].subjects[1]: empty, expected a text",
                "c:2: customers[0].subjects[2]: found a list, expected a text",
                "c:3: customers[1]: empty, expected a mapping",
                "c:4: customers[2]: found 'a', expected a mapping with id, subjects",
            ],
        ),
        ("customers:\n- {id: !secret a, subjects: []}", ["c:2: customers[0].id: found 'a' tagged !secret, expected "]),
        ("a: &a {b: *a}", ["c:1: found *a, expected the name of a whole value above it"]),
        ("a: *nothing", ["c:1: found *nothing, expected the name of a whole value above it"]),
        ("a: {<<: [1]}", ["c:1: << merges something else, expected a mapping"]),
        ("? [a]\n: b", ["c:1: found a key that is no text, expected a name"]),
        ('{"a": "\\ud800"}', ["c:1: a text has one half of a surrogate pair, expected whole letters"]),
        ("[" * 20_000, ["c:1: nested too deeply, expected a catalog"]),
        ('{"a":' * 20_000 + "1" + "}" * 20_000, ["c:1: nested too deeply, expected a catalog"]),
        ("a: \x00", ["c:1: unacceptable character #x0000: control characters are not allowed, expected YAML"]),
        ("# nothing", ["c:1: empty, expected meters, customers, plans and subscriptions"]),
        ("~", ["c:1: empty, expected meters, customers, plans and subscriptions"]),
        ('{"a": 1', ["c:2: while parsing a flow mapping did not find expected ',' or '}', expected YAML"]),
    ],
)  # fmt: skip
def test_what_is_odd_about_a_text_is_said(text: str, expected: list[str]) -> None:
    found = mistakes(text)

    assert [one[: len(wanted)] for one, wanted in zip(found, expected, strict=True)] == expected


def test_a_json_text_with_letters_beyond_sixteen_bits_has_lines_too() -> None:
    text = '{"customers": [\n{"id": "a", "subjects": ["\\ud83d\\ude00"]},\n{"id": "a", "subjects": []}]}'

    assert mistakes(text) == ["c:3: customers[1].id: 'a' stands twice, first at customers[0], expected once"]


def test_lines_are_found_for_keys_that_are_there_and_for_the_records_of_those_that_are_not() -> None:
    text = "a:\n- b: 1\n  c:\n    d: [1,\n     2]\n- {b: 2}\n"
    paths: list[tuple[Any, ...]] = [(), ("a",), ("a", 0, "c", "d", 1), ("a", 0, "c", "x"), ("a", 1, "b"), ("a", 2)]

    assert lines_of(text, paths) == dict(zip(paths, [1, 2, 5, 4, 6, 2], strict=True))


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=8)
plain_values = st.recursive(
    names | st.none(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)


@given(plain_values.map(lambda one: {"customers": one}))
def test_any_json_is_a_catalog_or_every_mistake_has_a_line(value: Any) -> None:
    try:
        parse_catalog(json.dumps(value, indent=1), where="c")
    except CatalogError as error:
        problems = error.problems
    else:
        problems = []
    assert all(one.startswith("c:") and ": " in one for one in problems)


def test_a_plan_can_be_in_every_currency_that_an_amount_can_be_rounded_in_and_in_no_other() -> None:
    accepted = set()
    for code in sorted(list_currencies()):
        try:
            parse_catalog(f"plans: [{{id: p, currency: {code}, charges: [{{id: f, model: flat, amount: 1}}]}}]")
        except CatalogError:
            continue
        accepted.add(code)

    assert accepted == billing_currencies()
    assert len(accepted) > 150
    assert accepted.isdisjoint({"DEM", "XAU", "XXX"})
