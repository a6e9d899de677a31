"""Periods in zones: daylight saving, leap days, labels, and periods that follow each other without a gap."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import RequestError
from schemas.period import (
    Cadence,
    billing_period,
    billing_period_at,
    month,
    next_period,
    parse_label,
    period_number,
    period_of,
    previous_period,
    start_of_day,
)
from schemas.plan import Anchor, BillingPeriod

ZONES = [
    "UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe",
    "America/Sao_Paulo", "America/St_Johns", "Pacific/Apia", "Asia/Gaza", "Africa/Casablanca",
]  # fmt: skip
MONTHS = Cadence(period=BillingPeriod.MONTH, start=date(2013, 1, 1))
days = st.dates(date(1990, 1, 1), date(2060, 12, 31))
instants = st.datetimes(
    datetime(1990, 1, 1), datetime(2060, 12, 31), timezones=st.just(UTC)  # noqa: DTZ001 - bounds
)  # fmt: skip
cadences = st.builds(
    Cadence,
    period=st.sampled_from(BillingPeriod),
    period_days=st.integers(2, 3_000),
    anchor=st.sampled_from(Anchor),
    start=days,
)


def calendar(period: BillingPeriod, start: str) -> Cadence:
    return Cadence(period=period, anchor=Anchor.CALENDAR, start=date.fromisoformat(start))


def anniversary(period: BillingPeriod, start: str) -> Cadence:
    return Cadence(period=period, anchor=Anchor.ANNIVERSARY, start=date.fromisoformat(start))


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


@given(cadence=cadences, at=days, zone=st.sampled_from(ZONES))
def test_periods_follow_each_other_without_a_gap_or_an_overlap(cadence: Cadence, at: date, zone: str) -> None:
    period = billing_period_at(cadence, at, zone)
    following, before = next_period(cadence, period), previous_period(cadence, period)

    assert (before.end, period.end) == (period.start, following.start)
    assert previous_period(cadence, following) == period
    assert [period_number(cadence, one) - period_number(cadence, period) for one in (before, following)] == [-1, 1]


@given(cadence=cadences, instant=instants, zone=st.sampled_from(ZONES))
def test_every_instant_is_in_the_period_that_contains_it_and_in_no_other(
    cadence: Cadence, instant: datetime, zone: str
) -> None:
    period = billing_period_at(cadence, instant, zone)

    assert period.contains(instant)
    assert not next_period(cadence, period).contains(instant)
    assert not previous_period(cadence, period).contains(instant)


@given(cadence=cadences, at=days, zone=st.sampled_from(ZONES))
def test_a_period_is_found_again_by_its_label(cadence: Cadence, at: date, zone: str) -> None:
    period = billing_period_at(cadence, at, zone)
    named = parse_label(period.label)

    assert billing_period(cadence, period.label, zone) == period_of(period.label, zone) == period
    assert named.first <= at < named.after
    assert named.unit is (cadence.period if cadence.is_calendar else None)


@given(cadence=cadences)
def test_the_first_period_contains_the_first_day(cadence: Cadence) -> None:
    period = billing_period_at(cadence, cadence.start, "UTC")

    assert period_number(cadence, period) == 0
    if not cadence.is_calendar:
        assert parse_label(period.label).first == cadence.start


def labels_from(cadence: Cadence, count: int) -> list[str]:
    period = billing_period_at(cadence, cadence.start, "America/New_York")
    found = [period.label]
    for _ in range(count - 1):
        period = next_period(cadence, period)
        found.append(period.label)
    return found


@pytest.mark.parametrize(
    ("cadence", "labels"),
    [
        (calendar(BillingPeriod.MONTH, "2012-12-31"), ["2012-12", "2013-01", "2013-02"]),
        (calendar(BillingPeriod.QUARTER, "2012-08-05"), ["2012-Q3", "2012-Q4", "2013-Q1"]),
        (calendar(BillingPeriod.YEAR, "2012-08-05"), ["2012", "2013", "2014"]),
        (calendar(BillingPeriod.WEEK, "2015-12-27"), ["2015-W52", "2015-W53", "2016-W01"]),
        (calendar(BillingPeriod.WEEK, "2013-01-01"), ["2013-W01", "2013-W02", "2013-W03"]),
        (
            anniversary(BillingPeriod.MONTH, "2013-01-31"),
            ["2013-01-31..2013-02-28", "2013-02-28..2013-03-31", "2013-03-31..2013-04-30", "2013-04-30..2013-05-31"],
        ),
        (
            anniversary(BillingPeriod.MONTH, "2012-01-30"),
            ["2012-01-30..2012-02-29", "2012-02-29..2012-03-30", "2012-03-30..2012-04-30"],
        ),
        (
            anniversary(BillingPeriod.QUARTER, "2012-11-30"),
            ["2012-11-30..2013-02-28", "2013-02-28..2013-05-30", "2013-05-30..2013-08-30"],
        ),
        (
            anniversary(BillingPeriod.YEAR, "2012-02-29"),
            [
                "2012-02-29..2013-02-28", "2013-02-28..2014-02-28", "2014-02-28..2015-02-28",
                "2015-02-28..2016-02-29", "2016-02-29..2017-02-28",
            ],
        ),
        (anniversary(BillingPeriod.WEEK, "2013-01-03"), ["2013-01-03..2013-01-10", "2013-01-10..2013-01-17"]),
        (
            Cadence(period=BillingPeriod.DAYS, period_days=30, start=date(2013, 1, 15)),
            ["2013-01-15..2013-02-14", "2013-02-14..2013-03-16"],
        ),
    ],
)  # fmt: skip
def test_each_cadence_has_its_periods(cadence: Cadence, labels: list[str]) -> None:
    assert labels_from(cadence, len(labels)) == labels


@pytest.mark.parametrize(
    ("label", "start", "end"),
    [
        ("2013", "2013-01-01T05:00:00+00:00", "2014-01-01T05:00:00+00:00"),
        ("2013-Q1", "2013-01-01T05:00:00+00:00", "2013-04-01T04:00:00+00:00"),
        ("2013-W10", "2013-03-04T05:00:00+00:00", "2013-03-11T04:00:00+00:00"),
        ("2013-01-31..2013-03-31", "2013-01-31T05:00:00+00:00", "2013-03-31T04:00:00+00:00"),
    ],
)
def test_a_label_names_a_span_of_local_days(label: str, start: str, end: str) -> None:
    period = period_of(label, "America/New_York")

    assert (period.start.isoformat(), period.end.isoformat()) == (start, end)


@pytest.mark.parametrize(
    ("cadence", "label"),
    [
        (calendar(BillingPeriod.MONTH, "2013-01-31"), "2013-Q1"),
        (calendar(BillingPeriod.MONTH, "2013-01-31"), "2013-01-31..2013-02-28"),
        (anniversary(BillingPeriod.MONTH, "2013-01-31"), "2013-01"),
        (anniversary(BillingPeriod.MONTH, "2013-01-31"), "2013-01-30..2013-02-28"),
        (anniversary(BillingPeriod.MONTH, "2013-01-31"), "2013-02-28..2013-03-28"),
        (anniversary(BillingPeriod.WEEK, "2013-01-03"), "2013-01-04..2013-01-11"),
    ],
)
def test_a_cadence_has_no_period_of_another_ones_label(cadence: Cadence, label: str) -> None:
    assert billing_period(cadence, label, "UTC") is None


def test_the_end_of_a_period_is_in_the_next_one() -> None:
    january = month("2013-01")

    assert january.contains(january.start)
    assert not january.contains(january.end)
    assert billing_period_at(MONTHS, january.end, "UTC") == month("2013-02")


def test_where_clocks_go_back_over_midnight_the_first_minutes_still_belong_to_the_old_month() -> None:
    # St. John's set its clocks back at 00:01 on Sunday 1 November 2009: 31 October came again for an hour.
    first_midnight = datetime(2009, 11, 1, 2, 30, 30, tzinfo=UTC)

    assert billing_period_at(MONTHS, first_midnight, "America/St_Johns").label == "2009-10"
    assert month("2009-11", "America/St_Johns").start == datetime(2009, 11, 1, 3, 30, tzinfo=UTC)


def test_a_day_begins_at_its_first_instant_where_midnight_is_skipped() -> None:
    assert start_of_day(date(2013, 10, 20), "America/Sao_Paulo") == datetime(2013, 10, 20, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    "label",
    [
        "",
        "2013-1",
        "2013-13",
        "2013-00",
        "2013-Q0",
        "2013-Q5",
        "2013-q1",
        "2013-W00",
        "2013-W53",
        "2013-W1",
        "1969",
        "1969-12",
        "2100-01",
        "2100",
        "\u0662\u0660\u0661\u0663-\u0660\u0661",
        "2013-01 ",
        "2013-01\n",
        "2013-01-31",
        "2013-01-31..",
        "2013-01-31..2013-01-31",
        "2013-01-31..2013-01-30",
        "2013-02-30..2013-03-30",
        "2013-01-31..2013-02-28..2013-03-31",
        "2013-01-01..2023-12-31",
        "2100-01-01..2100-02-01",
        "x" * 10_000,
    ],
)
def test_a_text_that_is_no_label_is_refused(label: str) -> None:
    with pytest.raises(RequestError, match="is no period"):
        parse_label(label)


@given(st.text(max_size=30))
def test_any_text_is_a_label_or_is_refused(text: str) -> None:
    try:
        days = parse_label(text)
    except RequestError:
        return
    assert days.first < days.after


@pytest.mark.parametrize("label", ["2013", "2013-Q1", "2013-W05", "2013-01-01..2013-02-01"])
def test_a_label_of_something_else_is_no_month(label: str) -> None:
    with pytest.raises(RequestError, match="is no month"):
        month(label)


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd", "america/new york"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(RequestError, match="time zone"):
        month("2013-01", zone)


@pytest.mark.parametrize("period", [one for one in BillingPeriod if one is not BillingPeriod.DAYS])
@pytest.mark.parametrize("anchor", Anchor)
def test_there_is_no_period_beyond_the_years_that_events_can_have(period: BillingPeriod, anchor: Anchor) -> None:
    cadence = Cadence(period=period, anchor=anchor, start=date(1970, 1, 1))

    with pytest.raises(RequestError, match="no such period"):
        next_period(cadence, billing_period_at(cadence, date(2099, 12, 31), "UTC"))
    with pytest.raises(RequestError, match="no such period"):
        previous_period(cadence, billing_period_at(cadence, date(1970, 1, 1), "UTC"))
    for day in (date.min, date.max):
        with pytest.raises(RequestError, match="no such period"):
            billing_period_at(cadence, day, "UTC")


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(RequestError, match="has no zone"):
        billing_period_at(MONTHS, datetime(2013, 1, 1), "UTC")  # noqa: DTZ001 - the point
