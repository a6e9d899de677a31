"""What an event's dimensions read as, where a day had more values than its meter takes."""

from __future__ import annotations

import pytest

from schemas.group_overflow import NO_OVERFLOWS, Overflow, Overflows
from schemas.meter import Aggregation, Meter, MeterVersion, taken_values
from schemas.meter_versions import measures
from schemas.usage_event import UsageEvent, decode_event

METER = Meter(
    name="calls", event_type="used", aggregation=Aggregation.COUNT, group_by={"region": "region", "app": "app"}
)
VERSION = MeterVersion(meter=METER, version=2, introduced_in=1, start=None, end=None)
FULL = Overflow(
    meter="calls",
    meter_version=2,
    subject="s1",
    day=15_706,
    epoch="log",
    partition=3,
    position_first=100,
    position_end=200,
    dimension="region",
    kept=frozenset({"eu", "us", "other"}),
)
"""2013-01-01."""


def event(subject: str = "s1", time: str = "2013-01-01T23:59:59.999999Z") -> UsageEvent:
    text = '{"specversion":"1.0","id":"1","source":"/a","type":"used","subject":"%s","time":"%s","data":{}}'
    return decode_event((text % (subject, time)).encode())


@pytest.mark.parametrize(
    ("dimensions", "wanted"),
    [(("a", "eu"), ("a", "eu")), (("a", "asia"), ("a", "other")), (("asia", "other"), ("asia", "other"))],
)
def test_only_the_dimension_that_is_full_and_only_values_it_does_not_keep_read_as_other(
    dimensions: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    assert Overflows([FULL]).dimensions(VERSION, event(), ("log", 3, 150), dimensions) == wanted


@pytest.mark.parametrize(
    ("of", "place"),
    [
        (event(), ("log", 3, 99)),
        (event(), ("log", 3, 200)),
        (event(), ("log", 4, 150)),
        (event(), ("other log", 3, 150)),
        (event(subject="s2"), ("log", 3, 150)),
        (event(time="2013-01-02T00:00:00Z"), ("log", 3, 150)),
        (event(time="2012-12-31T23:59:59.999999Z"), ("log", 3, 150)),
    ],
)
def test_another_day_subject_partition_or_series_keeps_values_of_its_own(
    of: UsageEvent, place: tuple[str, int, int]
) -> None:
    assert Overflows([FULL]).dimensions(VERSION, of, place, ("a", "asia")) == ("a", "asia")


def test_where_nothing_is_full_everything_reads_as_it_is() -> None:
    assert NO_OVERFLOWS.dimensions(VERSION, event(), ("log", 3, 150), ("a", "asia")) == ("a", "asia")
    assert not NO_OVERFLOWS


def test_a_balance_has_no_limit_and_a_meter_without_dimensions_needs_none() -> None:
    weighted = Meter(
        name="seats", event_type="used", aggregation=Aggregation.TIME_WEIGHTED, value="n", group_by={"region": "region"}
    )
    plain = Meter(name="all", event_type="used", aggregation=Aggregation.COUNT)

    assert [taken_values(one) for one in (METER, weighted, plain)] == [1_000, None, None]


def test_another_limit_is_another_version_of_the_meter_only_where_it_is_one() -> None:
    plain = Meter(name="all", event_type="used", aggregation=Aggregation.COUNT)
    few, none = (
        Meter(
            name=one.name,
            event_type=one.event_type,
            aggregation=one.aggregation,
            group_by=one.group_by,
            group_values_max=2,
        )
        for one in (METER, plain)
    )

    assert measures(few) != measures(METER)
    assert measures(none) == measures(plain)
