"""Answers about usage, from rollups and events in a real ClickHouse, against counts made in plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from metering.testing import ClickHouseUnderTest
from metering.usage.answer import answer
from metering.usage.recount import recount
from schemas.catalog import AppliedCatalog, Customer, applied
from schemas.errors import InvariantViolationError, RequestError
from schemas.meter import Aggregation
from schemas.quantity import format_quantity
from schemas.usage_query import By, Cut, Position, UsageQuery, Window
from tests.support.made_usage import AGGREGATIONS, MadeEvent, UsageTables, made_catalog, usage_tables

CUSTOMERS = (
    Customer(id="acme", subjects=("s1", "s2"), timezone="America/New_York"),
    Customer(id="bolt", subjects=("s3",)),
)
CATALOG = made_catalog(CUSTOMERS)


@pytest.fixture(scope="module")
def module_tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        yield made


@pytest.fixture
def tables(module_tables: UsageTables) -> UsageTables:
    module_tables.clear()
    module_tables.store(CATALOG)
    return module_tables


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ask(tables: UsageTables, query: UsageQuery, catalog: AppliedCatalog = CATALOG) -> list[tuple[str, str, str, str]]:
    """(who, start of window, dimensions, quantity) of every row; the recount from events must say the same."""
    rows = answer(tables.client, catalog, query)
    assert recount(tables.client, catalog, query) == rows
    return [
        (
            row.who,
            f"{row.window_start:%Y-%m-%dT%H:%M}",
            "/".join(row.dimensions.values()),
            format_quantity(row.quantity),
        )
        for row in rows
    ]


def query(meter: str, start: str, end: str, **more: object) -> UsageQuery:
    return UsageQuery(meter=meter, start=at(start), end=at(end), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("meter", "expected"),
    [
        ("count", "4"),
        ("sum", "10.5"),
        ("min", "-2"),
        ("max", "9"),
        ("avg", "3.5"),
        ("latest", "3.5"),
        ("unique_count", "2"),
    ],
)
def test_each_aggregation_is_merged_over_windows_and_partitions(tables: UsageTables, meter: str, expected: str) -> None:
    tables.fold(
        [
            MadeEvent(time=at("2013-01-05T10:00:00"), value="9", user="ann", partition=0, offset=0),
            MadeEvent(time=at("2013-01-05T10:20:00"), value="-2", user="bob", partition=1, offset=0),
            MadeEvent(time=at("2013-01-09T10:00:00"), value="3.5", user="ann", partition=0, offset=1),
            MadeEvent(time=at("2013-01-07T10:00:00"), value=None, user="bob", partition=0, offset=2),
        ]
    )

    assert ask(tables, query(meter, "2013-01-01", "2013-02-01")) == [("acme", "2013-01-01T00:00", "", expected)]


def test_a_balance_begins_at_the_very_microsecond_that_is_asked_for(tables: UsageTables) -> None:
    """One since before, two more right after a start that lies between two seconds, and three in the window after."""
    tables.fold(
        [
            MadeEvent(time=at("2013-01-05T08:15:00"), value="1", offset=0),
            MadeEvent(time=at("2013-01-05T08:15:00.000002"), value="2", offset=1),
            MadeEvent(time=at("2013-01-05T08:30:00"), value="3", offset=2),
        ]
    )
    asked = query("time_weighted", "2013-01-05T08:15:00.000001", "2013-01-05T08:45:00")

    ask(tables, asked)
    [row] = answer(tables.client, CATALOG, asked)

    assert row.events_count == 2
    assert row.integral == Decimal("1799.999999") + 2 * Decimal("1799.999998") + 3 * 900


def test_a_member_of_two_subjects_of_a_customer_counts_once_for_the_customer(tables: UsageTables) -> None:
    tables.fold(
        [
            MadeEvent(subject="s1", time=at("2013-01-05"), user="ann", offset=0),
            MadeEvent(subject="s2", time=at("2013-01-06"), user="ann", offset=1),
            MadeEvent(subject="s3", time=at("2013-01-07"), user="ann", offset=2),
        ]
    )
    january = query("unique_count", "2013-01-01", "2013-02-01")

    assert [(who, number) for who, _, _, number in ask(tables, january)] == [("acme", "1"), ("bolt", "1")]
    by_subject = msgspec.structs.replace(january, by=By.SUBJECT)
    assert [(who, number) for who, _, _, number in ask(tables, by_subject)] == [("s1", "1"), ("s2", "1"), ("s3", "1")]


def test_a_member_on_both_sides_of_a_boundary_inside_a_rollup_window_counts_once(tables: UsageTables) -> None:
    tables.fold(
        [
            MadeEvent(time=at("2013-01-05T09:59"), user="early", offset=0),
            MadeEvent(time=at("2013-01-05T10:05"), user="ann", offset=1),
            MadeEvent(time=at("2013-01-05T10:06"), user="bob", offset=2),
            MadeEvent(time=at("2013-01-05T10:30"), user="ann", offset=3),
            MadeEvent(time=at("2013-01-05T11:01"), user="ann", offset=4),
            MadeEvent(time=at("2013-01-05T11:02"), user="late", offset=5),
        ]
    )

    found = ask(tables, query("unique_count", "2013-01-05T10:05", "2013-01-05T11:02"))

    assert found == [("acme", "2013-01-05T10:05", "", "2")]


def test_usage_that_no_customer_owns_shows_by_subject_and_for_everything_but_for_no_customer(
    tables: UsageTables,
) -> None:
    tables.fold([MadeEvent(subject=one, time=at("2013-01-05"), offset=n) for n, one in enumerate(("s1", "stray"))])
    january = query("count", "2013-01-01", "2013-02-01")

    whos = {by: [row[0] for row in ask(tables, msgspec.structs.replace(january, by=by))] for by in By}

    assert whos == {By.CUSTOMER: ["acme"], By.SUBJECT: ["s1", "stray"], By.EVERYTHING: [""]}
    everything = msgspec.structs.replace(january, by=By.EVERYTHING)
    assert [row.quantity for row in answer(tables.client, CATALOG, everything)] == [2]


def test_ownership_is_that_of_the_catalog_asked_with_not_of_the_newest(tables: UsageTables) -> None:
    moved = made_catalog([Customer(id="acme", subjects=("s1",)), Customer(id="bolt", subjects=("s2", "s3"))], version=2)
    tables.store(moved)
    tables.fold([MadeEvent(subject="s2", time=at("2013-01-05"), offset=0)])
    january = query("count", "2013-01-01", "2013-02-01")

    assert [row[0] for row in ask(tables, january)] == ["acme"]
    assert [row[0] for row in ask(tables, january, moved)] == ["bolt"]


@pytest.mark.parametrize("meter", ["count", "unique_count"])
def test_customers_with_more_subjects_than_a_statement_names_get_the_same_answer(
    tables: UsageTables, monkeypatch: pytest.MonkeyPatch, meter: str
) -> None:
    tables.fold(
        [
            MadeEvent(subject=f"s{n}", time=at("2013-01-05T09:59"), offset=n, user="ann" if n < 3 else "bob")
            for n in (1, 2, 3, 4)
        ]
    )
    asked = query(meter, "2013-01-05T09:58", "2013-01-06", customers=("acme", "bolt"))

    named = ask(tables, asked)
    monkeypatch.setattr("metering.usage.owners.OWNED_BYTES_MAX", 0)
    looked_up = ask(tables, asked)

    assert [row[0] for row in named] == ["acme", "bolt"]
    assert looked_up == named


def test_subjects_and_customers_narrow_the_answer(tables: UsageTables) -> None:
    tables.fold([MadeEvent(subject=f"s{n}", time=at("2013-01-05"), offset=n) for n in (1, 2, 3, 4)])
    by_subject = query("count", "2013-01-01", "2013-02-01", by=By.SUBJECT)

    def subjects(**more: tuple[str, ...]) -> list[str]:
        return [row[0] for row in ask(tables, msgspec.structs.replace(by_subject, **more))]

    assert subjects(subjects=("s2", "s4")) == ["s2", "s4"]
    assert subjects(customers=("acme",)) == ["s1", "s2"]
    assert subjects(customers=("acme",), subjects=("s2", "s3")) == ["s2"]
    assert subjects(subjects=()) == []


def test_days_are_those_of_the_zone_also_when_clocks_change(tables: UsageTables) -> None:
    # 10 March 2013 in New York has 23 hours: 05:00 to 04:00 the next day, UTC.
    times = ["2013-03-10T04:59", "2013-03-10T05:00", "2013-03-11T03:59", "2013-03-11T04:00"]
    tables.fold([MadeEvent(time=at(time), offset=n) for n, time in enumerate(times)])

    days = query("count", "2013-03-01", "2013-04-01", window=Window.DAY, timezone="America/New_York")

    assert [(start, number) for _, start, _, number in ask(tables, days)] == [
        ("2013-03-09T05:00", "1"),
        ("2013-03-10T05:00", "2"),
        ("2013-03-11T04:00", "1"),
    ]


def test_days_of_a_zone_with_seconds_in_its_offset_are_cut_exactly(tables: UsageTables) -> None:
    # Monrovia was 44 minutes 30 seconds behind UTC until January 1972.
    times = ["1971-06-01T00:44:29.999999", "1971-06-01T00:44:30", "1971-06-02T00:44:29", "1971-06-02T00:44:30"]
    tables.fold([MadeEvent(time=at(time), offset=n, user="ann") for n, time in enumerate(times)])

    def days(meter: str) -> list[str]:
        asked = query(meter, "1971-06-01", "1971-06-03", window=Window.DAY, timezone="Africa/Monrovia")
        return [number for _, _, _, number in ask(tables, asked)]

    assert days("count") == ["1", "2", "1"]
    assert days("unique_count") == ["1", "1", "1"]


def test_a_boundary_inside_a_rollup_window_is_answered_to_the_microsecond(tables: UsageTables) -> None:
    times = ["2013-01-05T10:07:29.999999", "2013-01-05T10:07:30", "2013-01-05T10:07:30.000001", "2013-01-05T10:14"]
    tables.fold([MadeEvent(time=at(time), offset=n) for n, time in enumerate(times)])

    assert ask(tables, query("count", "2013-01-05T10:07:30", "2013-01-05T10:07:30.000001"))[0][3] == "1"
    assert ask(tables, query("count", "2013-01-05T10:07:30", "2013-01-05T10:14"))[0][3] == "2"
    assert ask(tables, query("count", "2013-01-05T10:00", "2013-01-05T10:07:30"))[0][3] == "1"


def test_dimensions_are_grouped_in_the_order_asked(tables: UsageTables) -> None:
    tables.fold(
        [
            MadeEvent(time=at("2013-01-05"), kind="a", region="eu", offset=0),
            MadeEvent(time=at("2013-01-05"), kind="b", region="eu", offset=1),
            MadeEvent(time=at("2013-01-05"), kind="a", region="us", offset=2),
            MadeEvent(time=at("2013-01-06"), kind="a", region="us", offset=3),
        ]
    )

    def grouped(*names: str) -> list[tuple[str, str]]:
        asked = query("count", "2013-01-01", "2013-02-01", group_by=names)
        return [(dimensions, number) for _, _, dimensions, number in ask(tables, asked)]

    assert grouped("region") == [("eu", "2"), ("us", "2")]
    assert grouped("region", "kind") == [("eu/a", "1"), ("eu/b", "1"), ("us/a", "2")]
    assert grouped("kind", "region") == [("a/eu", "1"), ("a/us", "2"), ("b/eu", "1")]


def test_with_a_cut_the_answer_is_the_same_whatever_comes_later(tables: UsageTables) -> None:
    early = [
        MadeEvent(time=at("2013-01-05T10:01"), value="5", user="ann", partition=0, offset=0),
        MadeEvent(time=at("2013-01-05T10:02"), value="7", user="bob", partition=1, offset=0),
        MadeEvent(time=at("2013-01-06T10:02"), value="1", user="ann", partition=1, offset=1),
    ]
    late = [
        MadeEvent(time=at("2013-01-05T10:03"), value="100", user="eve", partition=0, offset=1),
        MadeEvent(time=at("2013-01-06T10:04"), value="200", user="eve", partition=1, offset=2),
        MadeEvent(time=at("2013-01-05T10:05"), value="300", user="eve", partition=2, offset=0),
        MadeEvent(time=at("2013-01-05T10:06"), value="400", user="eve", partition=0, epoch="log-2", offset=0),
    ]
    cut = Cut(
        positions=(Position(epoch="log-1", partition=0, offset=0), Position(epoch="log-1", partition=1, offset=1))
    )
    asked = {name: query(name, "2013-01-01", "2013-02-01", cut=cut) for name in AGGREGATIONS}
    tables.fold(early)
    before = {name: ask(tables, one) for name, one in asked.items()}

    tables.fold([*early, *late])

    assert {name: ask(tables, one) for name, one in asked.items()} == before
    assert [before[name][0][3] for name in ("count", "unique_count")] == ["3", "2"]
    assert answer(tables.client, CATALOG, query("sum", "2013-01-01", "2013-02-01"))[0].quantity == 1013


def test_a_cut_inside_the_live_series_leaves_the_filled_series_of_the_same_key_alone(tables: UsageTables) -> None:
    tables.fold(
        [MadeEvent(time=at("2013-01-05T10:01"), value=str(10**n), offset=n) for n in range(6)],
        live_from=3,
    )

    def total_at(offset: int) -> list[str]:
        cut = Cut(positions=(Position(epoch="log-1", partition=0, offset=offset),))
        return [number for _, _, _, number in ask(tables, query("sum", "2013-01-01", "2013-02-01", cut=cut))]

    assert [total_at(offset) for offset in (-1, 0, 2, 3, 4, 99)] == [
        [],
        ["1"],
        ["111"],
        ["1111"],
        ["11111"],
        ["111111"],
    ]


def test_of_events_at_the_same_time_the_latest_is_the_last_in_epoch_partition_and_offset(tables: UsageTables) -> None:
    def latest(*places: tuple[str, int, int]) -> str:
        tables.clear()
        tables.store(CATALOG)
        tables.fold(
            [
                MadeEvent(time=at("2013-01-05T10:01"), value=str(n), epoch=epoch, partition=partition, offset=offset)
                for n, (epoch, partition, offset) in enumerate(places)
            ]
        )
        return ask(tables, query("latest", "2013-01-01", "2013-02-01"))[0][3]

    assert latest(("log-1", 0, 9), ("log-1", 1, 0)) == "1"
    assert latest(("log-2", 0, 0), ("log-1", 1, 9)) == "0"
    assert latest(("log-1", 0, 9), ("log-1", 0, 3)) == "0"


def test_a_cut_that_names_nothing_counts_nothing(tables: UsageTables) -> None:
    tables.fold([MadeEvent(time=at("2013-01-05T10:01"), offset=0)])

    assert ask(tables, query("count", "2013-01-01", "2013-02-01", cut=Cut(positions=()))) == []


def test_sums_of_the_largest_values_keep_every_digit(tables: UsageTables) -> None:
    largest = "9" * 18 + "." + "9" * 12
    tables.fold([MadeEvent(time=at("2013-01-05T10:01"), value=largest, offset=n, partition=n) for n in range(30)])
    january = query("sum", "2013-01-01", "2013-02-01")

    expected = Decimal("29999999999999999999.999999999970")
    assert [row.quantity for row in answer(tables.client, CATALOG, january)] == [expected]
    assert [row.quantity for row in recount(tables.client, CATALOG, january)] == [expected]


def test_names_with_quotes_backslashes_and_other_scripts_are_only_names(tables: UsageTables) -> None:
    names = [
        "o'hara",
        'say "hi"',
        "back\\slash",
        "\\'; DROP TABLE rollups --",
        "{meter:String}",
        "日本",
        "a,b]",
        "%41+ &",
    ]
    tables.fold([MadeEvent(subject=name, kind=name, time=at("2013-01-05"), offset=n) for n, name in enumerate(names)])
    asked = query("count", "2013-01-01", "2013-02-01", by=By.SUBJECT, subjects=tuple(names), group_by=("kind",))

    assert [(who, kind) for who, _, kind, _ in ask(tables, asked)] == [(name, name) for name in sorted(names)]


def test_a_question_may_name_thousands_of_subjects(tables: UsageTables) -> None:
    names = tuple(f"subject-{n:05}" for n in range(15_000))
    tables.fold([MadeEvent(subject=names[-1], time=at("2013-01-05"), offset=0)])

    found = ask(tables, query("count", "2013-01-01", "2013-02-01", by=By.SUBJECT, subjects=names))

    assert found == [("subject-14999", "2013-01-01T00:00", "", "1")]


def test_each_window_is_answered_by_the_version_in_force_then(tables: UsageTables) -> None:
    changed_at = at("2013-01-06")
    catalog = made_catalog(CUSTOMERS, changed_at=changed_at, version=2)
    tables.store(catalog)
    events = [
        MadeEvent(time=at("2013-01-05T23:59"), kind="b", offset=0),
        MadeEvent(time=at("2013-01-06T00:00"), kind="b", offset=1),
        MadeEvent(time=at("2013-01-06T00:01"), kind="a", offset=2),
    ]
    tables.fold(events)  # what version 1 made of all three, before the change was known
    tables.fold(events, changed_at=changed_at)

    days = query("count", "2013-01-01", "2013-02-01", window=Window.DAY)

    assert [number for _, _, _, number in ask(tables, days, catalog)] == ["1", "1"]
    assert [number for _, _, _, number in ask(tables, days)] == ["1", "2"]


def test_a_change_of_aggregation_is_answered_on_either_side_but_not_across(tables: UsageTables) -> None:
    changed_at = at("2013-01-06")
    kinds = {"count": Aggregation.SUM}
    made = made_catalog(CUSTOMERS, changed_at=changed_at, version=2)
    versions = tuple(
        msgspec.structs.replace(one, meter=msgspec.structs.replace(one.meter, aggregation=kinds["count"], value="n"))
        if one.meter.name == "count" and one.version == 2
        else one
        for one in made.meter_versions
    )
    catalog = applied(2, made.catalog, versions)
    tables.store(catalog)
    tables.fold([MadeEvent(time=at("2013-01-05"), value="50", offset=0)], changed_at=changed_at)

    assert ask(tables, query("count", "2013-01-01", "2013-01-06"), catalog)[0][3] == "1"
    assert ask(tables, query("count", "2013-01-01", "2013-02-01", window=Window.DAY), catalog)[0][3] == "1"
    with pytest.raises(RequestError, match="changes from count to sum at 2013-01-06"):
        answer(tables.client, catalog, query("count", "2013-01-01", "2013-02-01"))


def test_an_answer_larger_than_allowed_is_refused_and_the_next_question_is_answered(tables: UsageTables) -> None:
    tables.fold([MadeEvent(subject=f"s{n}", time=at("2013-01-05"), offset=n) for n in range(50)])
    by_subject = query("count", "2013-01-01", "2013-02-01", by=By.SUBJECT)

    for counts in (answer, recount):
        with pytest.raises(RequestError, match="more than 49 rows"):
            counts(tables.client, CATALOG, by_subject, rows_max=49)
        assert len(counts(tables.client, CATALOG, by_subject, rows_max=50)) == 50


def test_a_catalog_that_the_database_does_not_have_is_not_asked_for_owners(tables: UsageTables) -> None:
    other = made_catalog([Customer(id="acme", subjects=("s9",))])

    with pytest.raises(InvariantViolationError, match="catalog version 1 is not the one"):
        answer(tables.client, other, query("count", "2013-01-01", "2013-02-01"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"meter": "cuont"}, "unknown meter 'cuont'. Did you mean 'count'?"),
        ({"meter": "zzz"}, "unknown meter 'zzz'. Known are avg, count, latest, max, min, sum, time_weighted, unique"),
        ({"group_by": ("knid",)}, "unknown dimension 'knid'. Did you mean 'kind'?"),
        ({"group_by": ("kind", "kind")}, "dimension 'kind' is named twice"),
        ({"customers": ("acmee",)}, "unknown customer 'acmee'. Did you mean 'acme'?"),
        ({"timezone": "America/New_Yrok"}, "Did you mean America/New_York?"),
        ({"end": at("2013-01-01")}, "the range is empty"),
        ({"end": at("2012-01-01")}, "the range is empty"),
        ({"start": datetime(2013, 1, 1)}, "2013-01-01T00:00:00 has no zone"),  # noqa: DTZ001
        ({"start": at("1969-12-31")}, "leaves the years 1970 to 2099"),
        ({"start": datetime(1, 1, 1, tzinfo=UTC)}, "leaves the years 1970 to 2099"),
        ({"end": at("2100-01-02")}, "leaves the years 1970 to 2099"),
        ({"start": at("1970-01-01"), "window": Window.QUARTER_HOUR}, "more than 200000 windows of 15m"),
        ({"subjects": ("x" * 500,) * 1_000}, "more than fit into one question"),
        ({"cut": Cut(positions=(Position(epoch="e", partition=0, offset=1),) * 2)}, "names a partition of an epoch"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why_and_what_to_do(
    tables: UsageTables, wrong: dict[str, object], message: str
) -> None:
    asked = msgspec.structs.replace(query("count", "2013-01-01", "2013-02-01"), **wrong)

    with pytest.raises(RequestError) as caught:
        answer(tables.client, CATALOG, asked)

    assert message in str(caught.value)
    with pytest.raises(RequestError):
        recount(tables.client, CATALOG, asked)


def test_the_whole_time_in_which_events_can_be_is_one_answer(tables: UsageTables) -> None:
    times = ["1970-01-01T00:00", "2099-12-31T23:59:59.999999"]
    tables.fold([MadeEvent(time=at(time), offset=n) for n, time in enumerate(times)])

    assert ask(tables, query("count", "1970-01-01", "2100-01-01"))[0][3] == "2"
    months = query("count", "1970-01-01", "2100-01-01", window=Window.MONTH, timezone="Asia/Kathmandu")
    assert len(ask(tables, months)) == 2


def test_sixty_minutes_of_a_zone_that_shifts_by_half_an_hour_stay_in_order(tables: UsageTables) -> None:
    # Lord Howe set its clocks from 02:00 to 02:30 at 15:30 UTC on 5 October 2013: that hour has 90 minutes.
    times = [at("2013-10-05T14:00") + timedelta(minutes=10 * n) for n in range(18)]
    tables.fold([MadeEvent(time=time, offset=n) for n, time in enumerate(times)])

    hours = query("count", "2013-10-05T14:00", "2013-10-05T17:00", window=Window.HOUR, timezone="Australia/Lord_Howe")

    assert [(start[-5:], number) for _, start, _, number in ask(tables, hours)] == [
        ("14:00", "3"),
        ("14:30", "9"),
        ("16:00", "6"),
    ]
