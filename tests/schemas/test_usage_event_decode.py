"""Decoding one record: what is accepted comes out unchanged, everything else is a rejection with its reason."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import EventRejectedError
from schemas.usage_event import NESTING_MAX, REASONS, decode_event, event_digest, identity_hash, parse_time

GOOD = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/app",
    "type": "api.call",
    "subject": "acme",
    "time": "2013-01-31T23:59:59.999999Z",
    "data": {"bytes": 12.5, "region": "eu"},
}


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def record(**changes: object) -> bytes:
    """The good event with these attributes in place of its own; None leaves one out."""
    return json.dumps({key: value for key, value in {**GOOD, **changes}.items() if value is not None}).encode()


def rejection(raw: bytes | None) -> tuple[str, str]:
    with pytest.raises(EventRejectedError) as caught:
        decode_event(raw)
    return caught.value.reason, caught.value.field


def outcome(raw: bytes) -> tuple[str, ...]:
    """What decoding says, as something to compare."""
    try:
        event = decode_event(raw)
    except EventRejectedError as error:
        return "rejected", error.reason, error.field
    return "event", event.id, event.source, event.type, event.subject, event.time.isoformat(), str(bytes(event.data))


def test_a_good_event_comes_out_as_it_went_in() -> None:
    event = decode_event(record())

    assert (event.id, event.source, event.type, event.subject) == ("e-1", "/app", "api.call", "acme")
    assert event.time == datetime(2013, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert bytes(event.data) == b'{"bytes": 12.5, "region": "eu"}'


def test_attributes_that_nobody_asked_for_are_let_through() -> None:
    assert decode_event(record(datacontenttype="application/json", traceparent="00-1", x=[{"y": None}])).id == "e-1"


def test_an_event_without_data_has_null() -> None:
    assert bytes(decode_event(record(data=None)).data) == b"null"


@pytest.mark.parametrize(
    ("raw", "reason", "field"),
    [
        (None, "empty_record", ""),
        (b"", "empty_record", ""),
        (b"rubbish", "not_json", ""),
        (b"{", "not_json", ""),
        (b"\xff\xfe{}", "not_json", ""),
        (b"\xef\xbb\xbf" + record(), "not_json", ""),
        (record() + b"{}", "not_json", ""),
        (record() + b"\x00", "not_json", ""),
        (record().decode().encode("utf-16"), "not_json", ""),
        (record().replace(b"12.5", b"NaN"), "not_json", ""),
        (record().replace(b"12.5", b"Infinity"), "not_json", ""),
        (record().replace(b"12.5", b"012"), "not_json", ""),
        (record().replace(b"12.5", b"'x'"), "not_json", ""),
        (record().replace(b'"eu"', b'"e\xff"'), "not_json", ""),
        (record().replace(b'"eu"', b'"\xed\xa0\x80"'), "not_json", ""),
        (record().replace(b'"eu"', b'"\xc0\x80"'), "not_json", ""),
        (record().replace(b'"eu"', b'"\\x"'), "not_json", ""),
        (b"null", "not_an_event", ""),
        (b"17", "not_an_event", ""),
        (b'"text"', "not_an_event", ""),
        (b"[" + record() + b"]", "not_an_event", ""),
        (record(specversion="0.3"), "not_an_event", "specversion"),
        (record(specversion="1.0.2"), "not_an_event", "specversion"),
        (b"{}", "missing_field", "specversion"),
        (record(id=None), "missing_field", "id"),
        (record(source=None), "missing_field", "source"),
        (record(type=None), "missing_field", "type"),
        (record(subject=None), "missing_field", "subject"),
        (record(time=None), "missing_field", "time"),
        (record().replace(b'"e-1"', b"null"), "wrong_type", "id"),
        (record(id=1), "wrong_type", "id"),
        (record(subject=["acme"]), "wrong_type", "subject"),
        (record(time=1359676799), "wrong_type", "time"),
        (record(specversion=1.0), "wrong_type", "specversion"),
        (record(id=""), "invalid_text", "id"),
        (record(subject=""), "invalid_text", "subject"),
        (record(id="a\nb"), "invalid_text", "id"),
        (record(source="a\u0000b"), "invalid_text", "source"),
        (record(type="a\u0085b"), "invalid_text", "type"),
        (record(subject="a\uffff"), "invalid_text", "subject"),
        (record(id="x" * 513), "invalid_text", "id"),
        (record(id="\u20ac" * 171), "invalid_text", "id"),
        (record(id="x" * 200_000), "invalid_text", "id"),
        (record(time=""), "invalid_time", "time"),
        (record(time="yesterday"), "invalid_time", "time"),
        (record(time="2013-01-31T23:59:59"), "invalid_time", "time"),
        (record(time="2013-01-31"), "invalid_time", "time"),
        (record(time="20130131T235959Z"), "invalid_time", "time"),
        (record(time="2013-02-29T00:00:00Z"), "invalid_time", "time"),
        (record(time="2013-01-31T24:00:00Z"), "invalid_time", "time"),
        (record(time="2012-06-30T23:59:60Z"), "invalid_time", "time"),
        (record(time="2013-01-31T23:59:59+24:00"), "invalid_time", "time"),
        (record(time="2013-01-31T23:59:59,5Z"), "invalid_time", "time"),
        (record(time="\u0662013-01-31T23:59:59Z"), "invalid_time", "time"),
        (record(time="2013-01-31T23:59:59Z "), "invalid_time", "time"),
        (record(time="2013-01-31T23:59:59." + "0" * 64 + "Z"), "invalid_time", "time"),
        (record(time="0001-01-01T00:00:00Z"), "time_out_of_range", "time"),
        (record(time="0001-01-01T00:00:00+12:00"), "time_out_of_range", "time"),
        (record(time="9999-12-31T23:59:59Z"), "time_out_of_range", "time"),
        (record(time="9999-12-31T23:59:59-12:00"), "time_out_of_range", "time"),
        (record(time="1969-12-31T23:59:59.999999999Z"), "time_out_of_range", "time"),
        (record(time="2100-01-01T00:00:00Z"), "time_out_of_range", "time"),
        (b"[" * 100_000, "too_deep", ""),
        # Searched once and not once for each quote, which would take minutes of a 256 KiB event.
        (b'["' + b"[" * 130 + b'\\"' * 125_000, "not_an_event", ""),
        (b"[" * 130 + b'"' + b'\\"' * 125_000, "too_deep", ""),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep", ""),
        (record().replace(b"12.5", b"[" * 100_000 + b"]" * 100_000), "too_deep", ""),
    ],
)
def test_a_bad_record_is_rejected_with_its_reason_and_field(raw: bytes | None, reason: str, field: str) -> None:
    assert reason in REASONS
    assert rejection(raw) == (reason, field)


@pytest.mark.parametrize("escape", ["\\ud800", "\\udfff", "x\\ud800y", "\\ud800\\ud800", "\\udc00\\ud800"])
@pytest.mark.parametrize("attribute", ["id", "source", "type", "subject", "specversion", "time"])
def test_half_a_surrogate_pair_in_an_attribute_is_rejected(attribute: str, escape: str) -> None:
    before = json.dumps(GOOD[attribute])
    raw = record().replace(f'"{attribute}": {before}'.encode(), f'"{attribute}": "{escape}"'.encode())

    assert rejection(raw)[0] in {"not_json", "invalid_text", "invalid_time", "not_an_event"}


def test_a_whole_surrogate_pair_is_the_character_it_stands_for() -> None:
    raw = record().replace(b'"e-1"', b'"\\ud83d\\ude00"')

    assert decode_event(raw).id == "\U0001f600"


def test_bytes_that_are_not_utf8_are_rejected_even_where_nobody_reads_them() -> None:
    raw = record(data={"unread": "MARK"}).replace(b"MARK", b"\xe2\x28\xa1")

    assert rejection(raw) == ("not_json", "")


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(512, "x" * 512), (512, "\u00e9" * 256), (510, "\u20ac" * 170), (512, "\U0001f600" * 128)]
)
def test_an_identity_may_have_512_bytes(size_bytes: int, text: str) -> None:
    assert len(decode_event(record(id=text)).id.encode()) == size_bytes


def nested(depth: int) -> list[bytes]:
    """Events that nest this deep, their own braces counted: in data and beside it, by lists and by objects."""
    lists, objects = b"[" * (depth - 2) + b"]" * (depth - 2), b'{"a":' * (depth - 2) + b"1" + b"}" * (depth - 2)
    made = [record().replace(b"12.5", one) for one in (lists, objects)]
    beside = [b"[" * (depth - 1) + b"]" * (depth - 1), b'{"a":' * (depth - 1) + b"1" + b"}" * (depth - 1)]
    return [*made, *(record(x="MARK").replace(b'"MARK"', one) for one in beside)]


def deeper(frames: int, call: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    return call() if frames == 0 else deeper(frames - 1, call)


@pytest.mark.parametrize("depth", [NESTING_MAX - 1, NESTING_MAX, NESTING_MAX + 1, 400, 960, 990, 993, 995, 999, 1001])
def test_how_deep_an_event_may_nest_does_not_depend_on_the_callers_stack(depth: int) -> None:
    for raw in nested(depth):
        here = outcome(raw)
        far_down = deeper(500, lambda raw=raw: outcome(raw))  # type: ignore[misc]

        assert here == far_down
        assert (here[0] == "event") == (depth <= NESTING_MAX)


def test_brackets_inside_a_string_are_text() -> None:
    tall = '[{"' * 5_000 + "\\" + '\\"[' * 5_000

    assert decode_event(record(data={"note": tall})).id == "e-1"


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert decode_event(record(data=[[{"a": []}] for _ in range(2_000)])).id == "e-1"


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_a_rejection_with_a_known_reason(raw: bytes) -> None:
    found = outcome(raw)

    assert found[0] == "event" or found[1] in REASONS


@given(st.integers(0, 2**63), st.integers(1, 6))
@example(0, 1)
def test_a_good_event_with_bytes_changed_is_an_event_or_a_rejection(seed: int, changes: int) -> None:
    chance = random.Random(seed)
    raw = bytearray(record(data={"bytes": 12.5, "region": "\u00e9\U0001f600", "list": [1, {"deep": None}]}))
    for _ in range(changes):
        at = chance.randrange(len(raw))
        match chance.randrange(3):
            case 0:
                raw[at] = chance.randrange(256)
            case 1:
                del raw[at]
            case _:
                raw[at:at] = bytes(chance.choices(b'{}[]",:\\u0d8\x00\xff-e.1', k=2))

    found = outcome(bytes(raw))

    if found[0] == "event":
        for text in found[1:5]:
            assert 1 <= len(text.encode()) <= 512
        assert isinstance(json.loads(bytes(raw)), dict)  # another parser agrees that this is a JSON object
    else:
        assert found[1] in REASONS


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=8,
    )
)
def test_data_of_any_shape_comes_out_byte_for_byte(data: object) -> None:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    raw = record(data="MARK").replace(b'"MARK"', text.encode())

    assert bytes(decode_event(raw).data) == text.encode()


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2013-01-31T23:59:59.9999999Z", datetime(2013, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("2013-01-31T23:59:59.99999999999999999Z", datetime(2013, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("2013-02-01T00:59:59.9999999+01:00", datetime(2013, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("2013-01-31T23:59:59.0000009Z", datetime(2013, 1, 31, 23, 59, 59, tzinfo=UTC)),
        ("2013-01-31T23:59:59.1Z", datetime(2013, 1, 31, 23, 59, 59, 100000, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2099-12-31T23:59:59.999999999Z", datetime(2099, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("2013-01-31t23:59:59z", datetime(2013, 1, 31, 23, 59, 59, tzinfo=UTC)),
        ("2013-01-31 23:59:59-00:00", datetime(2013, 1, 31, 23, 59, 59, tzinfo=UTC)),
        ("2012-02-29T12:00:00+23:59", datetime(2012, 2, 28, 12, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_cut_to_microseconds_and_never_rounded_into_the_next_period(text: str, utc: datetime) -> None:
    found = parse_time(text)

    assert found == utc
    assert found.utcoffset() == timedelta(0)


@given(
    st.datetimes(datetime(1970, 1, 3), datetime(2099, 12, 29)),  # noqa: DTZ001 - hypothesis wants them naive
    st.integers(-1439, 1439),
)
def test_a_time_in_any_zone_is_the_moment_it_says(naive: datetime, offset_min: int) -> None:
    zoned = naive.replace(tzinfo=timezone(timedelta(minutes=offset_min)))

    assert parse_time(zoned.isoformat(timespec="microseconds")) == zoned


def test_of_two_attributes_with_one_name_the_last_counts() -> None:
    raw = record().replace(b'"id": "e-1"', b'"id": "first", "id": "last"')

    assert decode_event(raw).id == "last"


def test_the_digest_is_the_first_half_of_sha256_read_little_endian() -> None:
    assert event_digest(b"abc") == int.from_bytes(hashlib.sha256(b"abc").digest()[:16], "little")
    assert event_digest(b"") != event_digest(b"\x00")


def test_an_identity_is_not_its_joined_text() -> None:
    split_ways = [("a", "bc", "d"), ("ab", "c", "d"), ("a", "b", "cd"), ("abc", "d", ""), ("", "abc", "d")]

    assert len({identity_hash(*one) for one in split_ways}) == len(split_ways)


def test_an_event_cannot_be_changed() -> None:
    event = decode_event(record())

    with pytest.raises(AttributeError):
        event.id = "other"  # type: ignore[misc]
    assert isinstance(event.data, msgspec.Raw)
