"""Three brokers that keep a copy of everything each: one may be killed, or lose the end of its files, and come back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from typing_extensions import override

from metering.embedded.kafka import EmbeddedKafka
from metering.embedded.kafka_java import HEAP
from metering.embedded.ports import free_ports
from schemas.topics import USAGE_EVENTS

BROKERS: Final = 3
SMALL_HEAP: Final = ("-Xms64m", "-Xmx256m")
COPIES: Final = {
    "default.replication.factor": 3,
    "min.insync.replicas": 2,
    "offsets.topic.replication.factor": 3,
}


class Broker(EmbeddedKafka):
    """One of several brokers, each of which is a controller too."""

    def __init__(self, folder: Path, *, node: int, port: int, controller_ports: Sequence[int]) -> None:
        super().__init__(folder, port=port)
        self.node_id = node
        self._controller_ports = controller_ports

    @override
    def _jvm_options(self) -> list[str]:
        return [*SMALL_HEAP, *(one for one in super()._jvm_options() if one not in HEAP)]

    @override
    def _write_config(self, controller_port: int) -> Path:
        path = super()._write_config(self._controller_ports[self.node_id - 1])
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(self._controller_ports, 1))
        changes = {"controller.quorum.voters": voters, **COPIES}
        text = path.read_text(encoding="utf-8")
        for name, value in changes.items():
            text, count = re.subn(rf"^{re.escape(name)}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
            assert count == 1, name
        path.write_text(text, encoding="utf-8")
        return path

    def cut_log(self, size_bytes: int) -> int:
        """Take the end off the active segment of each partition of the log; how many bytes are gone in all."""
        gone = 0
        for folder in sorted((self._folder / "log").glob(f"{USAGE_EVENTS}-[0-9]")):
            active = max(folder.glob("*.log"))
            size = active.stat().st_size
            with active.open("r+b") as file:
                file.truncate(max(0, size - size_bytes))
            gone += min(size, size_bytes)
        return gone

    def stored(self, partition: int) -> bytes:
        """The files of a partition of the log, one behind the other."""
        folder = self._folder / "log" / f"{USAGE_EVENTS}-{partition}"
        return b"".join(file.read_bytes() for file in sorted(folder.glob("*.log")))


class Cluster:
    """The brokers of one cluster."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(2 * BROKERS)
        self.brokers = [
            Broker(folder / str(node), node=node, port=ports[node - 1], controller_ports=ports[BROKERS:])
            for node in range(1, BROKERS + 1)
        ]
        for one in self.brokers[1:]:
            (folder / str(one.node_id)).mkdir(parents=True)
            (folder / str(one.node_id) / "cluster_id").write_text(self.brokers[0].cluster_id, encoding="ascii")

    @property
    def bootstrap(self) -> str:
        return ",".join(one.bootstrap for one in self.brokers)

    def start(self) -> None:
        """Start all: none of them answers before a second one is there."""
        with ThreadPoolExecutor(BROKERS) as pool:
            list(pool.map(Broker.start, self.brokers))

    def kill(self) -> None:
        for one in self.brokers:
            one.kill()

    def leader_of(self, partition: int) -> Broker:
        """The broker that leads a partition of the log."""
        leader = self._partitions()[partition][0]
        return self.brokers[leader - 1]

    def is_whole(self) -> bool:
        """Whether every broker has all of the log."""
        try:
            partitions = self._partitions()
        except KafkaException:
            return False
        return bool(partitions) and all(copies == BROKERS for _, copies in partitions.values())

    def copies(self, partition: int) -> list[bytes]:
        """What each broker has of a partition of the log, byte for byte."""
        return [one.stored(partition) for one in self.brokers]

    def _partitions(self) -> dict[int, tuple[int, int]]:
        """(leader, how many copies are complete) of each partition."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        found = admin.list_topics(USAGE_EVENTS, timeout=10.0).topics[USAGE_EVENTS].partitions
        return {number: (one.leader, len(one.isrs)) for number, one in found.items()}


@contextmanager
def kafka_cluster(folder: Path) -> Iterator[Cluster]:
    """Three brokers for the length of the block."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()
