"""The embedded Kafka: what it keeps, how it refuses, and the mock cluster in its place."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console

from metering.config import Settings
from metering.embedded import kafka_jars
from metering.embedded.kafka import EmbeddedKafka
from metering.embedded.kafka_archive import start_archive
from metering.embedded.kafka_java import standing_options
from metering.embedded.kafka_mock import WARNING, MockKafka
from metering.embedded.kafka_training import make_start_archive
from metering.embedded.ports import free_ports, is_free
from metering.embedded.process import python_env
from metering.embedded.supervisor import Supervisor
from schemas.errors import AlreadyRunningError, JarsUnavailableError, PortTakenError


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """In a folder whose name needs every escape a properties file knows."""
    with EmbeddedKafka(tmp_path_factory.mktemp("kafka") / " a=b #c: ü漢\\n") as server:
        yield server


def produce(bootstrap: str, topic: str, count: int) -> list[KafkaError | None]:
    """Send `count` records with acks=all; gives the outcome of each, None for an acknowledged one."""
    outcomes: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "delivery.timeout.ms": 10_000, "log_level": 0})
    for number in range(count):
        producer.produce(topic, b"%d" % number, on_delivery=lambda error, _: outcomes.append(error), partition=0)
    producer.flush(20)
    return outcomes


def offsets(bootstrap: str, topic: str) -> tuple[int, int]:
    """First offset and the one after the last, of partition 0."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test-offsets", "log_level": 0})
    first, after_last = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=15)
    consumer.close()
    return first, after_last


def create(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1)])[topic].result(15)


def wait_until_free(port: int) -> None:
    deadline = time.monotonic() + 40
    while not is_free(port):
        assert time.monotonic() < deadline, "an orphan still listens"
        time.sleep(0.05)


def test_acknowledged_records_and_the_cluster_id_survive_a_kill(tmp_path: Path) -> None:
    server = EmbeddedKafka(tmp_path)
    server.start()
    try:
        create(server.bootstrap, "kept")
        outcomes = produce(server.bootstrap, "kept", 1_000)
        before = server.cluster_id

        server.kill()
        server.start()

        admin = AdminClient({"bootstrap.servers": server.bootstrap})
        after = str(admin.list_topics(timeout=15).cluster_id)
        assert (after, EmbeddedKafka(tmp_path).cluster_id) == (before, before)
        assert outcomes == [None] * 1_000
        assert offsets(server.bootstrap, "kept") == (0, 1_000)
    finally:
        server.stop()
    assert not server.running


@pytest.fixture
def jars_only(tmp_path: Path) -> Path:
    """A cache with Kafka's jars and no archive of its classes."""
    folder = tmp_path / "cache" / f"kafka-{kafka_jars.KAFKA_VERSION}"
    folder.mkdir(parents=True)
    kafka_jars.kafka_jars()
    for part in (kafka_jars.cache_dir() / folder.name).iterdir():
        if not part.name.startswith("start-"):
            (folder / part.name).symlink_to(part)
    return folder.parent


def cluster_id_of(kafka: EmbeddedKafka) -> str | None:
    metadata = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=15)
    cluster_id: str | None = metadata.cluster_id
    return cluster_id


def test_a_broker_starts_without_an_archive_of_its_classes(tmp_path: Path, jars_only: Path) -> None:
    assert not start_archive(standing_options(), jars_only).is_made
    with EmbeddedKafka(tmp_path / "kafka", cache=jars_only) as kafka:
        assert cluster_id_of(kafka) == kafka.cluster_id


def test_an_archive_that_is_rubbish_is_left_alone(tmp_path: Path, jars_only: Path) -> None:
    archive = start_archive(standing_options(), jars_only)
    archive.features.write_bytes(make_start_archive().features.read_bytes())
    archive.classes.write_bytes(b"no archive")
    with EmbeddedKafka(tmp_path / "kafka", cache=jars_only) as kafka:
        assert cluster_id_of(kafka) == kafka.cluster_id
        create(kafka.bootstrap, "some")
        assert produce(kafka.bootstrap, "some", 3) == [None] * 3


def test_folders_begun_from_an_archive_have_identities_of_their_own(tmp_path: Path) -> None:
    assert make_start_archive().is_made
    with EmbeddedKafka(tmp_path / "one") as one, EmbeddedKafka(tmp_path / "two") as two:
        assert cluster_id_of(one) == one.cluster_id
        assert cluster_id_of(two) == two.cluster_id
        assert len({one.cluster_id, two.cluster_id}) == 2
        assert len({(kafka.log_folder / "meta.properties").read_text() for kafka in (one, two)}) == 2


def test_a_topic_that_was_not_created_is_an_error(server: EmbeddedKafka) -> None:
    (error,) = produce(server.bootstrap, "misspelt", 1)

    assert error is not None
    assert error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._MSG_TIMED_OUT)


def test_it_listens_on_this_machine_only(server: EmbeddedKafka) -> None:
    hexadecimal = f":{server.port:04X}"
    tables = [Path(f"/proc/{server.pid}/net/{name}").read_text(encoding="ascii") for name in ("tcp", "tcp6")]
    listening = [line.split()[1] for table in tables for line in table.splitlines()[1:] if line.split()[3] == "0A"]

    addresses = [address for address in listening if address.endswith(hexadecimal)]

    assert addresses
    assert {address.rsplit(":", 1)[0] for address in addresses} <= {
        "0100007F",
        "0000000000000000FFFF00000100007F",
    }


def test_a_second_broker_on_the_same_folder_is_refused(server: EmbeddedKafka) -> None:
    with pytest.raises(AlreadyRunningError, match=rf"process {os.getpid()}\b"):
        EmbeddedKafka(server.log_path.parent).start()

    assert server.running


def test_a_taken_port_is_named_with_its_setting(server: EmbeddedKafka, tmp_path: Path) -> None:
    with pytest.raises(PortTakenError, match=rf"127\.0\.0\.1:{server.port} .*METERING_KAFKA_PORT"):
        EmbeddedKafka(tmp_path, port=server.port).start()


@pytest.mark.parametrize("kind", ["EmbeddedKafka", "MockKafka"])
def test_the_broker_ends_when_the_process_that_started_it_is_killed(tmp_path: Path, kind: str) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from metering.embedded.kafka import EmbeddedKafka; from metering.embedded.kafka_mock import MockKafka\n"
        f"server = {kind}(Path(sys.argv[1])); server.start(); print(server.bootstrap, flush=True)\n"
        "time.sleep(600)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, env=python_env(), text=True
    )
    assert starter.stdout is not None
    port = int(starter.stdout.readline().rsplit(":", 1)[1])
    assert not is_free(port)

    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()

    wait_until_free(port)


def test_the_mock_cluster_takes_records_and_gives_them_back(tmp_path: Path) -> None:
    with MockKafka(tmp_path) as server:
        assert produce(server.bootstrap, "usage.events.v1", 100) == [None] * 100
        consumer = Consumer(
            {"bootstrap.servers": server.bootstrap, "group.id": "g", "auto.offset.reset": "earliest", "log_level": 0}
        )
        consumer.subscribe(["usage.events.v1"])
        messages = consumer.consume(100, timeout=20)
        values = [int(message.value() or b"") for message in messages]
        consumer.close()

    assert values == list(range(100))
    assert not server.running


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without cached jars, whose every request for one goes to a port where nobody listens."""
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, nobody)


@pytest.mark.usefixtures("no_network")
def test_jars_that_cannot_be_had_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(JarsUnavailableError, match="METERING_KAFKA_SERVERS"):
        EmbeddedKafka(tmp_path / "data").start()

    assert not (tmp_path / "data" / "log").exists()


@pytest.mark.usefixtures("no_network")
def test_without_jars_the_stack_runs_on_the_mock_and_warns_once(tmp_path: Path) -> None:
    kafka_port, clickhouse_port = free_ports(2)
    console = Console(file=io.StringIO(), width=1_000)
    settings = Settings(data_dir=tmp_path / "data", kafka_port=kafka_port, clickhouse_port=clickhouse_port)

    with Supervisor(settings, [], console=console) as stack:
        outcomes = produce(stack.settings.kafka_bootstrap, "usage.events.v1", 10)

    assert outcomes == [None] * 10
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count(WARNING) == 1


@pytest.mark.usefixtures("no_network")
def test_a_folder_with_a_real_log_is_not_continued_on_the_mock(tmp_path: Path) -> None:
    log = tmp_path / "kafka" / "log"
    log.mkdir(parents=True)
    (log / "meta.properties").write_text("cluster.id=x\n")
    kafka_port, clickhouse_port = free_ports(2)

    with pytest.raises(JarsUnavailableError):
        Supervisor(
            Settings(data_dir=tmp_path, kafka_port=kafka_port, clickhouse_port=clickhouse_port),
            [],
            console=Console(file=io.StringIO()),
        ).start()


def test_a_jar_that_was_cut_short_is_noticed(tmp_path: Path) -> None:
    whole = kafka_jars.kafka_jars()
    folder = tmp_path / f"kafka-{kafka_jars.KAFKA_VERSION}"
    source = kafka_jars.cache_dir() / f"kafka-{kafka_jars.KAFKA_VERSION}"
    for jar in whole:
        copy = folder / jar.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.link(jar, copy)
    (folder / kafka_jars.LIST_NAME).write_bytes((source / kafka_jars.LIST_NAME).read_bytes())
    assert kafka_jars._listed(folder) == [folder / jar.relative_to(source) for jar in whole]

    cut = folder / whole[0].relative_to(source)
    content = cut.read_bytes()
    cut.unlink()
    cut.write_bytes(content[:-1])

    assert kafka_jars._listed(folder) is None
