"""Single values and opening balances, against what the events were made from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest

from metering.testing import ClickHouseUnderTest
from metering.usage import event_values as module
from metering.usage.answer import answer
from metering.usage.event_values import EventValue, EventValuesQuery, OpeningBalance, event_values, opening_balances
from schemas.catalog import Customer, applied
from schemas.errors import RequestError
from schemas.meter import Aggregation, TimeUnit
from schemas.usage_query import Cut, Position, UsageQuery
from tests.support.made_usage import MadeEvent, UsageTables, counted, made_catalog, outs_of, total_of, usage_tables

START = datetime(2013, 1, 1, tzinfo=UTC)
END = datetime(2013, 2, 1, tzinfo=UTC)
CUSTOMERS = tuple(Customer(id=f"c{n}", subjects=(f"s{n}", f"t{n}")) for n in range(6))
CATALOG = made_catalog(CUSTOMERS)
OWNER = {subject: one.id for one in CUSTOMERS for subject in one.subjects}


@pytest.fixture(scope="module")
def module_tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        yield made


@pytest.fixture
def tables(module_tables: UsageTables) -> UsageTables:
    module_tables.clear()
    module_tables.store(CATALOG)
    return module_tables


def made_log(seed: int) -> list[MadeEvent]:
    chance = random.Random(seed)
    ends = [0, 0]
    log: list[MadeEvent] = []
    for _ in range(120):
        partition = chance.randrange(2)
        subject = chance.choice([*OWNER, "stray"])
        target = chance.choice(log) if log and chance.random() < 0.25 else None
        if target is not None:
            subject, partition = target.subject, target.partition
        log.append(
            MadeEvent(
                subject=subject,
                time=START + timedelta(hours=chance.randrange(-200, 900), seconds=chance.choice([0, 0, 1])),
                value=chance.choice([None, "0", "1", "-2.5", "0.000000000001"]),
                kind=chance.choice("ab"),
                partition=partition,
                offset=ends[partition],
                corrects=None if target is None else target.name,
                voids=target is not None and chance.random() < 0.5,
            )
        )
        ends[partition] += 1
    return log


def cut_of(*offsets: int) -> Cut:
    return Cut(positions=tuple(Position(epoch="log-1", partition=n, offset=one) for n, one in enumerate(offsets)))


def plain_events(log: list[MadeEvent], meter: str, cut: Cut | None) -> list[MadeEvent]:
    """The events that count for customers, in order."""
    ends = {(one.epoch, one.partition): one.offset for one in cut.positions} if cut else None
    outs = outs_of(log, ends)
    return sorted(
        (
            one
            for one in counted(log, meter)
            if one.name not in outs
            and one.subject in OWNER
            and (ends is None or one.offset <= ends[one.epoch, one.partition])
        ),
        key=lambda one: (OWNER[one.subject], one.time, one.epoch, one.partition, one.offset),
    )


@pytest.mark.parametrize("cut", [None, cut_of(30, 12), cut_of(45, 45)])
@pytest.mark.parametrize("meter", ["count", "sum", "time_weighted"])
def test_values_come_by_customer_and_time_without_what_was_corrected(
    tables: UsageTables, meter: str, cut: Cut | None
) -> None:
    log = made_log(1)
    tables.fold(log)
    query = EventValuesQuery(meter=meter, start=START, end=END, group_by=("kind",), cut=cut)

    found = list(event_values(tables.client, CATALOG, query))

    assert found == [
        EventValue(
            OWNER[one.subject],
            (one.kind,),
            one.time,
            Decimal(1) if meter == "count" else Decimal(one.value or ""),
            one.digest,
        )
        for one in plain_events(log, meter, cut)
        if START <= one.time < END
    ]


@pytest.mark.parametrize("cut", [None, cut_of(30, 12)])
@pytest.mark.parametrize("start", [START, START + timedelta(minutes=5)])
def test_an_opening_balance_is_all_that_was_before(tables: UsageTables, cut: Cut | None, start: datetime) -> None:
    log = made_log(2)
    tables.fold(log)
    query = EventValuesQuery(meter="time_weighted", start=start, end=END, group_by=("kind",), cut=cut)

    found = list(opening_balances(tables.client, CATALOG, query))

    before = [one for one in plain_events(log, "time_weighted", cut) if one.time < start]
    groups = sorted({(OWNER[one.subject], one.kind) for one in before})
    sums = {
        group: total_of(Decimal(one.value or "") for one in before if (OWNER[one.subject], one.kind) == group)
        for group in groups
    }
    assert found == [OpeningBalance(who, (kind,), total) for (who, kind), total in sums.items() if total]
    assert found


def test_customers_that_do_not_fit_into_one_question_are_asked_in_pieces(
    tables: UsageTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.fold(made_log(3))
    whole = EventValuesQuery(meter="time_weighted", start=START, end=END)
    some = EventValuesQuery(meter="time_weighted", start=START, end=END, customers=("c5", "c1", "c2", "c4", "c5"))
    wanted = {"c1", "c2", "c4", "c5"}
    values = [one for one in event_values(tables.client, CATALOG, whole) if one.customer in wanted]
    balances = [one for one in opening_balances(tables.client, CATALOG, whole) if one.customer in wanted]

    monkeypatch.setattr(module, "NAMES_BYTES_MAX", 10)

    assert list(event_values(tables.client, CATALOG, some)) == values
    assert list(opening_balances(tables.client, CATALOG, some)) == balances
    assert {one.customer for one in values} == wanted


def test_nobody_has_no_values(tables: UsageTables) -> None:
    tables.fold(made_log(4))
    query = EventValuesQuery(meter="sum", start=START, end=END, customers=())

    assert list(event_values(tables.client, CATALOG, query)) == []


@pytest.mark.parametrize(
    ("read", "meter", "message"),
    [
        (event_values, "unique_count", "counts members, so its events have no value"),
        (opening_balances, "sum", "has no balance: it is not time_weighted"),
        (event_values, "cuont", "Did you mean 'count'?"),
    ],
)
def test_a_question_without_an_answer_says_why(tables: UsageTables, read: object, meter: str, message: str) -> None:
    query = EventValuesQuery(meter=meter, start=START, end=END)

    with pytest.raises(RequestError) as caught:
        list(read(tables.client, CATALOG, query))  # type: ignore[operator]

    assert message in str(caught.value)


def test_a_meter_that_summed_hands_its_balance_on_when_it_is_weighted_by_time(tables: UsageTables) -> None:
    """Three seats since before the change: February has three for each of its days."""
    changed_at = datetime(2013, 2, 1, tzinfo=UTC)
    versions = []
    for one in made_catalog(CUSTOMERS, changed_at=changed_at).meter_versions:
        meter = one.meter
        if (meter.name, one.version) == ("sum", 2):
            meter = msgspec.structs.replace(meter, aggregation=Aggregation.TIME_WEIGHTED, time_unit=TimeUnit.DAY)
        versions.append(msgspec.structs.replace(one, meter=meter))
    catalog = applied(2, CATALOG.catalog, tuple(versions))
    tables.store(catalog)
    tables.fold(
        [MadeEvent(subject="s1", time=datetime(2013, 1, 20, tzinfo=UTC), value="3", offset=0)], changed_at=changed_at
    )
    asked = EventValuesQuery(meter="sum", start=changed_at, end=datetime(2013, 3, 1, tzinfo=UTC))

    [row] = answer(tables.client, catalog, UsageQuery(meter="sum", start=asked.start, end=asked.end))
    [balance] = opening_balances(tables.client, catalog, asked)

    assert (row.quantity, row.integral, row.events_count) == (Decimal(84), Decimal(84 * 86_400), 0)
    assert balance == OpeningBalance("c1", (), Decimal(3))
