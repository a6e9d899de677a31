"""When local days begin, at the changes of clocks that are easy to get wrong."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import RequestError
from schemas.zone import day_start, zone_of

TRICKY_ZONES = [
    "UTC", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns",
    "America/Havana", "America/Sao_Paulo", "Pacific/Apia", "Africa/Monrovia", "Antarctica/Casey", "Africa/Cairo",
]  # fmt: skip


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        ("America/New_York", "2013-03-10", "2013-03-10T05:00:00+00:00"),
        ("America/New_York", "2013-03-11", "2013-03-11T04:00:00+00:00"),
        ("Asia/Kathmandu", "2013-01-01", "2012-12-31T18:15:00+00:00"),
        # The clock went from 00:00 to 01:00: the day had no midnight.
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00+00:00"),
        # The clock went from 01:00 back to 00:00: the first midnight begins the day, which has 25 hours.
        ("America/Havana", "2012-11-04", "2012-11-04T04:00:00+00:00"),
        # The clock went from 00:01 back to 23:01: the second midnight begins the day.
        ("America/St_Johns", "2009-11-01", "2009-11-01T03:30:00+00:00"),
        ("Africa/Monrovia", "1971-06-01", "1971-06-01T00:44:30+00:00"),
        ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00+00:00"),
        ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00+00:00"),
    ],
)
def test_a_local_day_begins_when_the_clocks_of_the_zone_say_so(zone: str, day: str, expected: str) -> None:
    assert day_start(date.fromisoformat(day), zone_of(zone)).isoformat() == expected


@given(st.sampled_from(TRICKY_ZONES), st.dates(date(1970, 1, 2), date(2037, 12, 30)))
def test_days_follow_each_other_and_an_instant_after_its_start_the_day_has_begun(name: str, day: date) -> None:
    zone = zone_of(name)
    start, end = day_start(day, zone), day_start(day + timedelta(days=1), zone)

    assert timedelta(0) <= end - start <= timedelta(hours=25)
    assert start == end or start.astimezone(zone).date() == day


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", "a\0b", "x" * 10_000]
)
def test_text_that_names_no_zone_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="is no IANA time zone"):
        zone_of(name)


def test_a_misspelt_zone_is_answered_with_the_likely_one() -> None:
    with pytest.raises(RequestError, match="Did you mean America/New_York"):
        zone_of("america/new_yrok")
