"""Faults of Kafka, of the network to it, and of what is sent: real gateway, real workers, a broker behind a wire."""

from __future__ import annotations

import gzip
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
import zstandard
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from ingest.producer import producer_config
from metering.config import Settings
from metering.kafka import client_config, log_ends
from metering.testing import ClickHouseUnderTest
from schemas.errors import KafkaUnavailableError
from schemas.topics import USAGE_EVENTS
from tests.support.fault_numbers import EVENTS, IS_FULL, seeds
from tests.support.fault_proof import prove
from tests.support.fault_stack import STOP_WAIT_S, FaultStack, FaultyProcess, Sender, fault_stack_of, made_events
from tests.support.fault_wire import FaultWire
from tests.support.invariants import wait_for
from tests.support.plain_log import Made, made_log
from tests.support.proxied_kafka import ProxiedKafka, proxied_kafka
from tests.support.worker_process import WAIT_S

STALLS = 4 if IS_FULL else 1
STALL_S = 60.0 if IS_FULL else 1.0
FIRST_STALL_S = 600.0 if IS_FULL else 1.0
BROKER_KILLS = 10 if IS_FULL else 1
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ProxiedKafka, FaultWire]]:
    with proxied_kafka(tmp_path_factory.mktemp("kafka")) as pair:
        yield pair


@pytest.fixture
def behind_wire(
    broker: tuple[ProxiedKafka, FaultWire], clickhouse: ClickHouseUnderTest, database: str, tmp_path: Path
) -> Iterator[FaultStack]:
    settings = Settings(
        data_dir=tmp_path / "data",
        kafka_servers=f"127.0.0.1:{broker[1].port}",
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=database,
    )
    with fault_stack_of(settings) as one:
        yield one


@pytest.mark.parametrize("seed", seeds())
def test_f3_a_broker_killed_under_load(
    behind_wire: FaultStack, broker: tuple[ProxiedKafka, FaultWire], seed: int
) -> None:
    """F3. One broker killed under load and started again has every acknowledged event, and the worker goes on."""
    kafka, _ = broker
    log = made_events(seed, EVENTS, prefix="broker")
    behind_wire.gateway(kafka_delivery_timeout_s=3.0)
    worker = behind_wire.worker()
    sender = Sender(behind_wire)
    sender.start(log)

    for _ in range(BROKER_KILLS):
        seen = len(sender.accepted)
        wait_for("some acknowledged events", lambda seen=seen: len(sender.accepted) > seen)
        kafka.kill()
        time.sleep(0.5)
        kafka.start()
    sender.join()
    epoch = behind_wire.epoch
    behind_wire.settle()

    assert set(sender.answers) <= {0, 200, 503}
    assert worker.terminate() in {0, 70, 75}, worker.said
    assert behind_wire.epoch == epoch
    prove(behind_wire, log, sender.accepted, overlaps=True)


@pytest.mark.parametrize("seed", seeds())
def test_f7_a_network_that_swallows_holds_resets_and_splits(
    behind_wire: FaultStack, broker: tuple[ProxiedKafka, FaultWire], seed: int
) -> None:
    """F7. What the network to Kafka swallows, holds, resets or tears apart is sent again and counts once."""
    _, wire = broker
    chance = random.Random(seed)
    log = made_events(seed, EVENTS, prefix="net")
    behind_wire.gateway(kafka_delivery_timeout_s=3.0)
    worker = behind_wire.worker()
    sender = Sender(behind_wire, give_up_s=WAIT_S + FIRST_STALL_S)
    sender.start(log)

    lasts_s = FIRST_STALL_S
    for mode in chance.sample(["swallow", "hold", "reset", "split"], k=4) * STALLS:
        wire.spoil(mode)
        time.sleep(lasts_s)
        lasts_s = chance.uniform(0.2, STALL_S)
        wire.heal()
        time.sleep(0.5)
    sender.join()
    # A worker may end over a fault that lasts, with 70; whoever supervises it starts another.
    workers = [worker] if worker.returncode is None else [behind_wire.worker()]
    behind_wire.settle(*workers)

    assert wire.broken > 0
    assert set(sender.answers) <= {0, 200, 503}
    assert workers[0].terminate() in {0, 70, 75}
    prove(behind_wire, log, sender.accepted, overlaps=True)


def test_f2_a_worker_told_to_stop_while_kafka_answers_nothing(
    behind_wire: FaultStack, broker: tuple[ProxiedKafka, FaultWire]
) -> None:
    """F2. SIGTERM ends a worker within 20 s also while Kafka swallows every request, and nothing is lost."""
    _, wire = broker
    log = made_log(4, EVENTS // 4, prefix="silent")
    half = len(log) // 2
    worker = behind_wire.worker()
    behind_wire.produce(log[:half])
    behind_wire.settle(worker)
    behind_wire.produce(log[half:])
    broken = wire.broken
    wire.spoil("swallow")
    wait_for("a request that hangs", lambda: wire.broken > broken)

    worker.process.send_signal(signal.SIGTERM)
    code = worker.process.wait(STOP_WAIT_S)
    wire.heal()
    following = behind_wire.worker()
    behind_wire.settle(following)

    assert code in {0, 70, 75}, worker.said
    assert following.terminate() == 0
    prove(behind_wire, log)


@pytest.mark.parametrize("seed", seeds())
def test_f8_the_same_events_again_and_again(faulty: FaultStack, seed: int) -> None:
    """F8. One to fifty copies over HTTP and Kafka count once; the same id with another body is reported."""
    chance = random.Random(seed)
    once = made_events(seed, EVENTS // 4, prefix="again", again=0.0)
    copied = chance.sample(once, k=10)
    others = [msgspec.structs.replace(one, n="777") for one in copied[:5]]
    again = [one for one in copied for _ in range(chance.randint(1, 50))]
    chance.shuffle(again)
    faulty.gateway()
    sender = Sender(faulty)

    sender.send(once[: len(once) // 2] + copied)
    worker = faulty.worker()
    sender.send(again + once)
    write_to_kafka(faulty.settings, [*again, *others])
    faulty.settle(worker)

    reported = faulty.client.query("SELECT reason, count() FROM dead_letters FINAL GROUP BY reason").result_rows
    assert reported == [("identity_conflict", len({one.identity for one in others}))]
    assert worker.terminate() == 0
    prove(faulty, [*once, *others], sender.accepted)


def partitions_of(settings: Settings) -> int:
    """How many partitions of the log have a leader that answers."""
    try:
        return len(log_ends(settings, USAGE_EVENTS))
    except KafkaUnavailableError:
        return 0


def write_to_kafka(settings: Settings, events: list[Made]) -> None:
    """Write records the way docs/events.md tells other producers to."""
    producer = Producer(producer_config(settings))
    for one in events:
        producer.produce(USAGE_EVENTS, key=one.key, value=one.raw)
        producer.poll(0)
    assert producer.flush(30.0) == 0


@pytest.mark.parametrize("seed", seeds())
def test_f17_partitions_added_in_mid_stream(faulty: FaultStack, seed: int) -> None:
    """F17. Partitions grow from two to five: all are counted, and a repeat that lands on another one counts once."""
    log = made_events(seed, EVENTS // 2, prefix="grow")
    half = len(log) // 2
    faulty.gateway()
    worker = faulty.worker()
    sender = Sender(faulty)
    sender.send(log[:half])
    faulty.settle(worker)

    admin = AdminClient(client_config(faulty.settings))
    admin.create_partitions([NewPartitions(USAGE_EVENTS, 5)])[USAGE_EVENTS].result()
    wait_for("five partitions", lambda: partitions_of(faulty.settings) == 5)
    faulty.gateway()  # one that knows of them; the first may learn of them minutes later
    second = Sender(faulty)
    second.send(log)
    faulty.settle(worker)

    elsewhere = [end for partition, (_, end) in log_ends(faulty.settings, USAGE_EVENTS).items() if partition > 1]
    assert sum(elsewhere) > 0
    assert worker.terminate() == 0
    prove(faulty, log, [*sender.accepted, *second.accepted])


def test_f14_giants_and_bombs(faulty: FaultStack) -> None:
    """F14. A body or batch over its limit, plain or a bomb of gzip or zstd, is a 413 that costs no memory."""
    gateway = faulty.gateway()
    url = f"{faulty.gateway_url}/v1/events"
    event = Made(subject="giant").raw or b""
    zeros = b" " * (256 * MIB)
    bombs = {"gzip": gzip.compress(zeros, 9), "zstd": zstandard.compress(zeros, 19)}
    del zeros
    limits = faulty.settings
    batch = "application/cloudevents-batch+json"
    cases: list[tuple[bytes, dict[str, str]]] = [
        (b" " * (limits.body_bytes_max + 1), {}),
        (b"[" + b",".join([event] * (limits.batch_events_max + 1)) + b"]", {}),
        *((bomb, {"Content-Encoding": name}) for name, bomb in bombs.items()),
    ]
    with httpx.Client(timeout=60.0) as client:
        for _ in range(2):
            before_bytes = rss_bytes(gateway)
            for body, headers in cases:
                answer = client.post(url, content=body, headers={"Content-Type": batch, **headers})
                assert answer.status_code == 413, answer.text
        assert rss_bytes(gateway) <= before_bytes + 64 * MIB
        too_large = event.replace(b'"giant"', b'"%b"' % (b"x" * limits.event_bytes_max))
        answer = client.post(url, content=too_large, headers={"Content-Type": "application/cloudevents+json"})
        assert answer.status_code in {413, 422}, answer.text
        largest = (
            b"["
            + b",".join(
                (Made(subject="giant", id=str(number), n="1").raw or b"") for number in range(limits.batch_events_max)
            )
            + b"]"
        )
        answer = client.post(url, content=largest, headers={"Content-Type": batch})
        assert answer.status_code == 200, answer.text
    assert faulty.log_size() == limits.batch_events_max


def rss_bytes(process: FaultyProcess) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{process.process.pid}/status").read_text(encoding="ascii")
    (line,) = (one for one in status.splitlines() if one.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
