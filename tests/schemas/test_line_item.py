"""The line item: ids that never change, and a JSON Schema that says what is written."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid5

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.line_item import (
    NAMESPACE,
    SCHEMA_VERSION,
    Adjustment,
    LineItem,
    LineKind,
    TierShare,
    decode_line_item,
    encode_line_item,
    json_schema,
    line_item_id,
)

SCHEMA = Path(__file__).parents[2] / "schemas" / "json" / "line_item.json"

IDENTITY: dict[str, Any] = {
    "customer": "UA",
    "subscription": "UA-2013",
    "plan": "standard",
    "charge": "flights",
    "kind": LineKind.USAGE,
    "reference": "",
    "dimensions": {"origin": "EWR"},
    "period": "2013-01",
    "service_start": datetime(2013, 1, 1, 5, tzinfo=UTC),
    "revision": 0,
}


def line(**changes: Any) -> LineItem:
    item = LineItem(
        id=line_item_id(**IDENTITY),
        run="2013-01.1",
        revision=0,
        corrects=None,
        adjustment=None,
        kind=LineKind.USAGE,
        reference="",
        reduces=None,
        period="2013-01",
        timezone="America/New_York",
        period_start=datetime(2013, 1, 1, 5, tzinfo=UTC),
        period_end=datetime(2013, 2, 1, 5, tzinfo=UTC),
        period_start_local="2013-01-01T00:00:00-05:00",
        period_end_local="2013-02-01T00:00:00-05:00",
        service_start=datetime(2013, 1, 1, 5, tzinfo=UTC),
        service_end=datetime(2013, 2, 1, 5, tzinfo=UTC),
        customer="UA",
        customer_name="United",
        external_ids={"stripe": "cus_1"},
        subscription="UA-2013",
        plan="standard",
        plan_version=1,
        charge="flights",
        model="graduated",
        description="Flights",
        meter="flights",
        unit="flights",
        dimensions={"origin": "EWR"},
        quantity="1500.25",
        unit_amount=None,
        tiers=(
            TierShare(from_="0", up_to=None, quantity="1500.25", unit_amount="0.0000001", flat_amount="0", amount="1"),
        ),
        amount_unrounded="0.000150025",
        amount="0.00",
        currency="USD",
        tax_code="",
        terms_days=30,
        events_count=3,
        digest="0" * 31 + "a",
        catalog_version=1,
    )
    return msgspec.structs.replace(item, **changes)


def test_an_id_is_a_function_of_what_the_line_is_about_and_never_changes() -> None:
    assert line_item_id(**IDENTITY) == "5d18c6fc-c025-5d95-abe5-28b3eed31d49"


@given(
    st.text(max_size=40), st.text(max_size=40), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)
)
def test_an_id_is_a_uuid5_of_length_prefixed_parts(customer: str, charge: str, dimensions: dict[str, str]) -> None:
    parts = [customer, "UA-2013", "standard", charge, "usage", "", str(len(dimensions))]
    parts += [part for name in sorted(dimensions) for part in (name, dimensions[name])]
    parts += ["2013-01", "2013-01-01T05:00:00Z", "0"]
    expected = uuid5(NAMESPACE, "".join(f"{len(part.encode())}:{part}" for part in parts))

    assert line_item_id(**{**IDENTITY, "customer": customer, "charge": charge, "dimensions": dimensions}) == str(
        expected
    )


@pytest.mark.parametrize(
    "change",
    [
        {"customer": "AA"},
        {"subscription": "UA-2014"},
        {"plan": "premium"},
        {"charge": "miles"},
        {"kind": LineKind.DISCOUNT},
        {"reference": "spring"},
        {"service_start": datetime(2013, 1, 10, 5, tzinfo=UTC)},
        {"dimensions": {"origin": "JFK"}},
        {"dimensions": {}},
        {"dimensions": {"origin": "EWR", "dest": ""}},
        {"period": "2013-02"},
        {"revision": 1},
        {"customer": "UAU", "subscription": "A-2013"},
        {"dimensions": {"originEWR": ""}},
    ],
)
def test_another_line_has_another_id(change: dict[str, Any]) -> None:
    assert line_item_id(**{**IDENTITY, **change}) != line_item_id(**IDENTITY)


def test_the_order_of_dimensions_does_not_change_the_id() -> None:
    one = line_item_id(**{**IDENTITY, "dimensions": {"a": "1", "b": "2"}})

    assert line_item_id(**{**IDENTITY, "dimensions": {"b": "2", "a": "1"}}) == one


def test_a_line_reads_back_as_it_was_written() -> None:
    assert decode_line_item(encode_line_item(line())) == line()


def test_an_adjustment_says_what_it_changes() -> None:
    change = Adjustment(
        quantity_before="3", quantity_after="2", amount_before="3.00", amount_after="2.00", reason="corrected_events"
    )
    item = line(revision=1, corrects=line().id, adjustment=change, quantity="-1", amount="-1.00")

    assert decode_line_item(encode_line_item(item)) == item
    assert b'"adjustment":{"quantity_before":"3","quantity_after":"2"' in encode_line_item(item)


def test_decimals_are_texts_in_plain_digits() -> None:
    text = encode_line_item(line()).decode()

    assert '"quantity":"1500.25"' in text
    assert '"unit_amount":"0.0000001"' in text
    assert '"period_start":"2013-01-01T05:00:00Z"' in text


@pytest.mark.parametrize("quantity", ["1e3", "NaN", "01", ".5", "1_0", "-", "\u0663"])
def test_a_quantity_in_any_other_notation_is_refused(quantity: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_line_item(encode_line_item(line(quantity=quantity)))


def test_the_schema_file_is_the_schema_of_the_code() -> None:
    # Write it again with: python -m schemas.line_item > schemas/json/line_item.json
    assert SCHEMA.read_bytes() == json_schema()


def test_a_schema_that_says_something_else_has_another_version() -> None:
    # Changed on purpose? Raise SCHEMA_VERSION, and put the new digest beside its version.
    shape = bare(msgspec.json.decode(SCHEMA.read_bytes()))

    assert shape.pop("$id") == f"urn:usage-metering:line_item:{SCHEMA_VERSION}"
    digest = sha256(msgspec.json.encode(shape, order="deterministic")).hexdigest()
    assert (SCHEMA_VERSION, digest) == (1, "54d2356a8ffe931eaee07f9ab45053648c7fc0cddfcfc932f5850953f6ae1a00")


def bare(part: Any) -> Any:
    """A schema without its words for people: `description` where it is a text, not a field of that name."""
    if isinstance(part, dict):
        return {name: bare(one) for name, one in part.items() if not (name == "description" and isinstance(one, str))}
    return [bare(one) for one in part] if isinstance(part, list) else part


def test_the_schema_names_and_explains_every_field() -> None:
    schema = msgspec.json.decode(SCHEMA.read_bytes())
    fields = schema["$defs"]["LineItem"]["properties"]

    assert list(fields) == list(LineItem.__struct_fields__)
    assert [name for name, field in fields.items() if not field.get("description")] == []
