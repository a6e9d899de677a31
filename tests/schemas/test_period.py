"""Months in zones: daylight saving, leap days, and periods that follow each other without a gap."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import RequestError
from schemas.period import containing, month, start_of_day

ZONES = [
    "UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe",
    "America/Sao_Paulo", "America/St_Johns", "Pacific/Apia", "Asia/Gaza", "Africa/Casablanca",
]  # fmt: skip
labels = st.builds("{:04}-{:02}".format, st.integers(1971, 2098), st.integers(1, 12))


def hours(label: str, zone: str) -> float:
    period = month(label, zone)
    return (period.end - period.start) / timedelta(hours=1)


def test_a_month_begins_at_local_midnight_and_daylight_saving_moves_it() -> None:
    march = month("2013-03", "America/New_York")

    assert (march.start.isoformat(), march.end.isoformat()) == (
        "2013-03-01T05:00:00+00:00",
        "2013-04-01T04:00:00+00:00",
    )


@pytest.mark.parametrize(
    ("label", "zone", "expected_hours"),
    [
        ("2013-02", "America/New_York", 28 * 24),
        ("2013-03", "America/New_York", 31 * 24 - 1),
        ("2013-11", "America/New_York", 30 * 24 + 1),
        ("2012-02", "UTC", 29 * 24),
        ("2000-02", "UTC", 29 * 24),
        ("2100-02", "UTC", None),
        ("2013-04", "Australia/Lord_Howe", 30 * 24 + 0.5),
        ("2011-12", "Pacific/Apia", 30 * 24),
    ],
)
def test_a_month_has_the_hours_its_clocks_show(label: str, zone: str, expected_hours: float | None) -> None:
    if expected_hours is None:
        with pytest.raises(RequestError):
            month(label, zone)
    else:
        assert hours(label, zone) == expected_hours


@given(label=labels, zone=st.sampled_from(ZONES))
def test_the_next_month_begins_where_this_one_ends(label: str, zone: str) -> None:
    period = month(label, zone)

    assert period.next().start == period.end
    assert period.next().previous() == period
    assert period.previous().end == period.start


@given(
    instant=st.datetimes(datetime(1971, 1, 1), datetime(2098, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds
    zone=st.sampled_from(ZONES),
)
def test_every_instant_is_in_the_period_that_contains_it_and_in_no_other(instant: datetime, zone: str) -> None:
    period = containing(instant, zone)

    assert period.contains(instant)
    assert not period.next().contains(instant)
    assert not period.previous().contains(instant)


def test_the_end_of_a_period_is_in_the_next_one() -> None:
    january = month("2013-01")

    assert january.contains(january.start)
    assert not january.contains(january.end)
    assert containing(january.end) == month("2013-02")


def test_where_clocks_go_back_over_midnight_the_first_minutes_still_belong_to_the_old_month() -> None:
    # St. John's set its clocks back at 00:01 on Sunday 1 November 2009: 31 October came again for an hour.
    first_midnight = datetime(2009, 11, 1, 2, 30, 30, tzinfo=UTC)

    assert containing(first_midnight, "America/St_Johns").label == "2009-10"
    assert month("2009-11", "America/St_Johns").start == datetime(2009, 11, 1, 3, 30, tzinfo=UTC)


def test_a_day_begins_at_its_first_instant_where_midnight_is_skipped() -> None:
    assert start_of_day(date(2013, 10, 20), "America/Sao_Paulo") == datetime(2013, 10, 20, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    "label",
    [
        "",
        "2013",
        "2013-1",
        "2013-13",
        "2013-00",
        "1969-12",
        "2100-01",
        "\u0662\u0660\u0661\u0663-\u0660\u0661",
        "2013-01 ",
    ],
)
def test_a_label_that_is_no_month_is_refused(label: str) -> None:
    with pytest.raises(RequestError, match="is no period"):
        month(label)


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd", "america/new york"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(RequestError, match="time zone"):
        month("2013-01", zone)


def test_there_is_no_period_beyond_the_years_that_events_can_have() -> None:
    with pytest.raises(RequestError, match="no period beside"):
        month("2099-12").next()
    with pytest.raises(RequestError, match="no period beside"):
        month("1970-01").previous()


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(RequestError, match="has no zone"):
        containing(datetime(2013, 1, 1))  # noqa: DTZ001 - the point
