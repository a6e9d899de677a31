"""Whatever was used, and whatever is asked: the answer, the recount and a count in plain Python are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import groupby
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metering.testing import ClickHouseUnderTest
from metering.usage.answer import answer
from metering.usage.recount import recount
from metering.usage.windows import plan_windows
from schemas.catalog import Customer
from schemas.usage_query import By, Cut, Position, UsageQuery, Window
from tests.support.made_usage import (
    EPOCH,
    EXACTLY,
    METERS,
    MadeEvent,
    UsageTables,
    counted,
    made_catalog,
    outs_of,
    plain_integral,
    plain_quantity,
    total_of,
    usage_tables,
)

OWNER = {"s1": "acme", "s2": "acme", "s3": "bolt"}
CUSTOMERS = (Customer(id="acme", subjects=("s1", "s2")), Customer(id="bolt", subjects=("s3",)))

# Clocks change in the middle of each stretch: New York, Sao Paulo, Monrovia's 44 minutes 30 seconds.
STRETCHES = {
    "America/New_York": datetime(2013, 3, 9, 12, tzinfo=UTC),
    "America/Sao_Paulo": datetime(2018, 11, 3, 12, tzinfo=UTC),
    "Africa/Monrovia": datetime(1972, 1, 6, 12, tzinfo=UTC),
    "Asia/Kathmandu": datetime(2012, 12, 31, 6, tzinfo=UTC),
    "Europe/Berlin": datetime(2013, 10, 26, 12, tzinfo=UTC),
}
STEP = timedelta(seconds=450)
STEPS = 300

texts = st.decimals(Decimal("-999999999999999999.999999999999"), Decimal("999999999999999999.999999999999"), places=12)
values = st.one_of(st.none(), st.sampled_from(["0", "1", "-1", "0.1", "2.5"]), texts.map(lambda one: f"{one:f}"))
moments = st.builds(
    lambda steps, extra_us: steps * STEP + timedelta(microseconds=extra_us),
    st.integers(0, STEPS),
    st.sampled_from([0, 0, 1, -1, 30_000_000]),
)


@st.composite
def logs(draw: st.DrawFn, base: datetime) -> list[MadeEvent]:
    """Events of two epochs and three partitions in the order of arrival; offsets follow each other within each.

    Some correct others: earlier ones or later ones, corrections too, and now and then one of another partition.
    """
    places = st.tuples(st.sampled_from(["log-1", "log-1", "log-2"]), st.integers(0, 2))
    drafts: list[tuple[int | None, bool, tuple[str, int], str]] = []
    for number in range(draw(st.integers(1, 25))):
        target = draw(st.one_of(st.none(), st.none(), st.integers(0, number - 1))) if number else None
        place, subject = draw(places), draw(st.sampled_from(["s1", "s2", "s3", "stray"]))
        if target is not None:
            subject = drafts[target][3]
            place = drafts[target][2] if draw(st.integers(0, 9)) else place
        drafts.append((target, target is not None and draw(st.booleans()), place, subject))
    arrival = draw(st.one_of(st.just(list(range(len(drafts)))), st.permutations(range(len(drafts)))))
    ends: dict[tuple[str, int], int] = {}
    offsets: dict[int, int] = {}
    for number in arrival:
        place = drafts[number][2]
        offsets[number] = ends[place] = ends.get(place, -1) + 1
    return [
        MadeEvent(
            subject=subject,
            time=base + draw(moments),
            value=draw(values),
            kind=draw(st.sampled_from(["a", "b"])),
            region=draw(st.sampled_from(["eu", "us", ""])),
            user=draw(st.sampled_from(["ann", "bob", "eve"])),
            epoch=place[0],
            partition=place[1],
            offset=offsets[number],
            corrects=None if target is None else "{}-{}-{}".format(*drafts[target][2], offsets[target]),
            voids=voids,
        )
        for number in arrival
        for target, voids, place, subject in (drafts[number],)
    ]


cuts = st.one_of(
    st.none(),
    st.dictionaries(
        st.tuples(st.sampled_from(["log-1", "log-2"]), st.integers(0, 2)), st.integers(-1, 8), max_size=6
    ).map(
        lambda ends: Cut(
            positions=tuple(Position(epoch=e, partition=p, offset=offset) for (e, p), offset in ends.items())
        )
    ),
)


@st.composite
def questions(draw: st.DrawFn, base: datetime, zone: str) -> UsageQuery:
    start, end = sorted(draw(st.lists(moments, min_size=2, max_size=2, unique=True)))
    return UsageQuery(
        meter=draw(st.sampled_from(METERS)),
        start=base + start,
        end=base + end,
        # Monrovia's hour of 1 h 15 min 30 s has two labels; an hour of that kind has a test of its own.
        window=draw(st.sampled_from([one for one in Window if (one, zone) != (Window.HOUR, "Africa/Monrovia")])),
        timezone=zone,
        by=draw(st.sampled_from(list(By))),
        subjects=draw(st.one_of(st.none(), st.just(("s1", "stray")))),
        customers=draw(st.one_of(st.none(), st.none(), st.just(("acme",)))),
        group_by=draw(st.sampled_from([(), ("kind",), ("region", "kind")])),
        cut=draw(cuts),
    )


def label_of(window: Window, zone: ZoneInfo) -> Callable[[datetime], object]:
    """What the clocks of the zone show: instants of one window have the same label, those of two never."""

    def hour(moment: datetime) -> object:
        local = moment.astimezone(zone)
        return local.date(), local.hour, local.utcoffset()

    return {
        Window.QUARTER_HOUR: lambda moment: (moment - EPOCH) // timedelta(minutes=15),
        Window.HOUR: hour,
        Window.DAY: lambda moment: moment.astimezone(zone).date(),
        Window.MONTH: lambda moment: moment.astimezone(zone).date().replace(day=1),
        Window.TOTAL: lambda _: "all",
    }[window]


def plain_count(events: list[MadeEvent], query: UsageQuery, changed_at: datetime | None) -> dict[object, object]:
    """The answer as {(label of the window, who, dimensions): (quantity, events, digest, integral)}."""
    label = label_of(query.window, ZoneInfo(query.timezone))
    ends = {(one.epoch, one.partition): one.offset for one in query.cut.positions} if query.cut else {}

    def key(event: MadeEvent) -> tuple[str, str, tuple[str, ...]]:
        who = {By.SUBJECT: event.subject, By.CUSTOMER: OWNER.get(event.subject, ""), By.EVERYTHING: ""}[query.by]
        return str(label(event.time)), who, tuple(getattr(event, name) for name in query.group_by)

    outs = outs_of(events, ends if query.cut else None)
    chosen = [
        event
        for event in counted(events, query.meter, changed_at)
        if event.time < query.end
        and event.name not in outs
        and (query.subjects is None or event.subject in query.subjects)
        and (query.customers is None or OWNER.get(event.subject) in query.customers)
        and (query.by is not By.CUSTOMER or event.subject in OWNER)
        and (query.cut is None or event.offset <= ends.get((event.epoch, event.partition), -1))
    ]
    if query.meter == "time_weighted":
        return plain_balances(chosen, query, lambda event: key(event)[1:])
    found: dict[object, object] = {}
    chosen = [event for event in chosen if query.start <= event.time]
    for group, members in groupby(sorted(chosen, key=key), key=key):
        held = list(members)
        found[group] = (plain_quantity(query.meter, held), len(held), sum(one.digest for one in held) % 2**128, None)
    return found


def plain_balances(
    events: list[MadeEvent], query: UsageQuery, key: Callable[[MadeEvent], tuple[str, tuple[str, ...]]]
) -> dict[object, object]:
    """The same of a balance: a row for each window that it has something in."""
    label = label_of(query.window, ZoneInfo(query.timezone))
    plan = plan_windows(query.start, query.end, query.window, ZoneInfo(query.timezone))
    found: dict[object, object] = {}
    for group, members in groupby(sorted(events, key=key), key=key):
        held = list(members)
        for start, end in map(plan.bounds, range(plan.count)):
            within = [one for one in held if start <= one.time < end]
            if within or total_of(Decimal(one.value or "0") for one in held if one.time < start):
                integral = plain_integral(held, start, end)
                # By fractions, where the code under test divides integers.
                hours = round(Fraction(integral) * 10**12 / 3600)
                digest = sum(one.digest for one in within) % 2**128
                quantity = EXACTLY.scaleb(Decimal(hours), -12)
                found[(str(label(start)), *group)] = (quantity, len(within), digest, integral)
    return found


@pytest.fixture(scope="module")
def tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        yield made


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_answer_recount_and_plain_count_agree(tables: UsageTables, data: st.DataObject) -> None:
    zone = data.draw(st.sampled_from(sorted(STRETCHES)), "zone")
    base = STRETCHES[zone]
    events = data.draw(logs(base), "events")
    changed_at = data.draw(st.one_of(st.none(), st.just(base + 96 * STEP)), "changed_at")
    catalog = made_catalog(CUSTOMERS, changed_at=changed_at)
    tables.clear()
    tables.store(catalog)
    tables.fold(events, changed_at=changed_at, live_from=data.draw(st.integers(0, 4), "live from"))

    for query in data.draw(st.lists(questions(base, zone), min_size=5, max_size=5), "questions"):
        label = label_of(query.window, ZoneInfo(zone))
        expected = plain_count(events, query, changed_at)
        for counts in (answer, recount):
            rows = counts(tables.client, catalog, query)
            assert {
                (str(label(row.window_start)), row.who, tuple(row.dimensions.values())): (
                    row.quantity,
                    row.events_count,
                    row.digest,
                    row.integral,
                )
                for row in rows
            } == expected
            assert len(rows) == len(expected)
            assert all(query.start <= row.window_start < row.window_end <= query.end for row in rows)
