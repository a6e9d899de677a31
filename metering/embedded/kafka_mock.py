"""Stands in for Kafka where its jars cannot be had: librdkafka's mock cluster in a process of its own.

It speaks Kafka's protocol well enough for producers, consumers and groups, and that is all. What to know:

- Everything is in memory and gone when it stops; every start is a new cluster id.
- A partition keeps about its newest 5 MB. A worker that falls further behind finds records missing.
- Topics come into being when they are first named, with 4 partitions. CreateTopics and DescribeCluster are not
  answered, and there are no topic ids.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

from metering.embedded.process import GuardedProcess, python_env

START_TIMEOUT_S = 20.0
WARNING = (
    "Apache Kafka's jars cannot be had: a mock cluster serves instead, IN MEMORY ONLY. Events are gone when it stops, "
    "and a partition holds only its newest 5 MB."
)


class MockKafka:
    """The mock cluster with the interface of EmbeddedKafka. It chooses its port itself, anew at every start."""

    in_memory = True

    def __init__(self, data_dir: Path, *, log_path: Path | None = None) -> None:
        self._folder = data_dir.resolve()
        self._address = self._folder / "mock-address"
        self._log_path = log_path or self._folder / "kafka.log"
        self._process: GuardedProcess | None = None
        self._bootstrap = ""

    @property
    def bootstrap(self) -> str:
        """`host:port` of the cluster that runs; empty before the first start."""
        return self._bootstrap

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    @property
    def returncode(self) -> int | None:
        """How the process ended; None while it runs or before the first start."""
        return self._process.returncode if self._process else None

    @property
    def log_path(self) -> Path:
        """Where the process writes what it has to say."""
        return self._log_path

    def log_tail(self) -> str:
        """The last lines of its log, indented; empty when there are none."""
        return self._process.log_tail() if self._process else ""

    def start(self) -> None:
        """Start an empty cluster. Raises EmbeddedError with the end of its log when it does not come up."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._address.unlink(missing_ok=True)
        self._process = GuardedProcess(
            "kafka",
            [sys.executable, "-m", "metering.embedded.kafka_mock", str(self._address)],
            log_path=self._log_path,
            env=python_env(),
            grace_s=5.0,
        )
        try:
            self._process.start()
            self._process.wait_until(self._address.exists, START_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise
        self._bootstrap = self._address.read_text(encoding="ascii")

    def stop(self) -> None:
        """End the cluster; what it held is gone."""
        if self._process:
            self._process.stop()

    def kill(self) -> None:
        """End it at once."""
        if self._process:
            self._process.kill()

    def request_stop(self) -> None:
        """Ask it to end and return at once; `stop` then waits for it."""
        if self._process:
            self._process.request_stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def main(address: Path) -> int:
    """Hold a mock cluster until SIGTERM or SIGINT; its address is written to the file once it answers."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    holder = Producer({"bootstrap.servers": "", "test.mock.num.brokers": 1, "log_level": 3})
    brokers = holder.list_topics(timeout=10).brokers.values()
    draft = address.with_suffix(".new")
    draft.write_text(",".join(f"{broker.host}:{broker.port}" for broker in brokers), encoding="ascii")
    draft.replace(address)
    ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
