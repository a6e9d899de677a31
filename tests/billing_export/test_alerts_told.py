"""Alerts on a real ClickHouse and Kafka: told once, whoever dies, and taken to the end by whoever comes next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer

from billing_export.alerts.day_watch import DayWatch
from billing_export.alerts.log_reach import LogEnds
from billing_export.alerts.message import message
from billing_export.alerts.metrics import AlertMetrics
from billing_export.alerts.outbox import Outbox
from billing_export.alerts.service import run_alerts
from billing_export.alerts.store import Fired, Outcome, known_ids, pending, write
from billing_export.alerts.targets import TopicTarget, WebhookTarget, targets_of
from billing_export.alerts.watcher import Watcher
from billing_export.delivery_claims import this_process
from billing_export.delivery_webhook import signature
from metering.clickhouse import connect
from metering.clock import FixedClock, SystemClock
from metering.config import Settings
from metering.entitlements.reader import HeldReader
from metering.testing import ClickHouseUnderTest, KafkaUnderTest
from schemas.alert import AlertRule, Watch
from schemas.errors import SettingError, UnavailableError
from tests.support.made_limits import DAY, NOW, catalog_with, fold
from tests.support.made_usage import MadeEvent, UsageTables, usage_tables
from tests.support.receiver import Reply, Request, receiving

SECRET = "s" * 32
RULE = AlertRule(id="quotas", watch=Watch.QUOTA)
DEADLINE_S = 120.0


class Taker:
    """A target that keeps what it is given; `is_away` and `dies` say how it fails."""

    group_max = 2

    def __init__(self, name: str = "webhook") -> None:
        self.name = name
        self.sent: list[Fired] = []
        self.is_away = False
        self.dies = False

    def send(self, fired: Sequence[Fired]) -> list[Outcome]:
        if self.is_away:
            raise UnavailableError("away")
        self.sent += fired
        if self.dies:
            raise KeyboardInterrupt
        return [Outcome(id=one.alert.id, state="accepted", status="200", answer="") for one in fired]

    def close(self) -> None:
        return None


@pytest.fixture(scope="module")
def kept(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    with usage_tables(clickhouse) as made:
        yield made


@pytest.fixture
def tables(kept: UsageTables) -> UsageTables:
    kept.clear()
    for table in ("positions", "alerts", "alert_deliveries", "delivery_claims"):
        kept.client.command(f"TRUNCATE TABLE {table}")
    kept.store(catalog_with(1, (RULE,), sum=100))
    return kept


def watcher(tables: UsageTables, target: Any, clock: FixedClock) -> Watcher:
    reader = HeldReader(tables.settings, clock)
    days = DayWatch(tables.client, clock, ends=nothing_in_the_log, rows_max=100)
    return Watcher(tables.client, reader, [target], days, clock=clock, metrics=AlertMetrics(), by="test")


def nothing_in_the_log() -> LogEnds:
    return "log-1", {}


def told(taker: Taker) -> list[tuple[str, int]]:
    return [(one.alert.customer, one.alert.threshold) for one in taker.sent]


def test_thresholds_are_told_as_they_are_passed_and_not_again_by_a_successor(tables: UsageTables) -> None:
    clock, taker = FixedClock(NOW), Taker()
    first = watcher(tables, taker, clock)
    first.turn()
    none_yet = told(taker)

    events = [MadeEvent(time=DAY, value="55", offset=0)]
    fold(tables, events)
    first.turn()
    first.turn()
    half = told(taker)

    events.append(MadeEvent(time=DAY, value="45", offset=1))
    fold(tables, events)
    watcher(tables, taker, clock).turn()
    watcher(tables, taker, clock).turn()

    assert none_yet == []
    assert half == [("acme", 50)]
    assert told(taker) == [("acme", 50), ("acme", 80), ("acme", 100)]


def test_what_is_counted_anew_from_the_start_of_the_log_is_not_told_again(tables: UsageTables) -> None:
    clock, taker = FixedClock(NOW), Taker()
    events = [MadeEvent(time=DAY, value="55", offset=0)]
    fold(tables, events)
    one = watcher(tables, taker, clock)
    one.turn()

    for table in ("rollups", "members", "positions", "events"):
        tables.client.command(f"TRUNCATE TABLE {table}")
    emptied = watcher(tables, taker, clock)
    emptied.turn()
    fold(tables, events)
    emptied.turn()

    assert told(taker) == [("acme", 50)]


def test_of_two_who_find_the_same_one_row_is_kept_and_both_send_the_same(tables: UsageTables) -> None:
    fold(tables, [MadeEvent(time=DAY, value="55", offset=0)])
    takers = [Taker(), Taker()]
    earlier, later = FixedClock(NOW), FixedClock(NOW + timedelta(seconds=7))
    both = [watcher(tables, takers[0], earlier), watcher(tables, takers[1], later)]
    for one in both:
        one.turn()

    [[count]] = tables.client.query("SELECT count() FROM alerts").result_rows
    assert count == 1
    assert message(takers[0].sent[0]) == message(takers[1].sent[0])


def test_an_alert_that_was_on_its_way_is_sent_again_with_the_same_bytes(tables: UsageTables) -> None:
    fold(tables, [MadeEvent(time=DAY, value="55", offset=0)])
    dying, taker = Taker(), Taker()
    dying.dies = True
    with pytest.raises(KeyboardInterrupt):
        watcher(tables, dying, FixedClock(NOW)).turn()

    watcher(tables, taker, FixedClock(NOW + timedelta(hours=1))).turn()
    watcher(tables, taker, FixedClock(NOW + timedelta(hours=2))).turn()

    assert [message(one) for one in taker.sent] == [message(one) for one in dying.sent]


def test_a_target_that_is_away_is_left_alone_for_longer_each_time_and_gets_everything_in_the_end(
    tables: UsageTables,
) -> None:
    fold(tables, [MadeEvent(time=DAY, value="100", offset=0)])
    clock, taker = FixedClock(NOW), Taker()
    taker.is_away = True
    one = watcher(tables, taker, clock)
    one.turn()
    taker.is_away = False
    one.turn()
    too_early = told(taker)
    clock.move_to(NOW + timedelta(seconds=1))
    one.turn()

    assert too_early == []
    assert told(taker) == [("acme", 50), ("acme", 80), ("acme", 100)]
    assert pending(tables.client, "webhook", now=clock.now()) == []


def test_a_new_period_is_told_of_anew(tables: UsageTables) -> None:
    clock, taker = FixedClock(NOW), Taker()
    events = [MadeEvent(time=DAY, value="55", offset=0)]
    fold(tables, events)
    one = watcher(tables, taker, clock)
    one.turn()
    clock.move_to(NOW + timedelta(days=20))
    events.append(MadeEvent(time=NOW + timedelta(days=19), value="60", offset=1))
    fold(tables, events)
    one.turn()

    assert [one.alert.period_start.month for one in taker.sent] == [1, 2]


def test_a_budget_counts_what_the_running_bill_comes_to(tables: UsageTables) -> None:
    budget = AlertRule(id="b", watch=Watch.BUDGET, amount=Decimal(200), currency="USD", thresholds=(50, 100))
    tables.store(catalog_with(2, (budget,)))
    clock, taker = FixedClock(NOW), Taker()
    one = watcher(tables, taker, clock)
    one.turn()
    before = told(taker)
    # Of a value of 60: 60 of sum, latest, avg and min each, 1 of count and of unique_count; and a balance over time.
    fold(tables, [MadeEvent(time=DAY, value="60", offset=0)])
    one.turn()

    assert before == []
    assert told(taker) == [("acme", 50), ("acme", 100)]
    assert taker.sent[0].alert.limit_id == "2013-01"
    assert (taker.sent[0].alert.value or 0) >= 242


def test_the_end_of_a_period_is_told_of_once(tables: UsageTables) -> None:
    tables.store(catalog_with(2, (AlertRule(id="end", watch=Watch.PERIOD_END, customers=("bolt",)),)))
    clock, taker = FixedClock(NOW.replace(day=31, hour=1)), Taker()
    one = watcher(tables, taker, clock)
    one.turn()
    one.turn()

    assert [(one.alert.customer, one.alert.limit_id, one.alert.threshold) for one in taker.sent] == [
        ("bolt", "2013-01", 0)
    ]


def fired(tables: UsageTables) -> Fired:
    fold(tables, [MadeEvent(time=DAY, value="55", offset=0)])
    taker = Taker("nobody")
    watcher(tables, taker, FixedClock(NOW)).turn()
    return taker.sent[0]


def test_the_webhook_is_signed_and_a_receiver_knows_a_repeat_by_its_key(tables: UsageTables) -> None:
    one = fired(tables)
    replies = [Reply(500), Reply(401), Reply(0), Reply(200)]
    with receiving(lambda _: replies.pop(0)) as receiver:
        settings = with_webhook(tables.settings, receiver.url)
        target = WebhookTarget(settings, FixedClock(NOW))
        for _ in range(3):
            with pytest.raises(UnavailableError):
                target.send([one])
        [outcome] = target.send([one])
        target.close()

    assert (outcome.state, outcome.status) == ("accepted", "200")
    assert {request.headers["idempotency-key"] for request in receiver.requests} == {one.alert.id}
    assert {request.body for request in receiver.requests} == {message(one)}
    assert {request.headers["metering-signature"] for request in receiver.requests} == {
        signature(SECRET, int(NOW.timestamp()), message(one))
    }


def test_what_a_receiver_refuses_is_on_record_and_not_sent_again(tables: UsageTables) -> None:
    fired(tables)

    def refuse(_: Request) -> Reply:
        return Reply(422, b"no " + SECRET.encode())

    with receiving(refuse) as receiver:
        target = WebhookTarget(with_webhook(tables.settings, receiver.url), FixedClock(NOW))
        for _ in range(2):
            Outbox(tables.client, target, clock=FixedClock(NOW), metrics=AlertMetrics(), by="test").send()
        target.close()

    rows = tables.client.query(
        "SELECT state, status, answer FROM alert_deliveries WHERE target = 'webhook'"
    ).result_rows
    assert rows == [("failed", "422", "no …")]
    assert len(receiver.requests) == 1


def with_webhook(settings: Settings, url: str) -> Settings:
    return msgspec.structs.replace(settings, alerts_webhook_url=url, alerts_webhook_secret=SECRET)


@pytest.mark.parametrize(
    ("url", "secret", "variable"),
    [
        ("ftp://example.com", SECRET, "METERING_ALERTS_WEBHOOK_URL"),
        ("https://example.com", "short", "METERING_ALERTS_WEBHOOK_SECRET"),
    ],
)
def test_a_webhook_that_cannot_be_used_is_refused_at_the_start(url: str, secret: str, variable: str) -> None:
    settings = Settings(alerts_webhook_url=url, alerts_webhook_secret=secret)

    with pytest.raises(SettingError) as caught:
        targets_of(settings, SystemClock())

    assert caught.value.where == variable


def test_the_topic_has_each_alert_under_its_customer(
    tables: UsageTables, kafka: KafkaUnderTest, topic_prefix: str
) -> None:
    one = fired(tables)
    settings = msgspec.structs.replace(tables.settings, kafka_servers=kafka.bootstrap)
    target = TopicTarget(settings, topic=f"{topic_prefix}-alerts")
    [outcome] = target.send([one])
    target.close()

    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": topic_prefix, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([f"{topic_prefix}-alerts"])
    found = eventually(lambda: consumer.poll(1.0))
    consumer.close()
    assert (outcome.id, outcome.state) == (one.alert.id, "accepted")
    assert (found.key(), found.value()) == (b"acme", message(one))


def test_a_second_process_stands_by_and_takes_over_when_the_first_has_gone(tables: UsageTables) -> None:
    settings = msgspec.structs.replace(tables.settings, alerts_interval_s=0.05)
    takers, metrics, stops = (
        [Taker(), Taker()],
        [AlertMetrics(), AlertMetrics()],
        [threading.Event(), threading.Event()],
    )
    threads = [
        threading.Thread(
            target=run_alerts,
            args=(settings, [taker]),
            kwargs={"clock": SystemClock(), "metrics": each, "exporter": this_process("test"), "stop": stop},
        )
        for taker, each, stop in zip(takers, metrics, stops, strict=True)
    ]
    end = AlertRule(id="end", watch=Watch.PERIOD_END, hours_before=744, customers=("acme",))
    try:
        threads[0].start()
        eventually(lambda: is_active(metrics[0]))
        threads[1].start()
        tables.store(catalog_with(2, (end,)))
        eventually(lambda: takers[0].sent)
        stops[0].set()
        threads[0].join()
        eventually(lambda: is_active(metrics[1]))
        tables.store(catalog_with(3, (end, msgspec.structs.replace(end, id="second"))))
        eventually(lambda: takers[1].sent)
    finally:
        for stop in stops:
            stop.set()
        for thread in threads:
            if thread.is_alive():
                thread.join()

    assert [one.alert.rule for one in takers[0].sent] == ["end"]
    assert [one.alert.rule for one in takers[1].sent] == ["second"]


def is_active(metrics: AlertMetrics) -> bool:
    return metrics.registry.get_sample_value("metering_alerts_active") == 1


def eventually(is_so: Callable[[], Any]) -> Any:
    deadline_s = time.monotonic() + DEADLINE_S
    while not (found := is_so()):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return found


def test_what_is_long_over_is_neither_known_nor_sent(tables: UsageTables) -> None:
    one = fired(tables)
    later = one.alert.period_end + timedelta(days=41)
    client = connect(tables.settings)

    assert known_ids(client, now=NOW) == {one.alert.id}
    assert known_ids(client, now=later) == set()
    assert pending(client, "webhook", now=later) == []
    assert write(client, [], now=NOW) == []
