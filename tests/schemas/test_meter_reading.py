"""What a meter sees of an event: the right field, exactly, and nothing where there is nothing."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.admission import Admission
from schemas.errors import EventRejectedError
from schemas.meter import Aggregation, EventReader, Filter, Measurement, Meter, MeterVersion, measure, paths_of
from schemas.usage_event import UsageEvent, decode_event


def event(data: str) -> UsageEvent:
    return decode_event(
        b'{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"u","time":"2013-01-01T00:00:00Z","data":%b}'
        % data.encode()
    )


def total(path: str, name: str = "total", **more: Any) -> Meter:
    return Meter(name=name, event_type="t", aggregation=Aggregation.SUM, value=path, **more)


def users(path: str = "user") -> Meter:
    return Meter(name="users", event_type="t", aggregation=Aggregation.UNIQUE_COUNT, value=path)


def seen(meter: Meter, data: str) -> Measurement | None:
    return measure(meter, EventReader(paths_of(meter)).read(event(data)))


def rejection(meter: Meter, data: str) -> tuple[str, str]:
    with pytest.raises(EventRejectedError) as caught:
        seen(meter, data)
    return caught.value.reason, caught.value.field


@pytest.mark.parametrize(
    ("path", "data", "value"),
    [
        ("n", '{"n": 12.500}', "12.5"),
        ("n", '{"n":\t-0.000000000001 }', "-0.000000000001"),
        ("n", '{"n": "999999999999999999.999999999999"}', "999999999999999999.999999999999"),
        ("n", '{"n": 1e3}', "1000"),
        ("n", '{"n": 9007199254740993}', "9007199254740993"),
        ("n", '{"n": 0.1}', "0.1"),
        ("n", '{"m": 1, "n": 2, "n": 3}', "3"),
        ("n", '{"\\u006e": 4}', "4"),
        ("usage.bytes", '{"usage": {"bytes": 7}}', "7"),
        ("usage.bytes", '{"usage": {"bytes": 7}, "usage": {"bytes": 8}}', "8"),
        ("a-b", '{"a-b": 1, "a_b": 2, "a_dash_b": 3}', "1"),
        ("a_b", '{"a-b": 1, "a_b": 2, "a_dash_b": 3}', "2"),
    ],
)
def test_a_value_is_read_exactly_where_the_path_says(path: str, data: str, value: str) -> None:
    measured = seen(total(path), data)

    assert measured is not None
    assert measured.value == Decimal(value)


@pytest.mark.parametrize(
    "data",
    [
        "null",
        "17",
        '"n"',
        "[]",
        '[{"n": 1}]',
        "{}",
        '{"n": null}',
        '{"N": 1}',
        '{"n ": 1}',
        '{"m": {"n": 1}}',
    ],
)
def test_a_missing_number_is_not_a_zero(data: str) -> None:
    assert seen(total("n"), data) is None


@pytest.mark.parametrize(
    "data",
    [
        "null",
        "{}",
        '{"a": null}',
        '{"a": 1}',
        '{"a": "b"}',
        '{"a": []}',
        '{"a": {}}',
        '{"a": {"b": null}}',
        '{"a.b": 1}',
    ],
)
def test_a_path_through_something_that_is_no_object_finds_nothing(data: str) -> None:
    assert seen(total("a.b"), data) is None


@pytest.mark.parametrize(
    "value", ["{}", "[]", "[1]", "true", "false", '""', '" 1"', '"1_0"', '"NaN"', '"\u0661"', '"+1"']
)
def test_a_value_of_another_kind_is_rejected(value: str) -> None:
    assert rejection(total("n"), f'{{"n": {value}}}') == ("invalid_number", "data.n")


@pytest.mark.parametrize("value", ["1e400", "0.1234567890123", "1000000000000000000", '"1e18"'])
def test_a_value_with_too_many_digits_is_rejected(value: str) -> None:
    assert rejection(total("a.n"), f'{{"a": {{"n": {value}}}}}') == ("number_out_of_range", "data.a.n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('"eu"', "eu"),
        ('"e\\u0075"', "eu"),
        ('"\\u0000"', "\x00"),
        ('"\U0001f600"', "\U0001f600"),
        ("1.50", "1.50"),
        ("-3", "-3"),
        ("1E2", "1E2"),
        ("true", "true"),
        ("false", "false"),
        ("null", ""),
        ('""', ""),
    ],
)
def test_a_dimension_groups_under_its_text_as_written(value: str, text: str) -> None:
    measured = seen(total("n", group_by={"region": "r"}), f'{{"n": 1, "r": {value}}}')

    assert measured is not None
    assert measured.dimensions == (text,)


@pytest.mark.parametrize("value", ["{}", "[]", '["eu"]', json.dumps("x" * 1025), json.dumps("\u20ac" * 342)])
def test_a_dimension_that_is_no_short_scalar_is_rejected(value: str) -> None:
    assert rejection(total("n", group_by={"region": "r"}), f'{{"n": 1, "r": {value}}}') == (
        "invalid_dimension",
        "data.r",
    )


@pytest.mark.parametrize("text", ["x" * 1024, "\u20ac" * 341, "\U0001f600" * 256])
def test_a_dimension_may_have_1024_bytes(text: str) -> None:
    measured = seen(total("n", group_by={"region": "r"}), json.dumps({"n": 1, "r": text}))

    assert measured is not None
    assert measured.dimensions == (text,)


def test_dimensions_stand_in_the_order_of_their_names() -> None:
    meter = total("n", group_by={"zone": "z", "app": "a", "kind": "k"})

    measured = seen(meter, '{"n": 1, "z": "Z", "a": "A", "k": "K"}')

    assert list(meter.group_by) == ["app", "kind", "zone"]
    assert measured is not None
    assert measured.dimensions == ("A", "K", "Z")


@pytest.mark.parametrize(
    ("one", "data", "counts"),
    [
        (Filter(field="k", any_of=("a", "b")), '{"k": "a"}', True),
        (Filter(field="k", any_of=("a", "b")), '{"k": "c"}', False),
        (Filter(field="k", any_of=("a", "b")), "{}", False),
        (Filter(field="k", any_of=("", "b")), "{}", True),
        (Filter(field="k", any_of=("", "b")), '{"k": null}', True),
        (Filter(field="k", none_of=("a",)), '{"k": "a"}', False),
        (Filter(field="k", none_of=("a",)), "{}", True),
        (Filter(field="k", none_of=("",)), "{}", False),
        (Filter(field="k", any_of=("1",)), '{"k": 1}', True),
        (Filter(field="k", any_of=("1",)), '{"k": 1.0}', False),
        (Filter(field="k", any_of=("true",)), '{"k": true}', True),
        (Filter(field="k", any_of=("a",), none_of=("a",)), '{"k": "a"}', False),
    ],
)
def test_a_filter_compares_the_text_of_its_field(one: Filter, data: str, counts: bool) -> None:
    meter = Meter(name="calls", event_type="t", aggregation=Aggregation.COUNT, filters=(one,))

    assert (seen(meter, data) is not None) == counts


def test_what_a_filter_leaves_out_is_not_judged_by_its_value() -> None:
    meter = total("n", filters=(Filter(field="k", any_of=("a",)),))

    assert seen(meter, '{"k": "b", "n": "rubbish"}') is None


def test_a_count_with_a_value_counts_only_events_that_have_it() -> None:
    meter = Meter(name="calls", event_type="t", aggregation=Aggregation.COUNT, value="n")

    assert seen(meter, '{"n": "anything"}') == Measurement((), Decimal(0), "")
    assert seen(meter, '{"n": null}') is None


@pytest.mark.parametrize(
    ("value", "member"), [('"u1"', "u1"), ("1", "1"), ("1.0", "1.0"), ("true", "true"), ('""', "")]
)
def test_a_counted_member_is_the_text_of_the_value(value: str, member: str) -> None:
    assert seen(users(), f'{{"user": {value}}}') == Measurement((), Decimal(0), member)


def test_an_absent_member_is_not_a_member() -> None:
    assert seen(users(), "{}") is None
    assert seen(users(), '{"user": null}') is None


STEPS = ["a", "b", "a-b", "a_b", "a_dash_b", "a__b", "a_d", "a-", "a_", "A", "_a", "class", "f_a", "None"]
PATHS = st.lists(st.sampled_from(STEPS), min_size=1, max_size=3).map(".".join)
SCALARS = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(max_size=5)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.dictionaries(st.sampled_from(STEPS), inner, max_size=5) | st.lists(inner, max_size=2),
    max_leaves=12,
)


def plainly(data: object, path: str) -> object:
    """What stands at the path, by walking Python's own dicts."""
    for step in path.split("."):
        if not isinstance(data, dict) or step not in data:
            return None
        data = data[step]
    return data


@given(st.sets(PATHS, max_size=6), DATA)
def test_paths_read_together_find_what_each_would_find_alone(paths: set[str], data: object) -> None:
    found = EventReader(frozenset(paths)).read(event(json.dumps(data)))

    assert set(found) == paths
    for path, raw in found.items():
        assert (None if raw is None else json.loads(raw)) == plainly(data, path)


def test_a_dash_in_one_path_is_not_another_path() -> None:
    admission = Admission(
        [
            MeterVersion(meter=total(path, name), version=1, introduced_in=1, start=None, end=None)
            for name, path in [("dashed", "a-b"), ("spelled", "a_dash_b"), ("under", "a_b")]
        ],
        [],
    )

    measured = admission.measurements(event('{"a-b": 1, "a_dash_b": 2, "a_b": 3}'))

    assert {one.meter.name: what.value for one, what in measured} == {"dashed": 1, "spelled": 2, "under": 3}


@pytest.mark.parametrize("depth", [100, 120, 124])
@pytest.mark.parametrize("paths", [{"n"}, {"n", "n.x"}, {"n.x"}, {"n.x.x.x"}, {"z"}])
def test_data_as_deep_as_an_event_may_be_is_read_without_an_error(depth: int, paths: set[str]) -> None:
    data = '{"n":' + '{"x":' * depth + "1" + "}" * (depth + 1)

    found = EventReader(frozenset(paths)).read(event(data))

    assert set(found) == paths
