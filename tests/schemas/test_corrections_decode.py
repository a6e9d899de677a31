"""What a correction says once it is decoded, and what is wrong with one that says nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from schemas.admission import Admission, check_time
from schemas.catalog_rules import own_problems
from schemas.corrections import REPLACED, VOIDED
from schemas.errors import EventRejectedError
from schemas.meter import Aggregation, Meter, MeterVersion
from schemas.usage_event import columns_of, decode_event, decode_events

SAID_AT = "2013-02-03T09:00:00Z"
METER = Meter(name="bytes", event_type="request", aggregation=Aggregation.SUM, value="bytes")
ADMISSION = Admission([MeterVersion(meter=METER, version=1, introduced_in=1, start=None, end=None)], ())


def correction(type_: str, data: Any, **members: Any) -> bytes:
    event = {"specversion": "1.0", "id": "c-1", "source": "/office", "type": type_, "subject": "s", "time": SAID_AT}
    return json.dumps({**event, **members, "data": data}).encode()


NAMED = {"source": "/app", "id": "r-1"}
PUT = {**NAMED, "type": "request", "time": "2013-01-01T01:00:00+01:00", "data": {"bytes": 7}}


def test_a_void_names_an_event_and_has_no_data_of_its_own() -> None:
    event = decode_event(correction(VOIDED, {**NAMED, "why": "a load test"}))

    assert (event.type, event.corrects, event.subject, event.id) == (VOIDED, ("/app", "r-1"), "s", "c-1")
    assert (event.time, bytes(event.data)) == (datetime(2013, 2, 3, 9, tzinfo=UTC), b"null")
    assert ADMISSION.measurements(event) == []


def test_a_replacement_is_the_event_that_it_puts_in_place() -> None:
    event = decode_event(correction(REPLACED, PUT))

    assert (event.type, event.corrects, event.id) == ("request", ("/app", "r-1"), "c-1")
    assert (event.time, json.loads(bytes(event.data))) == (datetime(2013, 1, 1, tzinfo=UTC), {"bytes": 7})
    [(_, seen)] = ADMISSION.measurements(event)
    assert seen.value == 7


def test_a_batch_with_a_correction_is_left_to_be_decoded_one_by_one() -> None:
    ordinary = correction("request", {"bytes": 1})

    assert decode_events([ordinary, ordinary]) is not None
    for type_, data in ((VOIDED, NAMED), (REPLACED, PUT)):
        assert decode_events([ordinary, correction(type_, data)]) is None


def test_columns_keep_who_corrects_whom() -> None:
    events = [
        decode_event(correction(*said))
        for said in (("request", {"bytes": 1}), (VOIDED, NAMED), ("request", {}), (REPLACED, PUT))
    ]

    columns = columns_of(events)

    assert columns.corrects == {1: ("/app", "r-1"), 3: ("/app", "r-1")}
    assert columns.take([2, 3]).corrects == {1: ("/app", "r-1")}
    assert [columns.at(row) for row in range(4)] == events


@pytest.mark.parametrize(
    ("type_", "data", "reason", "field"),
    [
        (VOIDED, None, "wrong_type", "data"),
        (VOIDED, [1], "wrong_type", "data"),
        (VOIDED, {"source": "/app"}, "missing_field", "data.id"),
        (VOIDED, {"source": 7, "id": "r"}, "wrong_type", "data.source"),
        (VOIDED, {"source": "", "id": "r"}, "invalid_text", "data.source"),
        (VOIDED, {"source": "/app", "id": "\u0000"}, "invalid_text", "data.id"),
        (VOIDED, {"source": "/office", "id": "c-1"}, "invalid_correction", "data.id"),
        (REPLACED, NAMED, "missing_field", "data.type"),
        (REPLACED, {**PUT, "type": REPLACED}, "invalid_correction", "data.type"),
        (REPLACED, {**PUT, "type": VOIDED}, "invalid_correction", "data.type"),
        (REPLACED, {**PUT, "time": "yesterday"}, "invalid_time", "data.time"),
        (REPLACED, {**PUT, "time": "1969-01-01T00:00:00Z"}, "time_out_of_range", "data.time"),
        (REPLACED, {**PUT, "source": "/office", "id": "c-1"}, "invalid_correction", "data.id"),
    ],
)
def test_a_correction_that_says_nothing_is_refused_with_the_field(
    type_: str, data: Any, reason: str, field: str
) -> None:
    with pytest.raises(EventRejectedError) as caught:
        decode_event(correction(type_, data))

    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_the_envelope_of_a_correction_is_checked_like_any_other() -> None:
    with pytest.raises(EventRejectedError) as caught:
        decode_event(correction(VOIDED, NAMED, time="yesterday"))

    assert (caught.value.reason, caught.value.field) == ("invalid_time", "time")


@pytest.mark.parametrize(
    ("put", "reason", "field"),
    [
        ({"type": "reqeust"}, "unknown_type", "data.type"),
        ({"data": {"bytes": "many"}}, "invalid_number", "data.data.bytes"),
    ],
)
def test_what_is_put_in_place_is_admitted_like_any_event(put: dict[str, Any], reason: str, field: str) -> None:
    event = decode_event(correction(REPLACED, {**PUT, **put}))

    with pytest.raises(EventRejectedError) as caught:
        ADMISSION.measurements(event)
    assert (caught.value.reason, caught.value.field) == (reason, field)

    [rejection] = ADMISSION.measure(columns_of([event]), [0]).rejections.values()
    assert (rejection.reason, rejection.field) == (reason, field)


def test_a_replacement_may_not_lie_too_far_ahead_whenever_it_was_said() -> None:
    event = decode_event(correction(REPLACED, {**PUT, "time": "2013-02-04T00:00:00Z"}))

    with pytest.raises(EventRejectedError) as caught:
        check_time(event, datetime(2013, 2, 3, 9, tzinfo=UTC), ahead_s_max=3600, age_s_max=0)

    assert (caught.value.reason, caught.value.field) == ("time_ahead", "data.time")


@pytest.mark.parametrize("type_", [VOIDED, REPLACED])
def test_no_meter_can_read_corrections(type_: str) -> None:
    meter = msgspec.structs.replace(METER, event_type=type_)

    [problem] = own_problems(("meters", 0), meter)

    assert problem.path == ("meters", 0, "event_type")
    assert problem.what == f"found {type_}, expected a type of your own: this one corrects other events"
