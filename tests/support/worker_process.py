"""Real worker processes on a real log: topics made anew for each test, and a database of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec
from clickhouse_connect.driver.client import Client
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from metering import catalog_store
from metering.clickhouse import connect
from metering.clock import SystemClock
from metering.config import Settings, variable_of
from metering.kafka import client_config, ensure_topics, log_epoch
from metering.migrate import migrate
from schemas.topics import DEAD_LETTERS, USAGE_EVENTS
from tests.support.plain_log import CATALOG, Made

WAIT_S = 180.0
"""How long nothing may happen before it counts as never; also much slower machines are quicker."""
EXIT_WAIT_S = 180.0
ROOT = Path(__file__).parents[2]


class WorkerProcess:
    """`metering worker` as its own process; what it says is kept for a failing test to show."""

    tells_where_it_stands = False
    """Whether SIGUSR1 makes it write the stacks of its threads."""

    def __init__(self, settings: Settings) -> None:
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        given = {
            variable_of(name): str(getattr(settings, name))
            for name in (
                "kafka_servers",
                "clickhouse_url",
                "clickhouse_username",
                "clickhouse_password",
                "clickhouse_database",
                "flush_events_max",
                "flush_interval_s",
            )
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "metering", "worker"],
            env={**os.environ, **given, variable_of("worker_metrics_port"): "0"},
            cwd=ROOT,
            stdout=self._said,
            stderr=subprocess.STDOUT,
        )

    @property
    def returncode(self) -> int | None:
        return self.process.poll()

    @property
    def said(self) -> str:
        """Everything it has written so far."""
        self._said.seek(0)
        return self._said.read().decode(errors="replace")

    def kill(self) -> None:
        """SIGKILL: no last words, no clean-up."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM, as an operator does; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """The exit code. Raises AssertionError, with what it said and where it stands, if it does not end."""
        try:
            return self.process.wait(EXIT_WAIT_S)
        except subprocess.TimeoutExpired:
            if self.tells_where_it_stands:
                self.process.send_signal(signal.SIGUSR1)
                time.sleep(1)
            raise AssertionError(f"{self.process.args!r} did not end within {EXIT_WAIT_S} s:\n{self.said}") from None

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._said.close()


class Stack:
    """A topic made anew, a database with the plain log's catalog, and the workers on them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        make_topics_anew(settings)
        self.client: Client = connect(settings)
        migrate(self.client)
        catalog_store.apply(self.client, CATALOG, clock=SystemClock(), applied_by="test")
        self._workers: list[WorkerProcess] = []

    @property
    def epoch(self) -> str:
        return log_epoch(self.settings, USAGE_EVENTS)

    def start(self, **changes: str) -> WorkerProcess:
        """Start a worker; `changes` are settings of its own."""
        one = WorkerProcess(msgspec.structs.replace(self.settings, **changes))
        self._workers.append(one)
        return one

    def produce(self, log: Iterable[Made]) -> None:
        """Write records to the partitions they name, in order; returns once Kafka has all of them."""
        failures: list[str] = []
        producer = Producer({**client_config(self.settings), "enable.idempotence": True, "compression.type": "lz4"})
        for one in log:
            producer.produce(
                USAGE_EVENTS,
                value=one.raw,
                key=one.key,
                partition=one.partition,
                on_delivery=lambda error, _message: failures.append(str(error)) if error else None,
            )
            producer.poll(0)
        assert producer.flush(WAIT_S) == 0
        assert not failures

    def folded_count(self) -> int:
        """How many offsets of the present log the ledger accounts for, each once."""
        rows = self.client.query(
            "SELECT partition, max(last) + 1 FROM positions WHERE epoch = {epoch:String} GROUP BY partition",
            {"epoch": self.epoch},
        ).result_rows
        return sum(int(row[1]) for row in rows)

    def wait_folded(self, count: int, *workers: WorkerProcess) -> None:
        """Wait until the ledger has this many offsets; a worker that ends or a ledger that stands still is an error."""
        deadline_s = time.monotonic() + WAIT_S
        reached = 0
        while (found := self.folded_count()) < count:
            for one in workers:
                assert one.returncode is None, one.said
            if found > reached:
                reached, deadline_s = found, time.monotonic() + WAIT_S
            assert time.monotonic() < deadline_s, f"{found} of {count}\n" + "\n".join(one.said for one in workers)
            time.sleep(0.1)

    def close(self) -> None:
        for one in self._workers:
            one.close()
        self.client.close()


@contextmanager
def stack_of(settings: Settings) -> Iterator[Stack]:
    """A stack for the length of the block; its workers end with it."""
    one = Stack(settings)
    try:
        yield one
    finally:
        one.close()


def make_topics_anew(settings: Settings) -> None:
    """Delete both topics, if they are there, and create them: another log under the same name."""
    delete_topics(settings)
    wanted = {USAGE_EVENTS, DEAD_LETTERS}
    deadline_s = time.monotonic() + WAIT_S
    made: set[str] = set()
    while made != wanted:  # a broker may still be forgetting the old topic
        try:
            made |= set(ensure_topics(settings))
        except KafkaException:
            assert time.monotonic() < deadline_s
        time.sleep(0.1)


def delete_topics(settings: Settings) -> None:
    """Delete both topics, if they are there."""
    admin = AdminClient(client_config(settings))
    present: list[str] = [one for one in (USAGE_EVENTS, DEAD_LETTERS) if one in admin.list_topics(timeout=15).topics]
    if present:
        for future in admin.delete_topics(present, operation_timeout=15).values():
            future.result()
