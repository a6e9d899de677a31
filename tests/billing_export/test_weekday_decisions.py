"""Drops and spikes: what is usual on a weekday, which percentages of it are reached, and which days are looked at."""

from __future__ import annotations

import statistics
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_export.alerts.log_reach import is_counted
from billing_export.alerts.weekdays import DayUse, day_alerts, days_before, local_day, open_days, usual
from schemas.alert import AlertRule, Watch
from schemas.zone import day_of

DAY = local_day(date(2024, 3, 5), ZoneInfo("UTC"), hours_after=6)
DROP = AlertRule(id="fall", watch=Watch.DROP, thresholds=(50, 20))
SPIKE = AlertRule(id="rise", watch=Watch.SPIKE, thresholds=(200, 300))
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "America/St_Johns", "Pacific/Kiritimati")

quantities = st.decimals(min_value=0, max_value=10**18 - 1, places=12).map(abs)
weeks_before = st.lists(st.one_of(st.just(Decimal(0)), quantities), min_size=1, max_size=12).map(tuple)


def use(used: str | Decimal, *before: str | Decimal) -> DayUse:
    return DayUse(
        customer="acme", meter="sum", unit="things", day=DAY, used=Decimal(used), before=tuple(map(Decimal, before))
    )


def reached(rule: AlertRule, one: DayUse, *, hours_after: int = 6) -> list[int]:
    as_of = DAY.end + timedelta(hours=hours_after)
    return [alert.threshold for alert in day_alerts(rule, one, as_of=as_of)]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (("100", "90", "120", "80"), "95"),
        (("100", "90", "120"), "100"),
        (("0.000000000001", "0.000000000002"), "0.0000000000015"),
        (("999999999999999999.999999999999",) * 4, "999999999999999999.999999999999"),
        (("0", "100", "100", "100"), "100"),  # a holiday last week
        (("100", "90", "0", "0"), "95"),  # the customer began two weeks ago
        (("100", "0", "0", "0"), None),  # and one week ago: that is no custom yet
        (("0", "0", "0", "0"), None),
        (("100",), "100"),
        (("0",), None),
    ],
)
def test_the_usual_is_the_median_since_there_was_usage(before: tuple[str, ...], expected: str | None) -> None:
    assert usual([Decimal(one) for one in before]) == (None if expected is None else Decimal(expected))


@pytest.mark.parametrize(
    ("used", "drops", "spikes"),
    [
        ("0", [50, 20], []),
        ("20", [50, 20], []),
        ("20.000000000001", [50], []),
        ("50", [50], []),
        ("50.000000000001", [], []),
        ("100", [], []),
        ("199.999999999999", [], []),
        ("200", [], [200]),
        ("300", [], [200, 300]),
    ],
)
def test_a_percentage_is_reached_exactly(used: str, drops: list[int], spikes: list[int]) -> None:
    one = use(used, "100", "100", "100", "100")

    assert (reached(DROP, one), reached(SPIKE, one)) == (drops, spikes)


def test_a_drop_is_judged_once_its_day_is_over_and_a_spike_at_once() -> None:
    before = ("100", "100", "100", "100")

    drops = [reached(DROP, use("10", *before), hours_after=hours) for hours in (-6, 0, 5, 6)]
    spikes = reached(SPIKE, use("200", *before), hours_after=-20)

    assert drops == [[], [], [], [50, 20]]
    assert spikes == [200]


def test_little_usage_is_not_told_of() -> None:
    drop = AlertRule(id="fall", watch=Watch.DROP, quantity_min=Decimal(100))
    spike = AlertRule(id="rise", watch=Watch.SPIKE, quantity_min=Decimal(100))

    assert reached(drop, use("0", "99", "99")) == []
    assert reached(drop, use("0", "100", "100")) == [50]
    assert reached(spike, use("99", "10", "10")) == []
    assert reached(spike, use("100", "10", "10")) == [200]


def test_what_is_told_names_the_day_what_is_usual_and_what_was_used() -> None:
    [alert] = day_alerts(AlertRule(id="fall", watch=Watch.DROP), use("7.5", "100", "91"), as_of=DAY.judged_from)

    assert (alert.watch, alert.limit_id, alert.threshold) == (Watch.DROP, "2024-03-05", 50)
    assert (alert.limit, alert.value, alert.unit) == (Decimal("95.5"), Decimal("7.5"), "things")
    assert (alert.period_start, alert.period_end) == (
        datetime(2024, 3, 5, tzinfo=UTC),
        datetime(2024, 3, 6, tzinfo=UTC),
    )


def test_a_median_between_the_last_decimals_is_compared_exactly_and_stored_with_twelve() -> None:
    tiny = ("0.000000000001", "0.000000000002")
    found = list(day_alerts(SPIKE, use("0.000000000003", *tiny), as_of=DAY.start))

    assert [(one.threshold, one.limit) for one in found] == [(200, Decimal("0.000000000002"))]


@given(before=weeks_before, used=quantities, percent=st.integers(1, 10_000))
def test_what_is_reached_is_what_fractions_say(before: tuple[Decimal, ...], used: Decimal, percent: int) -> None:
    since_usage = list(before)
    while since_usage and since_usage[-1] == 0:
        since_usage.pop()
    known = len(since_usage) >= min(2, len(before))
    middle = statistics.median([Fraction(one) for one in since_usage]) if known else Fraction(0)
    share = Fraction(used) * 100

    if percent < 100:
        rule = AlertRule(id="r", watch=Watch.DROP, thresholds=(percent,))
        expected = [percent] if middle > 0 and share <= middle * percent else []
    else:
        rule = AlertRule(id="r", watch=Watch.SPIKE, thresholds=(percent,))
        expected = [percent] if middle > 0 and share >= middle * percent else []
    assert reached(rule, use(used, *before)) == expected


@given(before=weeks_before, used=quantities, more=quantities)
def test_no_day_is_a_drop_and_a_spike_and_more_usage_is_never_less_of_a_spike(
    before: tuple[Decimal, ...], used: Decimal, more: Decimal
) -> None:
    less, greater = use(min(used, more), *before), use(max(used, more), *before)

    assert not (reached(DROP, less) and reached(SPIKE, less))
    assert set(reached(SPIKE, less)) <= set(reached(SPIKE, greater))
    assert set(reached(DROP, greater)) <= set(reached(DROP, less))


@given(
    seconds=st.integers(0, 4 * 365 * 86_400),
    zone=st.sampled_from(ZONES),
    hours_after=st.integers(0, 48),
)
def test_a_day_is_looked_at_from_its_start_until_a_day_after_it_can_be_judged(
    seconds: int, zone: str, hours_after: int
) -> None:
    now = datetime(2011, 6, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    rule = AlertRule(id="r", watch=Watch.DROP, hours_after=hours_after)
    here = ZoneInfo(zone)

    found = open_days(rule, here, now)

    today = day_of(now, here)
    near = [local_day(today - timedelta(days=back), here, hours_after=hours_after) for back in range(-2, 8)]
    assert found == [
        one for one in near if one.start < one.end and one.start <= now < one.judged_from + timedelta(days=1)
    ]
    assert found[0].day == today


def test_a_day_that_a_zone_skipped_is_not_looked_at() -> None:
    now = datetime(2011, 12, 31, 12, tzinfo=UTC)

    found = open_days(AlertRule(id="r", watch=Watch.DROP, hours_after=24), ZoneInfo("Pacific/Apia"), now)

    assert [one.day.isoformat() for one in found] == ["2012-01-01", "2011-12-31", "2011-12-29"]


@given(day=st.dates(date(2000, 1, 1), date(2090, 1, 1)), weeks=st.integers(1, 12))
def test_days_are_compared_with_the_same_weekday(day: date, weeks: int) -> None:
    found = days_before(day, weeks)

    assert {one.weekday() for one in found} == {day.weekday()}
    assert [(day - one).days for one in found] == [7 * number for number in range(1, weeks + 1)]


@pytest.mark.parametrize(
    ("ledger", "ends", "expected"),
    [
        ({}, {}, True),
        ({}, {0: (0, 0)}, True),  # nothing was ever written
        ({}, {0: (7, 7)}, True),  # nothing is kept any more
        ({}, {0: (0, 1)}, False),
        ({("log", 0): 8}, {0: (0, 10)}, False),
        ({("log", 0): 9}, {0: (0, 10)}, True),
        ({("log", 0): 9}, {0: (0, 10), 1: (0, 3)}, False),
        ({("log", 0): 9, ("log", 1): 5}, {0: (0, 10), 1: (0, 3)}, True),
        ({("another", 0): 9}, {0: (0, 10)}, False),
    ],
)
def test_the_log_is_counted_when_the_ledger_has_come_to_its_ends(
    ledger: dict[tuple[str, int], int], ends: dict[int, tuple[int, int]], expected: bool
) -> None:
    assert is_counted(ledger, ("log", ends)) is expected
