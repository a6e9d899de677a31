"""The stack as a whole: what starts, what stops, and what a second one is told."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from metering.config import Settings, load_settings
from metering.embedded.parts import ChildSpec, settings_env
from metering.embedded.ports import free_ports
from metering.embedded.process import python_env
from metering.embedded.supervisor import Supervisor
from schemas.errors import AlreadyRunningError, EmbeddedError, PortTakenError, SettingError


def settings_without_engines(folder: Path) -> Settings:
    return Settings(data_dir=folder, kafka_servers="127.0.0.1:1", clickhouse_url="http://127.0.0.1:2")


def child(name: str, program: str, **more: object) -> ChildSpec:
    return msgspec.structs.replace(ChildSpec(name=name, argv=(sys.executable, "-c", program)), **more)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_for(fact: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30.0
    while not fact():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.02)


def says(log: Path, text: str) -> bool:
    return log.exists() and text in log.read_text()


SLEEPS = "import time; time.sleep(600)"


def test_children_start_after_what_is_prepared_and_all_have_ended_once_it_is_stopped(tmp_path: Path) -> None:
    log = tmp_path / "order"
    program = f"""
import signal, sys, time
def note(text):
    with open({str(log)!r}, "a") as file: file.write(text + "\\n")
signal.signal(signal.SIGTERM, lambda *_: (note(sys.argv[1] + " ends"), sys.exit(0)))
note(sys.argv[1] + " begins")
time.sleep(600)
"""
    specs = [
        ChildSpec(
            name=name,
            argv=(sys.executable, "-c", program, name),
            ready=partial(says, log, f"{name} begins"),
        )
        for name in ("gateway", "worker")
    ]

    def prepare(_: Settings) -> None:
        log.write_text("prepared\n")

    stack = Supervisor(
        settings_without_engines(tmp_path / "data"),
        specs,
        prepare=prepare,
        console=quiet(),
    )
    with stack:
        begun = log.read_text().splitlines()

    assert begun[0] == "prepared"
    assert sorted(begun[1:]) == ["gateway begins", "worker begins"]
    assert sorted(log.read_text().splitlines()[3:]) == ["gateway ends", "worker ends"]


def test_a_second_up_on_the_same_folder_leaves_the_first_alone(tmp_path: Path) -> None:
    settings = settings_without_engines(tmp_path)
    first = Supervisor(settings, [child("worker", SLEEPS)], console=quiet())
    with first:
        pid = first._parts[0].pid

        with pytest.raises(AlreadyRunningError, match=rf"process {os.getpid()}\b"):
            Supervisor(settings, [child("worker", SLEEPS)], console=quiet()).start()

        assert alive(pid)
    assert not alive(pid)


def test_a_folder_can_be_used_again_after_its_stack_stopped(tmp_path: Path) -> None:
    for _ in range(2):
        with Supervisor(settings_without_engines(tmp_path), [child("worker", SLEEPS)], console=quiet()) as stack:
            assert stack._parts[0].running


def test_taken_ports_are_all_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as one, socket.socket() as two:
        for taken in (one, two):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
        kafka_port, gateway_port = one.getsockname()[1], two.getsockname()[1]
        settings = Settings(data_dir=tmp_path, kafka_port=kafka_port, clickhouse_port=free_ports(1)[0])
        spec = child("gateway", SLEEPS, ports={"METERING_GATEWAY_PORT": gateway_port})

        with pytest.raises(PortTakenError) as caught:
            Supervisor(settings, [spec], console=quiet()).start()

    assert f"127.0.0.1:{kafka_port}, 127.0.0.1:{gateway_port} are taken" in str(caught.value)
    assert "METERING_KAFKA_PORT and METERING_GATEWAY_PORT" in str(caught.value)
    assert not (tmp_path / "kafka").exists()


def test_two_parts_cannot_be_given_one_port(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    settings = Settings(data_dir=tmp_path, kafka_port=port, clickhouse_port=port)

    with pytest.raises(SettingError, match=r"METERING_CLICKHOUSE_PORT.*METERING_KAFKA_PORT"):
        Supervisor(settings, [], console=quiet()).start()


def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    console = quiet()
    with Supervisor(settings_without_engines(tmp_path), [child("worker", SLEEPS)], console=console) as stack:
        first_pid = stack._parts[0].pid
        os.kill(first_pid, signal.SIGKILL)

        def again() -> bool:
            stack._look_after()
            return stack._parts[0].running and stack._parts[0].pid != first_pid

        wait_for(again, "a new worker")

    assert "worker ended with exit code 137" in shown(console)


def test_a_child_that_keeps_dying_ends_the_stack_and_names_its_log(tmp_path: Path) -> None:
    dies = child("gateway", "raise SystemExit('no such catalog')")
    lives = child("worker", SLEEPS)
    console = quiet()
    stack = Supervisor(settings_without_engines(tmp_path), [lives, dies], console=console, quick_deaths_max=2)

    assert stack.run() == 1

    assert "gateway ended with exit code 1" in shown(console)
    assert str(tmp_path / "logs" / "gateway.log") in shown(console)
    assert "no such catalog" in shown(console)
    assert stack._parts == []


def test_what_prepare_raises_reaches_the_caller_with_nothing_left_running(tmp_path: Path) -> None:
    def fails(_: Settings) -> None:
        raise EmbeddedError("a migration failed")

    settings = settings_without_engines(tmp_path)

    with pytest.raises(EmbeddedError, match="a migration failed"):
        Supervisor(settings, [child("worker", SLEEPS)], prepare=fails, console=quiet()).run()

    assert not (tmp_path / "logs" / "worker.log").exists()
    with Supervisor(settings, [], console=quiet()):
        pass


def test_children_read_the_settings_of_the_stack(tmp_path: Path) -> None:
    out = tmp_path / "seen"
    program = f"""
import time
from metering.config import load_settings
settings = load_settings()
open({str(out)!r}, "w").write(f"{{settings.kafka_servers}} {{settings.data_dir}} {{settings.flush_interval_s}}")
time.sleep(600)
"""
    settings = msgspec.structs.replace(settings_without_engines(tmp_path / "d"), flush_interval_s=0.125)
    spec = child("worker", program, ready=lambda: out.exists() and out.read_text() != "")

    with Supervisor(settings, [spec], console=quiet()):
        assert out.read_text() == f"127.0.0.1:1 {tmp_path / 'd'} 0.125"


def test_settings_survive_the_way_through_the_environment() -> None:
    settings = Settings(data_dir=Path("/x y"), kafka_port=1234, grace_s=0, clickhouse_password="p'w")

    assert load_settings(settings_env(settings)) == settings


STACK = """
import sys
from functools import partial
from pathlib import Path
from metering.config import Settings
from metering.embedded.supervisor import ChildSpec, Supervisor
settings = Settings(data_dir=Path(sys.argv[1]), kafka_servers="127.0.0.1:1", clickhouse_url="http://127.0.0.1:2")
program = sys.argv[2]
sys.exit(Supervisor(settings, [ChildSpec(name="worker", argv=(sys.executable, "-c", program), grace_s=20)]).run())
"""


class StackProcess:
    """A stack with one child, in a process of its own; `child_pid` is the child's."""

    def __init__(self, folder: Path, program: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", STACK, str(folder), program], stderr=subprocess.PIPE, text=True, env=python_env()
        )
        self.child_pid = int(re.findall(r"process (\d+)", self.read_until("all ready"))[0])

    def read_until(self, text: str) -> str:
        assert self.process.stderr is not None
        said = ""
        while text not in said:
            line = self.process.stderr.readline()
            assert line, said
            said += line
        return said

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[str], StackProcess]]:
    """Begins a stack around the given child program."""
    begun: list[StackProcess] = []

    def begin(program: str) -> StackProcess:
        begun.append(StackProcess(tmp_path / "data", program))
        return begun[-1]

    yield begin
    for stack in begun:
        stack.close()


IGNORES_SIGTERM = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(600)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_stops_the_stack_with_exit_code_0(
    begin: Callable[[str], StackProcess], number: signal.Signals
) -> None:
    stack = begin(SLEEPS)

    stack.process.send_signal(number)

    assert stack.process.wait(30) == 0
    assert not alive(stack.child_pid)


def test_a_second_signal_kills_a_child_that_does_not_end(begin: Callable[[str], StackProcess], tmp_path: Path) -> None:
    stack = begin(IGNORES_SIGTERM)
    wait_for(partial(says, tmp_path / "data" / "logs" / "worker.log", "deaf"), "the child's handler")

    stack.process.send_signal(signal.SIGINT)
    stack.read_until("stopping")
    assert alive(stack.child_pid)
    stack.process.send_signal(signal.SIGINT)

    assert stack.process.wait(30) == 130
    assert not alive(stack.child_pid)


def test_no_child_outlives_a_killed_stack(begin: Callable[[str], StackProcess]) -> None:
    stack = begin(SLEEPS)

    stack.process.kill()
    stack.process.wait()

    wait_for(lambda: not alive(stack.child_pid), "the child's end")


def test_the_whole_stack_with_real_engines_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    import clickhouse_connect
    from confluent_kafka import Consumer, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic

    kafka_port, clickhouse_port = free_ports(2)
    settings = Settings(data_dir=tmp_path, kafka_port=kafka_port, clickhouse_port=clickhouse_port)

    def prepare(found: Settings) -> None:
        assert found.kafka_bootstrap == f"127.0.0.1:{kafka_port}"
        client = clickhouse_connect.get_client(host="127.0.0.1", port=clickhouse_port)
        client.command("CREATE DATABASE IF NOT EXISTS metering")
        client.command("CREATE TABLE IF NOT EXISTS metering.t (a UInt8) ENGINE = MergeTree ORDER BY a")
        client.close()

    with Supervisor(settings, [child("worker", SLEEPS)], prepare=prepare, console=quiet()) as stack:
        admin = AdminClient({"bootstrap.servers": stack.settings.kafka_bootstrap})
        admin.create_topics([NewTopic("kept", 1)])["kept"].result()
        producer = Producer({"bootstrap.servers": stack.settings.kafka_bootstrap, "acks": "all"})
        producer.produce("kept", b"one")
        assert producer.flush(10) == 0
        client = clickhouse_connect.get_client(host="127.0.0.1", port=clickhouse_port)
        client.insert("metering.t", [[7]], column_names=["a"])
        pids = [part.pid for part in stack._parts]
    assert [pid for pid in pids if alive(pid)] == []

    with Supervisor(settings, [child("worker", SLEEPS)], prepare=prepare, console=quiet()):
        consumer = Consumer({"bootstrap.servers": f"127.0.0.1:{kafka_port}", "group.id": "g"})
        assert consumer.get_watermark_offsets(TopicPartition("kept", 0), timeout=10) == (0, 1)
        consumer.close()
        assert client.query("SELECT a FROM metering.t").result_rows == [(7,)]
        client.close()
