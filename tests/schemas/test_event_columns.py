"""Many events at once and each by itself: whatever the bytes, columns say what single events say."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.admission import Admission
from schemas.errors import EventRejectedError
from schemas.meter import Measurement, Meter, MeterVersion
from schemas.quantity import ZERO, add_all, parse_token, parse_tokens
from schemas.usage_event import UsageEvent, columns_of, decode_event, decode_events

NEW_YEAR = datetime(2013, 1, 1, tzinfo=UTC)
GOOD = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/app",
    "type": "used",
    "subject": "acme",
    "time": "2013-01-01T00:00:00Z",
    "data": {"n": 1},
}

TEXTS = st.sampled_from(["", "e-1", "\u00fc", "\u200b", "\x7f", "x" * 512, "x" * 513, "\u20ac" * 171, "7"])
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "specversion": st.sampled_from(["1.0", "0.3", 1]),
        "id": TEXTS,
        "source": TEXTS,
        "type": TEXTS,
        "subject": TEXTS,
        "time": st.sampled_from(["2013-01-01T00:00:00.1234567+05:30", "1969-12-31T23:59:59Z", "9999-99-99", ""]),
        "data": st.sampled_from([None, [], "x", {"deep": {"n": [1]}}, {"wide": [[]] * 200}]),
        "more": st.sampled_from(["\u20ac", {"n": 1}]),
    },
)
BROKEN = st.sampled_from([
    b"", None, b"{}", b"[]", b"nul", b'{"a":1}{"b":2}', b"[" * 300, b'{"x":"\xff"}',
    json.dumps(GOOD).encode() + b"\xc3", json.dumps(GOOD).encode().replace(b"acme", b"ac\xffme"),
    json.dumps(GOOD).encode().replace(b"acme", b"ac\\ud800me"), json.dumps(GOOD).encode()[:-1],
    json.dumps(GOOD).encode()[:-1] + b',"deep":' + b"[" * 200 + b"]" * 200 + b"}",
])  # fmt: skip
RECORDS = CHANGES.map(lambda changes: json.dumps({**GOOD, **changes}, ensure_ascii=False).encode())


@given(st.lists(RECORDS, min_size=1, max_size=4) | st.lists(RECORDS | BROKEN, max_size=4))
def test_records_decode_together_into_what_each_decodes_to_or_not_at_all(records: list[bytes | None]) -> None:
    alone: list[UsageEvent] | None
    try:
        alone = [decode_event(record) for record in records]
    except EventRejectedError:
        alone = None

    together = decode_events(records)

    assert together == (columns_of(alone) if alone else None)
    if together is not None and alone is not None:
        assert [together.at(row) for row in range(len(records))] == alone


def version(
    number: int = 1, *, start: datetime | None = None, end: datetime | None = None, **meter: object
) -> MeterVersion:
    made = msgspec.convert({"name": "m", "event_type": "used", **meter}, Meter)
    return MeterVersion(meter=made, version=number, introduced_in=1, start=start, end=end)


VERSIONS = [
    version(name="calls", aggregation="count", group_by={"region": "region"}),
    version(name="total", aggregation="sum", value="n", group_by={"region": "region", "app": "deep.app"}),
    version(name="tested", aggregation="max", value="n", filters=[{"field": "region", "any_of": ["test", ""]}]),
    version(name="users", aggregation="unique_count", value="user", filters=[{"field": "n", "none_of": ["1", "x"]}]),
    version(name="changed", aggregation="sum", value="n", end=NEW_YEAR),
    version(2, name="changed", aggregation="sum", value="m", start=NEW_YEAR),
    version(name="others", event_type="other", aggregation="latest", value="n"),
]
WHOLE_AND_PARTS = [version(name="parts", aggregation="sum", value="deep.n", group_by={"deep": "deep"})]
VALUES: st.SearchStrategy[object] = st.sampled_from(
    [None, 1, 0, -0.0, 12.5, "12.5", "NaN", "1_000", "x", True, [], {}, {"app": "a"}, {"app": [1]}, {"n": 2}]
)
DATA: st.SearchStrategy[object] = st.dictionaries(
    st.sampled_from(["n", "m", "region", "user", "deep"]), VALUES
) | st.sampled_from([None, [], 7])
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["used", "used", "other", "idle", "unheard"]),
        st.sampled_from(["2012-12-31T23:59:59Z", "2013-01-01T00:00:00Z"]),
        DATA,
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("versions", [VERSIONS, WHOLE_AND_PARTS, VERSIONS[:1], []])
@given(made=EVENTS)
def test_meters_see_of_many_events_what_they_see_of_each(
    versions: list[MeterVersion], made: list[tuple[str, str, object]]
) -> None:
    admission = Admission(versions, ["idle"])
    events = [
        decode_event(json.dumps({**GOOD, "type": kind, "time": time, "data": data}).encode())
        for kind, time, data in made
    ]
    alone: dict[int, list[tuple[MeterVersion, Measurement]]] = {}
    refused: dict[int, tuple[str, str, str]] = {}
    for row, event in enumerate(events):
        try:
            alone[row] = admission.measurements(event)
        except EventRejectedError as error:
            refused[row] = (error.reason, error.field, error.what)

    measured = admission.measure(columns_of(events), range(len(events)))

    assert {row: (one.reason, one.field, one.what) for row, one in measured.rejections.items()} == refused
    found: dict[int, dict[tuple[str, int], Measurement]] = {row: {} for row in alone}
    for seen in measured.seen:
        assert list(seen.rows) == sorted(set(seen.rows))
        for place, row in enumerate(seen.rows):
            value = seen.values[place] if seen.values else ZERO
            member = seen.members[place] if seen.members else ""
            key = (seen.version.meter.name, seen.version.version)
            found[row][key] = Measurement(seen.dimensions[place], value, member)
    assert found == {
        row: {(one.meter.name, one.version): what for one, what in several} for row, several in alone.items()
    }


TOKENS = st.sampled_from(
    [b"1", b"-0", b"0.5", b"-12.25", b"1e3", b"01", b"", b"1\n2", b" 1", b"999999999999999999", b"1" * 19]
)


@given(st.lists(TOKENS, min_size=1, max_size=5))
def test_numbers_read_together_are_those_read_one_by_one(tokens: list[bytes]) -> None:
    together = parse_tokens(tokens)

    if together is not None:
        assert [str(one) for one in together] == [str(parse_token(token)) for token in tokens]
    else:
        assert any(token not in {b"1", b"-0", b"0.5", b"-12.25", b"999999999999999999"} for token in tokens)


def test_a_sum_of_many_numbers_has_every_digit() -> None:
    huge, tiny = parse_token(b"999999999999999999.999999999999"), parse_token(b"0.000000000001")

    assert str(add_all(huge, [huge, huge, tiny])) == "2999999999999999999.999999999998"
