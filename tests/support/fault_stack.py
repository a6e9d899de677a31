"""Gateway and workers as processes under faults, a client that remembers what it was told, and a log to read again."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from confluent_kafka import Consumer, ConsumerGroupState, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from aggregators.app import GROUP_ID
from metering.config import Settings, variable_of
from metering.embedded.ports import free_ports
from metering.kafka import client_config, log_ends
from schemas.topics import USAGE_EVENTS
from tests.support.fault_numbers import FLUSH_EVENTS
from tests.support.faulty_process import VARIABLE, Faults
from tests.support.plain_log import Made, made_log
from tests.support.worker_process import ROOT, WAIT_S, Stack, WorkerProcess

BATCH_EVENTS = 100
REQUEST_TIMEOUT_S = 20.0
LEAVE_GROUP = 13
STOP_WAIT_S = 25.0
"""A worker that is told to stop is gone after 20 s; the rest is for a busy machine."""


class FaultyProcess(WorkerProcess):
    """A command of ours as its own process, with what it is to suffer."""

    tells_where_it_stands = True

    def __init__(self, settings: Settings, command: Sequence[str], faults: Faults, environ: Mapping[str, str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        plain = Settings()
        given = {
            variable_of(name): str(getattr(settings, name))
            for name in Settings.__struct_fields__
            if getattr(settings, name) != getattr(plain, name)
        }
        self.started_s = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.faulty_process", *command],
            env={**os.environ, **given, **environ, VARIABLE: msgspec.json.encode(faults).decode()},
            cwd=ROOT,
            stdout=self._said,
            stderr=subprocess.STDOUT,
        )


class FaultStack(Stack):
    """A stack whose processes may be started with faults, and whose client goes through the gateway."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.gateway_url = ""

    def worker(self, faults: Faults | None = None, **changes: Any) -> FaultyProcess:
        """Start a worker; `changes` are settings of its own."""
        return self._process(["worker"], faults or Faults(), {"worker_metrics_port": 0, **changes})

    def gateway(self, **changes: Any) -> FaultyProcess:
        """Start a gateway on a free port and wait until it answers."""
        (port,) = free_ports(1)
        one = self._process(["gateway"], Faults(), {"gateway_port": port, "kafka_delivery_timeout_s": 5.0, **changes})
        self.gateway_url = f"http://127.0.0.1:{port}"
        deadline_s = time.monotonic() + WAIT_S
        while True:
            assert one.returncode is None, one.said
            assert time.monotonic() < deadline_s, one.said
            try:
                httpx.get(f"{self.gateway_url}/healthz", timeout=1.0).raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.05)
            else:
                return one

    def command(self, *arguments: str, faults: Faults | None = None) -> FaultyProcess:
        """Start a command that ends by itself, such as `close`."""
        return self._process(arguments, faults or Faults(), {})

    def _process(self, command: Sequence[str], faults: Faults, changes: Mapping[str, Any]) -> FaultyProcess:
        one = FaultyProcess(msgspec.structs.replace(self.settings, **changes), command, faults, {})
        self._workers.append(one)
        return one

    def log_size(self) -> int:
        """How many offsets the log has."""
        return sum(end - first for first, end in log_ends(self.settings, USAGE_EVENTS).values())

    def settle(self, *workers: WorkerProcess) -> None:
        """Wait until the ledger has all of the log."""
        self.wait_folded(self.log_size(), *workers)

    def evict_dead_members(self) -> None:
        """What the broker does itself once the session timeout has passed: forget members that are gone.

        A test that is not about the timeout need not wait for it.
        """
        evict(self.settings)


def evict(settings: Settings, group: str = GROUP_ID) -> None:
    """Have every member leave a consumer group."""
    admin = AdminClient(client_config(settings))
    try:
        members = admin.describe_consumer_groups([group], request_timeout=10.0)[group].result().members
    except KafkaException:
        return  # no such group yet
    host, _, port = settings.kafka_bootstrap.partition(",")[0].partition(":")
    for one in members:
        with socket.create_connection((host, int(port)), timeout=10.0) as connection:
            body = b"".join(struct.pack(">h", len(text)) + text.encode() for text in ("t", group, one.member_id))
            request = struct.pack(">hhi", LEAVE_GROUP, 0, 1) + body
            connection.sendall(struct.pack(">i", len(request)) + request)
            connection.recv(64)


def group_state(settings: Settings, group: str = GROUP_ID) -> ConsumerGroupState:
    """What the broker says the consumer group is doing."""
    admin = AdminClient(client_config(settings))
    described = admin.describe_consumer_groups([group], request_timeout=10.0)[group].result()
    return ConsumerGroupState(described.state)


def state_of(process: FaultyProcess) -> str:
    """The state letter of a process: T is stopped, S asleep, R running."""
    return Path(f"/proc/{process.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


@contextmanager
def fault_stack_of(services: Settings) -> Iterator[FaultStack]:
    """A stack of two partitions and many small flushes for the length of the block.

    Its processes end with it, and leave the group to the next one.
    """
    settings = msgspec.structs.replace(
        services, kafka_partitions=2, flush_events_max=FLUSH_EVENTS, flush_interval_s=0.1
    )
    one = FaultStack(settings)
    try:
        yield one
    finally:
        one.close()
        evict(settings)


class Sender:
    """Sends events until it was told that they are in, as docs/ingest.md says a client should."""

    def __init__(self, stack: FaultStack, *, give_up_s: float = WAIT_S) -> None:
        self._stack = stack
        self._give_up_s = give_up_s
        self.accepted: list[Made] = []
        self.answers: Counter[int] = Counter()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._log: Sequence[Made] = ()

    def send(self, log: Sequence[Made]) -> None:
        """Send all of it, in order, in batches."""
        with httpx.Client(timeout=REQUEST_TIMEOUT_S) as client:
            for at in range(0, len(log), BATCH_EVENTS):
                self._send_batch(client, log[at : at + BATCH_EVENTS])

    def start(self, log: Sequence[Made]) -> None:
        """Send in the background; `join` waits and raises what went wrong."""
        self._log = log
        self._thread.start()

    def join(self) -> None:
        self._thread.join()
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        try:
            self.send(self._log)
        except BaseException as error:  # noqa: BLE001 - told to whoever joins
            self._failure = error

    def _send_batch(self, client: httpx.Client, batch: Sequence[Made]) -> None:
        body = b"[" + b",".join(one.raw or b"" for one in batch) + b"]"
        deadline_s = time.monotonic() + self._give_up_s
        while True:
            try:
                answer = client.post(
                    f"{self._stack.gateway_url}/v1/events",
                    content=body,
                    headers={"Content-Type": "application/cloudevents-batch+json"},
                )
                self.answers[answer.status_code] += 1
            except httpx.TransportError:
                self.answers[0] += 1
            else:
                if answer.status_code == 200:
                    self.accepted += batch
                    return
                assert answer.status_code in {429, 503}, answer.text
                assert "retry-after" in answer.headers
            assert time.monotonic() < deadline_s, f"not taken in {self._give_up_s:.0f} s: {dict(self.answers)}"
            time.sleep(0.1)


def made_events(seed: int, count: int, *, prefix: str = "s", again: float = 0.1) -> list[Made]:
    """Good events to send over HTTP, with repeats but without conflicts: whose turn comes first is not ours to say."""
    bodies: dict[tuple[str, str, str], Made] = {}
    return [
        bodies.setdefault(one.identity, one)
        for one in made_log(seed, count, prefix=prefix, partitions=4, share_bad=0.0, share_again=again)
        if not one.reason  # a repeat of nothing, which only the first records can be, is made as rubbish
    ]


def read_log(settings: Settings, known: Sequence[Made]) -> list[Made]:
    """The whole log by a plain consumer, each record as what it was made from.

    A record that nobody made is an error: the log must not have what no client sent.
    """
    made = {one.raw: one for one in known}
    consumer = Consumer(
        {**client_config(settings), "group.id": f"oracle-{uuid.uuid4().hex}", "enable.auto.commit": False}
    )
    found: list[Made] = []
    ends = log_ends(settings, USAGE_EVENTS)
    try:
        for partition, (first, end) in ends.items():
            consumer.assign([TopicPartition(USAGE_EVENTS, partition, first)])
            at = first
            while at < end:
                # Asked for more than there is, the client waits for it until the timeout.
                messages = consumer.consume(min(5_000, end - at), timeout=10.0)
                assert messages, f"partition {partition}: nothing after offset {at} of {end}"
                for one in messages:
                    assert not one.error(), one.error()
                    offset = int(one.offset() or 0)
                    value = one.value()
                    found.append(
                        msgspec.structs.replace(
                            made[bytes(value) if value is not None else None],
                            partition=partition,
                            offset=offset,
                            logged_at_ms=one.timestamp()[1],
                        )
                    )
                    at = offset + 1
    finally:
        consumer.close()
    return found
