"""Drops and spikes on a real ClickHouse: when they are told, of whom, once, and not while the log is behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial

import msgspec
import pytest
from confluent_kafka import Producer

from billing_export.alerts.day_watch import DayWatch
from billing_export.alerts.log_reach import AGAIN_S, LogEnds, log_now
from billing_export.alerts.message import message
from billing_export.alerts.metrics import AlertMetrics
from billing_export.alerts.store import Fired, Outcome
from billing_export.alerts.watcher import Watcher
from metering.clock import FixedClock
from metering.config import Settings
from metering.entitlements.progress import WHOLE_INTERVAL_S
from metering.entitlements.reader import HeldReader
from metering.kafka import client_config, ensure_topics
from metering.testing import ClickHouseUnderTest, KafkaUnderTest
from schemas.alert import AlertRule, Watch
from schemas.catalog import AppliedCatalog, Customer, applied
from schemas.errors import KafkaUnavailableError
from schemas.topics import USAGE_EVENTS
from tests.support.made_limits import catalog_with, fold
from tests.support.made_usage import MadeEvent, UsageTables, usage_tables

TUESDAY = datetime(2013, 2, 5, tzinfo=UTC)
WEEK = timedelta(days=7)
HOUR = timedelta(hours=1)
DROP = AlertRule(id="fall", watch=Watch.DROP, meter="sum")
SPIKE = AlertRule(id="rise", watch=Watch.SPIKE, meter="sum")


class Taker:
    """A target that keeps what it is given."""

    name = "webhook"
    group_max = 5

    def __init__(self) -> None:
        self.sent: list[Fired] = []

    def send(self, fired: Sequence[Fired]) -> list[Outcome]:
        self.sent += fired
        return [Outcome(id=one.alert.id, state="accepted", status="200", answer="") for one in fired]

    def close(self) -> None:
        return None

    @property
    def told(self) -> list[tuple[str, str, str, int, str]]:
        """Watch, customer, day, threshold and what was used."""
        return [
            (one.watch.value, one.customer, one.limit_id, one.threshold, f"{(one.value or Decimal(0)).normalize():f}")
            for one in (fired.alert for fired in self.sent)
        ]


@pytest.fixture(scope="module")
def kept(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        yield made


@pytest.fixture
def tables(kept: UsageTables) -> UsageTables:
    kept.clear()
    for table in ("positions", "alerts", "alert_deliveries", "meter_fills"):
        kept.client.command(f"TRUNCATE TABLE {table}")
    kept.store(catalog_with(1, (DROP, SPIKE)))
    return kept


class Log:
    """The events of a log, in order; `written` are in the log, and `counted` of them by the worker."""

    def __init__(self, tables: UsageTables) -> None:
        self._tables = tables
        self.events: list[MadeEvent] = []
        self.ahead = 0
        self.is_away = False
        self.asked = 0

    def add(self, *used: tuple[str, datetime, int]) -> None:
        for subject, time, value in used:
            self.events.append(MadeEvent(subject=subject, time=time, value=str(value), offset=len(self.events)))
        fold(self._tables, self.events)

    def ends(self) -> LogEnds:
        self.asked += 1
        if self.is_away:
            raise KafkaUnavailableError("no answer", where="a test", fix="none")
        return "log-1", {0: (0, len(self.events) + self.ahead)}


def watcher(tables: UsageTables, target: Taker, clock: FixedClock, ends: Callable[[], LogEnds]) -> Watcher:
    reader = HeldReader(tables.settings, clock)
    days = DayWatch(tables.client, clock, ends=ends, rows_max=1_000)
    return Watcher(tables.client, reader, [target], days, clock=clock, metrics=AlertMetrics(), by="test")


def usual_weeks(subject: str = "s1", value: int = 100, at: datetime = TUESDAY) -> list[tuple[str, datetime, int]]:
    return [(subject, at - number * WEEK + 9 * HOUR, value) for number in range(1, 5)]


def test_a_spike_is_told_as_soon_as_it_is_one_and_once(tables: UsageTables) -> None:
    log, taker, clock = Log(tables), Taker(), FixedClock(TUESDAY + 10 * HOUR)
    log.add(*usual_weeks(), *usual_weeks("t1"), ("s1", TUESDAY + 9 * HOUR, 150))
    one = watcher(tables, taker, clock, log.ends)
    one.turn()
    before = taker.told
    log.add(("s2", TUESDAY + 10 * HOUR, 50))  # the customer's other subject
    one.turn()
    log.add(("s1", TUESDAY + 10 * HOUR, 500))
    one.turn()
    watcher(tables, taker, clock, log.ends).turn()

    assert before == []
    assert taker.told == [("spike", "acme", "2013-02-05", 200, "200")]


def test_a_drop_is_told_six_hours_after_its_day_and_once(tables: UsageTables) -> None:
    seconds = timedelta(seconds=1)
    log, taker, clock = Log(tables), Taker(), FixedClock(TUESDAY + 30 * HOUR - seconds)
    log.add(*usual_weeks(), *usual_weeks("t1"), ("s1", TUESDAY + 9 * HOUR, 50), ("t1", TUESDAY + 9 * HOUR, 51))
    one = watcher(tables, taker, clock, log.ends)
    told = []
    for late in (-seconds, 0 * seconds, seconds):
        clock.move_to(TUESDAY + 30 * HOUR + late)
        one.turn()
        told.append(len(taker.told))
    watcher(tables, taker, clock, log.ends).turn()

    assert told == [0, 1, 1]
    assert taker.told == [("drop", "acme", "2013-02-05", 50, "50")]


def test_a_customer_who_has_stopped_is_told_of_without_any_event_of_the_day(tables: UsageTables) -> None:
    log, taker, clock = Log(tables), Taker(), FixedClock(TUESDAY + 30 * HOUR)
    log.add(*usual_weeks("t1"))
    watcher(tables, taker, clock, log.ends).turn()

    assert taker.told == [("drop", "bolt", "2013-02-05", 50, "0")]


def test_days_are_those_of_the_customers_zone(tables: UsageTables) -> None:
    there = Customer(id="york", subjects=("s9",), timezone="America/New_York")
    tables.store(with_customer(catalog_with(2, (DROP, SPIKE)), there))
    midnight = TUESDAY + 5 * HOUR
    log, taker, clock = Log(tables), Taker(), FixedClock(midnight + 23 * HOUR)
    # Usage of 23:00 in New York is of the next day in UTC, and of the same weekday there.
    log.add(*usual_weeks("s9", at=midnight + 14 * HOUR), ("s9", midnight + 23 * HOUR, 200))
    one = watcher(tables, taker, clock, log.ends)
    one.turn()
    log.add(*usual_weeks("s9", at=midnight + timedelta(days=1)))
    for hours in (53, 54):
        clock.move_to(midnight + hours * HOUR)
        one.turn()

    assert taker.told == [("spike", "york", "2013-02-05", 200, "200"), ("drop", "york", "2013-02-06", 50, "0")]
    assert [fired.alert.period_start for fired in taker.sent] == [midnight, midnight + timedelta(days=1)]


def with_customer(catalog: AppliedCatalog, customer: Customer) -> AppliedCatalog:
    more = msgspec.structs.replace(catalog.catalog, customers=(*catalog.catalog.customers, customer))
    return applied(catalog.version, more, catalog.meter_versions)


def test_nothing_is_said_while_the_log_is_behind(tables: UsageTables) -> None:
    log, taker, clock = Log(tables), Taker(), FixedClock(TUESDAY + 30 * HOUR)
    log.ahead = 1
    log.add(*usual_weeks(), ("s1", TUESDAY + 9 * HOUR, 20))
    one = watcher(tables, taker, clock, log.ends)
    one.turn()
    one.turn()
    behind = taker.told
    # The record that was in the log already says that there was no drop.
    log.ahead = 0
    log.add(("s1", TUESDAY + 23 * HOUR, 80))
    one.turn()
    one.turn()

    assert behind == []
    assert taker.told == []
    assert log.asked == 1


def test_a_kafka_that_is_away_holds_up_nothing_else_and_is_asked_again(tables: UsageTables) -> None:
    quotas = AlertRule(id="quotas", watch=Watch.QUOTA, thresholds=(50,))
    tables.store(catalog_with(2, (DROP, SPIKE, quotas), sum=10))
    log, taker, clock = Log(tables), Taker(), FixedClock(TUESDAY + 10 * HOUR)
    log.is_away = True
    log.add(*usual_weeks(), ("s1", TUESDAY + 9 * HOUR, 200))
    one = watcher(tables, taker, clock, log.ends)
    one.turn()
    one.turn()
    meanwhile, asked = [fired.alert.watch for fired in taker.sent], log.asked
    log.is_away = False
    clock.move_to(TUESDAY + 10 * HOUR + timedelta(seconds=AGAIN_S + 1))
    one.turn()

    assert (meanwhile, asked) == ([Watch.QUOTA], 1)
    assert taker.told[1:] == [("spike", "acme", "2013-02-05", 200, "200")]


def test_what_is_counted_anew_from_the_start_of_the_log_is_neither_a_drop_nor_told_again(tables: UsageTables) -> None:
    log, taker, clock = Log(tables), Taker(), FixedClock(TUESDAY + 10 * HOUR)
    log.add(*usual_weeks(), *usual_weeks("t1"), ("s1", TUESDAY + 9 * HOUR, 300), ("t1", TUESDAY + 9 * HOUR, 100))
    watcher(tables, taker, clock, log.ends).turn()
    told = list(taker.told)

    clock.move_to(TUESDAY + 31 * HOUR)
    events = list(log.events)
    for table in ("rollups", "members", "positions", "events"):
        tables.client.command(f"TRUNCATE TABLE {table}")
    emptied = watcher(tables, taker, clock, log.ends)
    emptied.turn()
    log.events = events[:6]
    log.ahead = len(events) - 6
    log.add()
    emptied.turn()
    log.events, log.ahead = events, 0
    log.add()
    emptied.turn()
    watcher(tables, taker, clock, log.ends).turn()

    assert told == [("spike", "acme", "2013-02-05", 200, "300")]
    assert taker.told == told


def test_a_day_that_is_long_over_is_not_told_of(tables: UsageTables) -> None:
    log, taker = Log(tables), Taker()
    log.add(*usual_weeks())
    watcher(tables, taker, FixedClock(TUESDAY + 54 * HOUR), log.ends).turn()

    assert taker.told == []


def test_late_usage_of_yesterday_can_make_it_a_spike_and_late_usage_of_last_week_what_is_usual(
    tables: UsageTables,
) -> None:
    log, taker, clock = Log(tables), Taker(), FixedClock(TUESDAY + 25 * HOUR)
    log.add(*usual_weeks(), ("s1", TUESDAY + 9 * HOUR, 100))
    one = watcher(tables, taker, clock, log.ends)
    one.turn()
    log.add(("s1", TUESDAY + 9 * HOUR, 100))
    one.turn()
    spikes = taker.told
    log.add(*((name, time, 400) for name, time, _ in usual_weeks()))
    clock.move_to(TUESDAY + 30 * HOUR + timedelta(seconds=WHOLE_INTERVAL_S))
    one.turn()

    assert spikes == [("spike", "acme", "2013-02-05", 200, "200")]
    # Two hundred of what has become five hundred.
    assert taker.told[1:] == [("drop", "acme", "2013-02-05", 50, "200")]


def test_a_rule_of_no_meter_looks_at_all_that_have_usage_of_a_day(tables: UsageTables) -> None:
    rule = AlertRule(id="rise", watch=Watch.SPIKE, customers=("acme",))
    tables.store(catalog_with(2, (rule,)))
    log, taker = Log(tables), Taker()
    log.add(*usual_weeks(), *usual_weeks("t1"), ("s1", TUESDAY, 300), ("t1", TUESDAY, 300))
    watcher(tables, taker, FixedClock(TUESDAY + HOUR), log.ends).turn()

    assert {fired.alert.meter for fired in taker.sent} == {"sum", "min", "max", "avg", "latest"}
    assert {fired.alert.customer for fired in taker.sent} == {"acme"}


def test_of_two_who_find_the_same_drop_one_row_is_kept_and_both_send_the_same(tables: UsageTables) -> None:
    log, takers = Log(tables), [Taker(), Taker()]
    log.add(*usual_weeks())
    clocks = [FixedClock(TUESDAY + 30 * HOUR + timedelta(seconds=late)) for late in (0, 7)]
    both = [watcher(tables, taker, clock, log.ends) for taker, clock in zip(takers, clocks, strict=True)]
    for one in both:
        one.turn()

    [[count]] = tables.client.query("SELECT count() FROM alerts").result_rows
    assert count == 1
    assert [message(one) for one in takers[0].sent] == [message(one) for one in takers[1].sent]
    assert takers[0].told == [("drop", "acme", "2013-02-05", 50, "0")]


def test_the_log_is_asked_of_kafka_itself(tables: UsageTables, kafka: KafkaUnderTest) -> None:
    settings = msgspec.structs.replace(tables.settings, kafka_servers=kafka.bootstrap)
    ensure_topics(settings)
    produce(settings, b"a record that nobody has counted yet")
    log, taker, clock = Log(tables), Taker(), FixedClock(TUESDAY + 10 * HOUR)
    log.add(*usual_weeks(), ("s1", TUESDAY + 9 * HOUR, 200))
    one = watcher(tables, taker, clock, partial(log_now, settings))
    one.turn()
    before = taker.told
    epoch, ends = log_now(settings)
    ledger = [
        (epoch, USAGE_EVENTS, partition, first, end - 1) for partition, (first, end) in ends.items() if end > first
    ]
    tables.client.insert("positions", ledger, column_names=["epoch", "topic", "partition", "first", "last"])
    one.turn()

    assert before == []
    assert taker.told == [("spike", "acme", "2013-02-05", 200, "200")]


def produce(settings: Settings, value: bytes) -> None:
    producer = Producer(client_config(settings))
    producer.produce(USAGE_EVENTS, value, key=b"s1")
    assert producer.flush(60) == 0


def test_drops_of_everybody_at_once_are_told_some_a_turn_after_what_is_more_urgent(
    tables: UsageTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing_export.alerts.watcher.WRITES_A_TURN", 1)
    quotas = AlertRule(id="quotas", watch=Watch.QUOTA, thresholds=(50,))
    tables.store(catalog_with(2, (DROP, SPIKE, quotas), sum=10))
    log, taker, clock = Log(tables), Taker(), FixedClock(TUESDAY + 30 * HOUR)
    log.add(*usual_weeks(), *usual_weeks("t1"), ("s1", TUESDAY + 9 * HOUR, 20))
    one = watcher(tables, taker, clock, log.ends)
    told = []
    for _ in range(4):
        one.turn()
        told.append([(fired.alert.watch, fired.alert.customer) for fired in taker.sent])

    assert told[0] == [(Watch.QUOTA, "acme")]
    assert len(told[1]) == 2
    assert told[2] == told[3]
    assert sorted(taker.told[1:]) == [("drop", "acme", "2013-02-05", 50, "20"), ("drop", "bolt", "2013-02-05", 50, "0")]


class Hurried(FixedClock):
    """Every look at it takes a while."""

    def monotonic_s(self) -> float:
        self._monotonic_s += 0.4
        return self._monotonic_s


def test_days_that_one_turn_has_no_time_for_are_read_in_the_next_and_nothing_is_said_before(
    tables: UsageTables,
) -> None:
    log, taker, clock = Log(tables), Taker(), Hurried(TUESDAY + 10 * HOUR)
    log.add(*usual_weeks(), ("s1", TUESDAY + 9 * HOUR, 200))
    one = watcher(tables, taker, clock, log.ends)
    told = []
    for _ in range(12):
        one.turn()
        told.append(len(taker.told))

    assert told[0] == 0
    assert taker.told == [("spike", "acme", "2013-02-05", 200, "200")]
