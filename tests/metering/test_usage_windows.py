"""How a range is cut into windows, and which rollup windows each of them takes whole."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from metering.usage.windows import Run, WindowPlan, plan_windows
from schemas.usage_query import Window
from schemas.zone import zone_of


def plan(start: str, end: str, window: Window, zone: str = "UTC") -> WindowPlan:
    return plan_windows(
        datetime.fromisoformat(start).replace(tzinfo=UTC),
        datetime.fromisoformat(end).replace(tzinfo=UTC),
        window,
        zone_of(zone),
    )


def edges(found: WindowPlan) -> list[str]:
    bounds = [found.bounds(index) for index in range(found.count)]
    return [f"{start:%m-%d %H:%M} {end:%m-%d %H:%M}" for start, end in bounds]


@pytest.mark.parametrize(
    ("window", "zone", "expected"),
    [
        (Window.TOTAL, "UTC", ["03-10 03:20 03-11 05:40"]),
        (Window.DAY, "UTC", ["03-10 03:20 03-11 00:00", "03-11 00:00 03-11 05:40"]),
        (
            Window.DAY,
            "America/New_York",
            ["03-10 03:20 03-10 05:00", "03-10 05:00 03-11 04:00", "03-11 04:00 03-11 05:40"],
        ),
        (Window.MONTH, "America/New_York", ["03-10 03:20 03-11 05:40"]),
    ],
)
def test_the_first_and_the_last_window_end_where_the_range_does(window: Window, zone: str, expected: list[str]) -> None:
    assert edges(plan("2013-03-10T03:20", "2013-03-11T05:40", window, zone)) == expected


def test_hours_of_a_zone_with_an_odd_offset_begin_on_its_own_clocks() -> None:
    found = plan("2013-01-01T00:00", "2013-01-01T02:00", Window.HOUR, "Asia/Kathmandu")

    assert edges(found) == ["01-01 00:00 01-01 00:15", "01-01 00:15 01-01 01:15", "01-01 01:15 01-01 02:00"]


def test_a_day_that_a_zone_left_out_is_no_window() -> None:
    found = plan("2011-12-29T10:00", "2011-12-31T10:00", Window.DAY, "Pacific/Apia")

    assert edges(found) == ["12-29 10:00 12-30 10:00", "12-30 10:00 12-31 10:00"]


def test_a_range_on_rollup_windows_needs_no_events() -> None:
    found = plan("2013-01-01T00:15", "2013-01-01T00:45", Window.QUARTER_HOUR)

    assert (found.split_quarters_s, found.full_to_s - found.full_from_s, found.count) == ((), 1_800, 2)


def test_a_range_inside_one_rollup_window_is_left_to_events_alone() -> None:
    found = plan("2013-01-01T00:01", "2013-01-01T00:02", Window.TOTAL)

    assert len(found.split_quarters_s) == 1
    assert found.full_from_s > found.full_to_s


def test_a_year_of_days_is_few_runs_of_equal_windows() -> None:
    found = plan("2013-01-01T05:00", "2014-01-01T05:00", Window.DAY, "America/New_York")

    assert found.count == 365
    assert [run.step_s // 3_600 for run in found.runs] == [24, 23, 24, 25, 24]
    assert found.runs[0] == Run(start_s=1_357_016_400, step_s=86_400)
