"""What `POST /v1/events` takes, and what it says of the rest."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import zstandard

from ingest.content import BATCH, EVENT, PLAIN

GOOD = (
    b'{ "specversion":"1.0", "id":"%s", "source":"urn:a", "type":"flight","subject":"UA",'
    b'"time":"2013-06-01T11:00:00.1234567+00:00", "data":{"origin":"JFK","distance": 1400.250}, "ext":"kept" }'
)


def test_one_event_is_answered_once_kafka_has_it_and_its_bytes_are_untouched(gateway: Any, log: Any) -> None:
    sent = GOOD % b"untouched-1"

    answer = gateway.post(b"\n " + sent + b"\n", EVENT, params={"positions": "true"})

    assert answer.status_code == 200
    [(partition, offset, key, value)] = log.records()
    assert (key, value) == (b"UA", sent)
    assert answer.json()["positions"] == [[partition, offset]]
    assert answer.json()["accepted"] == 1


def test_a_batch_is_split_without_touching_an_event(gateway: Any, log: Any) -> None:
    events = [GOOD % b"batch-%d" % number for number in range(3)]

    answer = gateway.post(b"[" + b" ,\n ".join(events) + b"]", BATCH, params={"positions": "true"})

    assert (answer.status_code, answer.json()["accepted"]) == (200, 3)
    records = {(partition, offset): value for partition, offset, _, value in log.records()}
    assert [records[tuple(place)] for place in answer.json()["positions"]] == events


@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress)]
)
def test_a_compressed_batch_is_taken(gateway: Any, event: Any, coding: str, compress: Any) -> None:
    body = compress(json.dumps([event(), event()]).encode())

    answer = gateway.post(body, BATCH, headers={"Content-Encoding": coding})

    assert answer.json() == {"accepted": 2}


def test_an_empty_batch_is_fine(gateway: Any) -> None:
    assert gateway.post(b"[]", BATCH).json() == {"accepted": 0}


def test_plain_json_may_be_one_event_or_an_array(gateway: Any, event: Any) -> None:
    assert gateway.post(json.dumps(event()).encode(), PLAIN).json() == {"accepted": 1}
    assert gateway.post(json.dumps([event(), event()]).encode(), PLAIN).json() == {"accepted": 2}


def test_a_repeat_within_a_request_is_left_to_the_worker(gateway: Any, event: Any) -> None:
    one = event()

    assert gateway.post(json.dumps([one, one]).encode(), BATCH).json() == {"accepted": 2}


def test_binary_mode_becomes_one_structured_event(gateway: Any, log: Any) -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "b%20%22%E2%82%AC",
        "ce-source": '"urn:\\"quoted\\""',
        "ce-type": "flight",
        "ce-subject": "U%2541",
        "ce-time": "2013-06-01T11:00:00Z",
        "ce-tenant": "blue",
    }

    answer = gateway.post(b' {"origin":"JFK","distance":1.50} ', PLAIN, headers=headers)

    assert answer.json() == {"accepted": 1}
    [(_, _, key, value)] = log.records()
    assert key == b"U%41"
    assert value.endswith(b'"data":{"origin":"JFK","distance":1.50}}')
    assert json.loads(value) == {
        "specversion": "1.0",
        "id": 'b "€',
        "source": 'urn:"quoted"',
        "type": "flight",
        "subject": "U%41",
        "time": "2013-06-01T11:00:00Z",
        "tenant": "blue",
        "datacontenttype": "application/json",
        "data": {"origin": "JFK", "distance": 1.5},
    }


@pytest.mark.parametrize(
    ("headers", "body", "status", "field"),
    [
        ({"ce-id": "%zz"}, b"{}", 422, "id"),
        ({"ce-id": "%ff"}, b"{}", 422, "id"),
        ({"ce-da_ta": "x"}, b"{}", 422, "da_ta"),
        ({"ce-data": "x"}, b"{}", 422, "data"),
        ({}, b'1,"id":"other"', 422, "data"),
        ({}, b"{", 422, "data"),
        ({"ce-subject": ""}, b"{}", 422, "subject"),
        ({"ce-specversion": "0.3"}, b"{}", 422, "specversion"),
    ],
)
def test_binary_mode_that_makes_no_event_is_refused(
    *, gateway: Any, log: Any, headers: dict[str, str], body: bytes, status: int, field: str
) -> None:
    good = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "urn:a",
        "ce-type": "flight",
        "ce-subject": "UA",
        "ce-time": "2013-06-01T11:00:00Z",
    }

    answer = gateway.post(body, PLAIN, headers={**good, **headers})

    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (status, field)
    assert log.records() == []


def test_binary_mode_takes_json_data_only(gateway: Any) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1"}

    assert gateway.post(b"<xml/>", "text/xml", headers=headers).status_code == 415


VOID = (
    b'{"specversion":"1.0","id":"%s","source":"urn:a","type":"metering.event.voided","subject":"UA",'
    b'"time":"2013-06-01T11:00:00Z","data":{"source":"urn:a","id":"wrong","why":"a typing error"}}'
)
REPLACE = (
    b'{"specversion":"1.0","id":"%s","source":"urn:a","type":"metering.event.replaced","subject":"UA",'
    b'"time":"2013-06-01T11:00:00Z","data":{"source":"urn:a","id":"wrong","type":"flight",'
    b'"time":"2013-05-31T11:00:00Z","data":{"origin":"JFK","distance":1400}}}'
)

BAD: list[tuple[str, bytes, str, str]] = [
    ("not JSON", b"{", "not_json", ""),
    ("empty", b"", "empty_record", ""),
    ("no object", b"17", "not_an_event", ""),
    ("no CloudEvent", b'{"hello":"world"}', "missing_field", "specversion"),
    ("another version", GOOD.replace(b'"1.0"', b'"0.3"'), "not_an_event", "specversion"),
    ("missing field", GOOD.replace(b'"subject":"UA",', b""), "missing_field", "subject"),
    ("mistyped field", GOOD.replace(b'"id":"%s"', b'"id":7'), "wrong_type", "id"),
    ("empty id", GOOD.replace(b'"id":"%s"', b'"id":""'), "invalid_text", "id"),
    ("control character", GOOD.replace(b'"UA"', b'"U\\u0000A"'), "invalid_text", "subject"),
    ("lone surrogate", GOOD.replace(b'"UA"', b'"\\ud800"'), "not_json", ""),
    ("broken UTF-8", GOOD.replace(b'"UA"', b'"\xff"'), "not_json", ""),
    ("NaN", GOOD.replace(b"1400.250", b"NaN"), "not_json", ""),
    ("1e400", GOOD.replace(b"1400.250", b"1e400"), "number_out_of_range", "data.distance"),
    ("13 decimals", GOOD.replace(b"1400.250", b"0.1234567890123"), "number_out_of_range", "data.distance"),
    ("19 digits", GOOD.replace(b"1400.250", b"1234567890123456789"), "number_out_of_range", "data.distance"),
    ("a number in words", GOOD.replace(b"1400.250", b'"far"'), "invalid_number", "data.distance"),
    ("a dimension that is a list", GOOD.replace(b'"JFK"', b"[1]"), "invalid_dimension", "data.origin"),
    ("year 1", GOOD.replace(b"2013-06", b"0001-01"), "time_out_of_range", "time"),
    ("year 9999", GOOD.replace(b"2013-06", b"9999-12"), "time_out_of_range", "time"),
    ("no zone", GOOD.replace(b"+00:00", b""), "invalid_time", "time"),
    ("too far ahead", GOOD.replace(b"T11:", b"T14:"), "time_ahead", "time"),
    ("unknown type", GOOD.replace(b'"flight"', b'"fligth"'), "unknown_type", "type"),
    ("too large", GOOD.replace(b'"kept"', b'"' + b"x" * 4_000 + b'"'), "too_large", ""),
    ("a void of nothing", VOID.replace(b'"id":"wrong",', b""), "missing_field", "data.id"),
    ("a void of a number", VOID.replace(b'"wrong"', b"7"), "wrong_type", "data.id"),
    ("a void of an empty id", VOID.replace(b'"wrong"', b'""'), "invalid_text", "data.id"),
    ("a void without data", VOID.replace(b',"data":{', b',"other":{'), "wrong_type", "data"),
    ("a void of itself", VOID.replace(b'"wrong"', b'"bad"'), "invalid_correction", "data.id"),
    (
        "a replacement without time",
        REPLACE.replace(b'"time":"2013-05-31T11:00:00Z",', b""),
        "missing_field",
        "data.time",
    ),
    ("a replacement without a zone", REPLACE.replace(b"31T11:00:00Z", b"31T11:00:00"), "invalid_time", "data.time"),
    ("a replacement too far ahead", REPLACE.replace(b"05-31T", b"06-02T"), "time_ahead", "data.time"),
    (
        "a replacement by a void",
        REPLACE.replace(b'"flight"', b'"metering.event.voided"'),
        "invalid_correction",
        "data.type",
    ),
    ("a replacement of an unknown type", REPLACE.replace(b'"flight"', b'"fligth"'), "unknown_type", "data.type"),
    ("a replacement in words", REPLACE.replace(b"1400", b'"far"'), "invalid_number", "data.data.distance"),
    ("too deep", GOOD.replace(b'"kept"', b"[" * 1_500 + b"]" * 1_500), "too_deep", ""),
]


@pytest.mark.parametrize(("case", "record", "reason", "field"), BAD, ids=[case for case, *_ in BAD])
def test_a_bad_event_is_refused_with_its_reason_and_field(
    *, gateway: Any, log: Any, case: str, record: bytes, reason: str, field: str
) -> None:
    answer = gateway.post(record.replace(b"%s", b"bad"), EVENT)

    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), case
    problem = answer.json()
    assert (problem["code"], problem["status"], bool(problem["fix"])) == ("invalid_events", 422, True)
    assert [(error["index"], error["reason"], error["field"]) for error in problem["errors"]] == [(0, reason, field)]
    assert log.records() == []


def test_one_bad_event_refuses_the_whole_batch_and_lists_every_error(gateway: Any, event: Any, log: Any) -> None:
    events = [event(), event(id=""), event(), event(subject=None), 5]

    answer = gateway.post(json.dumps(events).encode(), BATCH)

    assert answer.status_code == 422
    assert [(error["index"], error["reason"], error["field"]) for error in answer.json()["errors"]] == [
        (1, "invalid_text", "id"),
        (3, "missing_field", "subject"),
        (4, "not_an_event", ""),
    ]
    assert log.records() == []


def test_partial_accepts_the_good_events_and_lists_the_rest(gateway: Any, event: Any, log: Any) -> None:
    events = [event(id="a"), event(id=""), event(id="c")]

    answer = gateway.post(json.dumps(events).encode(), BATCH, params={"partial": "true", "positions": "true"})

    assert answer.status_code == 207
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (2, 1)
    assert [error["index"] for error in answer.json()["errors"]] == [1]
    assert [place is None for place in answer.json()["positions"]] == [False, True, False]
    assert sorted(json.loads(value)["id"] for _, _, _, value in log.records()) == ["a", "c"]


def test_partial_with_nothing_good_is_a_422(gateway: Any, event: Any) -> None:
    answer = gateway.post(json.dumps([event(id="")]).encode(), BATCH, params={"partial": "true"})

    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        (BATCH, b"{}", 400, "not_a_batch"),
        (BATCH, b"[{]", 400, "not_json"),
        (BATCH, b"\xff\xfe", 400, "not_json"),
        (BATCH, b"[" * 100_00, 400, "not_json"),
        ("text/csv", b"a,b", 415, "unsupported_content_type"),
        ("", b"{}", 415, "unsupported_content_type"),
        (EVENT + "; charset=utf-16", b"{}", 415, "unsupported_content_type"),
    ],
)
def test_a_request_that_cannot_be_taken_apart_is_refused(
    gateway: Any, content_type: str, body: bytes, status: int, code: str
) -> None:
    answer = gateway.post(body, content_type)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_corrections_are_taken_untouched_and_need_no_listing_in_the_catalog(gateway: Any, log: Any) -> None:
    events = [VOID % b"void-1", REPLACE % b"replace-1"]

    answer = gateway.post(b"[" + b",".join(events) + b"]", BATCH)

    assert (answer.status_code, answer.json()) == (200, {"accepted": 2})
    assert [value for _, _, _, value in log.records()] == events


def test_a_listed_type_is_taken_before_any_meter_reads_it(gateway: Any, event: Any) -> None:
    assert gateway.post(json.dumps(event(type="ping", data="anything")).encode(), EVENT).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/events", 405), ("GET", "/", 404), ("POST", "/v1/event", 404)]
)
def test_what_is_not_there_is_a_problem_document_too(gateway: Any, method: str, path: str, status: int) -> None:
    import httpx

    answer = httpx.request(method, gateway.url + path)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_a_misspelt_parameter_is_a_400_and_not_ignored(gateway: Any) -> None:
    answer = gateway.post(b"[]", BATCH, params={"partal": "true"})

    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_parameter")


def test_a_parameter_that_is_no_boolean_is_a_400(gateway: Any) -> None:
    answer = gateway.post(b"[]", BATCH, params={"partial": "perhaps"})

    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
