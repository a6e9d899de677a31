"""Receipts: meters see in them what they saw in the record, and nothing else of it can be read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from schemas.admission import Admission
from schemas.catalog import Catalog, Customer
from schemas.erasure import FACT_TYPES, NOBODY, Erasures, Receipts, pseudonym
from schemas.meter import Aggregation, Filter, Meter, MeterVersion
from schemas.usage_event import decode_event
from tests.support.plain_log import CATALOG, Made, made_log

KEY = b"k" * 32
RECORD = {
    "specversion": "1.0",
    "id": "SECRET-id",
    "source": "SECRET-source",
    "type": "used",
    "subject": "SECRET-subject",
    "time": "2013-01-01T00:00:00.1234567+01:00",
    "traceparent": "SECRET-trace",
}


def versions(*meters: Meter) -> list[MeterVersion]:
    return [MeterVersion(meter=one, version=1, introduced_in=1, start=None, end=None) for one in meters]


def record(data: Any, **changes: str) -> bytes:
    return json.dumps({**RECORD, "data": data, **changes}).encode()


def good_log(seed: int, count: int) -> list[Made]:
    return [one for one in made_log(seed, count, share_bad=0.0) if not one.reason]


def data_of(receipt: bytes) -> Any:
    return json.loads(receipt)["data"]


def meter(name: str, aggregation: Aggregation, value: str | None = None, **more: Any) -> Meter:
    return Meter(name=name, event_type="used", aggregation=aggregation, value=value, **more)


def test_every_meter_measures_a_receipt_as_it_measured_the_record() -> None:
    every = versions(*CATALOG.meters)
    receipts, admission = Receipts(KEY, every), Admission(every, CATALOG.event_types)
    members: dict[str, str] = {}
    count = 0
    for one in good_log(1, 400):
        raw = one.raw or b""
        before = admission.measurements(decode_event(raw))
        after = admission.measurements(decode_event(receipts.receipt(raw)))
        assert [version for version, _ in before] == [version for version, _ in after]
        for (version, seen), (_, now) in zip(before, after, strict=True):
            assert (seen.dimensions, seen.value) == (now.dimensions, now.value)
            if version.meter.aggregation is Aggregation.UNIQUE_COUNT:
                assert (
                    members.setdefault(seen.member, now.member) == now.member == receipts.member(version, seen.member)
                )
                count += 1
    assert count > 100
    assert len(members) == len(set(members.values())) == 4
    assert not members.keys() & set(members.values())


def test_nothing_that_no_meter_reads_is_in_a_receipt() -> None:
    receipts = Receipts(KEY, versions(meter("total", Aggregation.SUM, "usage.n", group_by={"plan": "plan"})))

    made = receipts.receipt(record({"usage": {"n": 1.50, "who": "SECRET"}, "plan": "gold", "mail": ["SECRET"]}))

    assert b"SECRET" not in made
    assert data_of(made) == {"usage": {"n": 1.5}, "plan": "gold"}
    assert b'"n":1.5' in made
    assert set(json.loads(made)) == {"specversion", "id", "source", "type", "subject", "time", "data"}
    assert decode_event(made).time == decode_event(record({})).time


def test_a_number_stays_as_it_was_written() -> None:
    receipts = Receipts(KEY, versions(meter("total", Aggregation.SUM, "n")))

    for number in (b"999999999999999999.999999999999", b'"0.10"', b"1e3", b"-0"):
        made = receipts.receipt(record({"n": "NUMBER"}).replace(b'"NUMBER"', number))

        assert b'"data":{"n":' + number + b"}" in made


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ({"n": "SECRET"}, {"n": {}}),
        ({"n": {"deep": "SECRET"}}, {"n": {}}),
        ({"n": None}, {}),
        (["SECRET"], {}),
        ("SECRET", {}),
        ({"region": {"SECRET": 1}}, {"region": {}}),
    ],
)
def test_what_no_meter_can_read_is_as_unreadable_as_before_and_says_nothing(data: Any, kept: Any) -> None:
    total = meter("total", Aggregation.SUM, "n", group_by={"region": "region"})

    assert data_of(Receipts(KEY, versions(total)).receipt(record(data))) == kept


def test_a_filtered_field_keeps_only_what_the_filter_names() -> None:
    calls = meter("calls", Aggregation.COUNT, filters=(Filter(field="kind", none_of=("test",)),))
    receipts = Receipts(KEY, versions(calls))

    named, other = (data_of(receipts.receipt(record({"kind": kind}))) for kind in ("test", "SECRET"))

    assert named == {"kind": "test"}
    assert other == {"kind": pseudonym(KEY, "member", "SECRET")}


def test_one_path_through_another_keeps_the_inner_value() -> None:
    inner, outer = meter("a", Aggregation.SUM, "use.n"), meter("b", Aggregation.COUNT, group_by={"use": "use"})
    receipts = Receipts(KEY, versions(inner, outer))

    assert data_of(receipts.receipt(record({"use": {"n": 2, "who": "SECRET"}}))) == {"use": {"n": 2}}
    assert data_of(receipts.receipt(record({"use": "gold"}))) == {"use": "gold"}


@pytest.mark.parametrize("type_", ["metering.event.voided", "metering.event.replaced"])
def test_a_correction_names_the_pseudonyms_of_what_it_corrects(type_: str) -> None:
    receipts = Receipts(KEY, versions(meter("total", Aggregation.SUM, "n")))
    put = {"type": "used", "time": "2013-01-02T00:00:00Z", "data": {"n": 5, "who": "SECRET"}}
    named = json.loads(receipts.receipt(record({"n": 1})))

    made = receipts.receipt(
        record({"source": RECORD["source"], "id": RECORD["id"], "why": "SECRET", **put}, type=type_, id="SECRET-later")
    )

    event = decode_event(made)
    assert b"SECRET" not in made
    assert event.corrects == (named["source"], named["id"])
    assert bytes(event.data) == (b'{"n":5}' if type_.endswith("replaced") else b"null")


def test_business_facts_keep_what_the_view_reads() -> None:
    receipts = Receipts(KEY, ())
    said = {"amount": "12.50", "currency": "EUR", "score": 9, "invitation": "SECRET", "mail": "SECRET"}

    for type_ in FACT_TYPES:
        made = data_of(receipts.receipt(record(said, type=type_)))
        assert made == {
            "amount": "12.50",
            "currency": "EUR",
            "score": 9,
            "invitation": pseudonym(KEY, "member", "SECRET"),
        }
    assert data_of(receipts.receipt(record({"currency": "SECRET"}, type="signup"))) == {"currency": {}}


def test_a_receipt_of_a_receipt_is_itself() -> None:
    receipts = Receipts(KEY, versions(*CATALOG.meters))

    for one in good_log(2, 100):
        made = receipts.receipt(one.raw or b"")
        assert receipts.receipt(made) == made


def test_a_pseudonym_depends_on_key_and_kind_and_stands_for_itself() -> None:
    one = pseudonym(KEY, "subject", "anna")

    assert one != pseudonym(KEY, "id", "anna")
    assert one != pseudonym(b"other", "subject", "anna")
    assert pseudonym(KEY, "subject", one) == one


def test_only_erased_subjects_are_renamed_in_a_catalog() -> None:
    anna = pseudonym(KEY, "subject", "anna")
    erasures = Erasures(key=KEY, subjects=frozenset([anna]))
    catalog = Catalog(customers=(Customer(id="a", subjects=("anna", "bert")), Customer(id="b", subjects=("carl",))))

    renamed = erasures.without_names(catalog)

    assert [one.subjects for one in renamed.customers] == [(anna, "bert"), ("carl",)]
    assert erasures.without_names(renamed) is renamed
    assert NOBODY.without_names(catalog) is catalog
    assert msgspec.structs.replace(renamed, customers=catalog.customers) == catalog
