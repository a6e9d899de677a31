"""Worker processes that are killed, joined, left and lied to, on a real Kafka and a real ClickHouse."""

from __future__ import annotations

import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition

from aggregators.app import GROUP_ID
from metering.kafka import client_config
from schemas.topics import DEAD_LETTERS, USAGE_EVENTS
from tests.support.broken_wire import BrokenWire
from tests.support.pipeline_rig import check
from tests.support.plain_log import Made, expected, made_log
from tests.support.worker_process import WAIT_S, Stack, WorkerProcess, delete_topics, make_topics_anew


@pytest.mark.parametrize("seed", [7])
def test_a_worker_killed_again_and_again_mid_stream_counts_every_event_once(stack: Stack, seed: int) -> None:
    chance = random.Random(seed)
    log = made_log(seed, 8_000, prefix="killed")
    *before, rest = log[:2500], log[2500:5000], log[5000:]

    sent = 0
    for part in before:
        with sending(stack, part):
            worker = stack.start()
            stack.wait_folded(sent + 500, worker)
            time.sleep(chance.uniform(0.0, 0.3))
            worker.kill()
        sent += len(part)
    with sending(stack, rest):
        worker = stack.start()
        stack.wait_folded(len(log), worker)

    assert worker.terminate() == 0
    check(stack.client, stack.epoch, expected(log))


@contextmanager
def sending(stack: Stack, part: list[Made]) -> Iterator[None]:
    """Produce little by little while the block runs; all of it is in Kafka at the end."""

    def send() -> None:
        for at in range(0, len(part), 200):
            stack.produce(part[at : at + 200])

    sender = threading.Thread(target=send)
    sender.start()
    yield
    sender.join()


def test_workers_may_join_and_leave_at_any_time(stack: Stack) -> None:
    log = made_log(8, 4_000, prefix="shared")

    first = stack.start()
    stack.produce(log[:1000])
    stack.wait_folded(1000, first)
    second = stack.start()
    stack.produce(log[1000:2000])
    stack.wait_folded(2000, first, second)
    assert first.terminate() == 0
    stack.produce(log[2000:3000])
    stack.wait_folded(3000, second)
    third = stack.start()
    stack.produce(log[3000:])
    stack.wait_folded(4000, second, third)
    wait_until_assigned(third)

    assert (second.terminate(), third.terminate()) == (0, 0)
    check(stack.client, stack.epoch, expected(log), ledger_may_overlap=True)


def wait_until_assigned(worker: WorkerProcess) -> None:
    """A worker that is still importing its modules would end by the signal itself instead of stopping."""
    deadline_s = time.monotonic() + WAIT_S
    while "assigned" not in worker.said:
        assert worker.returncode is None, worker.said
        assert time.monotonic() < deadline_s, worker.said
        time.sleep(0.1)


def test_a_worker_that_slept_through_losing_its_partitions_does_no_harm(stack: Stack) -> None:
    log = made_log(14, 6_000, prefix="asleep")
    sleeper = stack.start()
    stack.produce(log[:3000])
    stack.wait_folded(500, sleeper)
    sleeper.process.send_signal(signal.SIGSTOP)

    following = stack.start()
    stack.produce(log[3000:5000])
    stack.wait_folded(5000, following)
    sleeper.process.send_signal(signal.SIGCONT)
    stack.produce(log[5000:])
    stack.wait_folded(6000, following)

    assert following.terminate() == 0
    # To wake up without its group may end a worker at once, with 70; whoever supervises it starts another.
    assert sleeper.terminate() in (0, 70), sleeper.said
    check(stack.client, stack.epoch, expected(log), ledger_may_overlap=True)


def test_a_worker_told_to_stop_while_clickhouse_is_away_ends_and_loses_nothing(stack: Stack) -> None:
    log = made_log(15, 600, prefix="away")
    address = urlsplit(stack.settings.clickhouse_address)
    with BrokenWire(address.hostname or "", address.port or 0) as wire:
        worker = stack.start(clickhouse_url=f"http://127.0.0.1:{wire.port}")
        stack.produce(log[:300])
        stack.wait_folded(300, worker)
        wire.break_next("refuse", 1_000_000)
        stack.produce(log[300:])
        while wire.broken == 0:
            assert worker.returncode is None, worker.said
            time.sleep(0.05)

        assert worker.terminate() in {0, 75}
    following = stack.start()
    stack.wait_folded(600, following)

    assert following.terminate() == 0
    check(stack.client, stack.epoch, expected(log))


def test_events_sent_a_second_time_change_no_number(stack: Stack) -> None:
    log = [one for one in made_log(9, 1_500, prefix="twice", share_bad=0, share_again=0) if not one.reason]
    sizes = expected(log).sizes
    again = [msgspec.structs.replace(one, offset=one.offset + sizes[one.partition]) for one in log]
    worker = stack.start()

    stack.produce(log)
    stack.wait_folded(1_500, worker)
    check(stack.client, stack.epoch, expected(log))
    stack.produce(again)
    stack.wait_folded(3_000, worker)

    wanted = expected([*log, *again])
    assert wanted.rollups == expected(log).rollups
    assert sum(wanted.duplicates.values()) == 1_500
    check(stack.client, stack.epoch, wanted)
    assert worker.terminate() == 0


def test_a_worker_goes_by_the_ledger_and_not_by_kafkas_committed_offset(stack: Stack) -> None:
    log = made_log(10, 600, prefix="ledger")
    stack.produce(log)
    consumer = Consumer({**client_config(stack.settings), "group.id": GROUP_ID, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(USAGE_EVENTS, number, 200) for number in (0, 1)], asynchronous=False)
    consumer.close()

    worker = stack.start()
    stack.wait_folded(600, worker)

    check(stack.client, stack.epoch, expected(log))
    assert worker.terminate() == 0


GOOD = Made(subject="s", id="good").raw or b""
BAD: list[tuple[str, bytes | None]] = [
    ("not_json", b"rubbish"),
    ("not_json", GOOD.replace(b'"eu"', b'"\xff"')),
    ("not_json", GOOD.replace(b'"eu"', b'"\\ud800"')),
    ("not_json", GOOD.replace(b'"n": 1', b'"n": NaN')),
    ("not_an_event", b"[]"),
    ("not_an_event", b'"text"'),
    ("missing_field", GOOD.replace(b'"subject"', b'"object"')),
    ("wrong_type", GOOD.replace(b'"id": "good"', b'"id": 5')),
    ("number_out_of_range", GOOD.replace(b'"n": 1', b'"n": 1e400')),
    ("number_out_of_range", GOOD.replace(b'"n": 1', b'"n": 0.1234567890123')),
    ("invalid_number", GOOD.replace(b'"n": 1', b'"n": "NaN"')),
    ("invalid_text", GOOD.replace(b'"id": "good"', b'"id": "%b"' % (b"x" * 200_000))),
    ("too_large", GOOD.replace(b'"good"', b'"%b"' % (b"x" * 280_000))),
    ("time_out_of_range", GOOD.replace(b"2013-", b"0001-")),
    ("time_out_of_range", GOOD.replace(b"2013-", b"9999-")),
    ("time_ahead", GOOD.replace(b"2013-", b"2099-")),
    ("invalid_time", GOOD.replace(b"2013-01-01", b"2013-02-30")),
    ("unknown_type", GOOD.replace(b'"used"', b'"unheard of"')),
    ("invalid_dimension", GOOD.replace(b'"eu"', b'["eu"]')),
    ("key_not_subject", GOOD.replace(b'"subject": "s"', b'"subject": "other"')),
    ("too_deep", b'{"a":' * 50_000),
    ("empty_record", b""),
    ("empty_record", None),
]


def test_every_poisonous_record_ends_in_the_dead_letters_and_every_other_event_counts(stack: Stack) -> None:
    """F13. Poison of every kind ends in the dead letters with its reason and offset; every other event counts."""
    log: list[Made] = []
    for number, (reason, bad) in enumerate(BAD):
        log.append(Made(subject="s", id=f"e{number}", offset=2 * number))
        log.append(Made(subject="s", offset=2 * number + 1, reason=reason, bad=bad))
    worker = stack.start()

    stack.produce(log)
    stack.wait_folded(len(log), worker)

    check(stack.client, stack.epoch, expected(log))
    kept = stack.client.query(
        "SELECT offset, raw FROM dead_letters FINAL ORDER BY offset", column_formats={"raw": "bytes"}
    ).result_rows
    assert kept == [(one.offset, one.raw or b"") for one in log if one.reason]
    letters = _read_dead_letters(stack, len(BAD))
    assert [(one["reason"], one["offset"], one["value"]) for one in letters] == [
        (one.reason.encode(), str(one.offset).encode(), one.raw or b"") for one in log if one.reason
    ]
    assert {(one["epoch"], one["topic"], one["partition"], one["key"]) for one in letters} == {
        (stack.epoch.encode(), USAGE_EVENTS.encode(), b"0", b"s")
    }
    assert all(one["detail"] for one in letters)
    assert worker.terminate() == 0


def _read_dead_letters(stack: Stack, count: int) -> list[dict[str, bytes]]:
    """Headers, key and value of the first dead letters in the topic."""
    consumer = Consumer({**client_config(stack.settings), "group.id": f"test-{uuid.uuid4().hex}"})
    consumer.assign([TopicPartition(DEAD_LETTERS, 0, 0)])
    try:
        messages = consumer.consume(count, timeout=30)
    finally:
        consumer.close()
    found: list[dict[str, bytes]] = []
    for one in messages:
        headers = {str(header[0]): header[1] for header in one.headers() or [] if isinstance(header[1], bytes)}
        found.append({**headers, "key": one.key() or b"", "value": one.value() or b""})
    return found


def test_a_topic_made_anew_ends_the_worker_and_is_counted_as_another_log(stack: Stack) -> None:
    """The new log repeats 100 of the old one's 400 events and has 200 of its own."""
    old = made_log(12, 400, prefix="old", partitions=1, share_again=0, share_bad=0)
    again = [msgspec.structs.replace(one, offset=offset) for offset, one in enumerate(old[:100])]
    fresh = made_log(13, 200, prefix="new", partitions=1, share_again=0, share_bad=0)
    new = [*again, *(msgspec.structs.replace(one, offset=one.offset + 100) for one in fresh)]
    worker = stack.start()
    stack.produce(old)
    stack.wait_folded(400, worker)
    old_epoch = stack.epoch

    make_topics_anew(stack.settings)
    stack.produce(new)

    assert worker.wait() == 70
    assert "made anew" in worker.said or "does not exist" in worker.said
    following = stack.start()
    stack.wait_folded(300, following)
    assert following.terminate() == 0
    assert stack.epoch != old_epoch
    check(stack.client, old_epoch, expected(old))
    counted = expected(new)
    accepted = stack.client.query(
        "SELECT sum(accepted), sum(duplicate), sum(rejected), sum(absent) FROM positions FINAL "
        "WHERE epoch = {epoch:String}",
        {"epoch": stack.epoch},
    ).result_rows[0]
    assert accepted == (len(counted.accepted) - 100, 100, 0, 0)


def test_a_worker_without_its_topic_says_what_to_do(stack: Stack) -> None:
    delete_topics(stack.settings)

    worker = stack.start()

    assert worker.wait() == 2
    assert f"topic {USAGE_EVENTS} does not exist" in worker.said
    assert "metering migrate" in worker.said
