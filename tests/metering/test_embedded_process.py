"""A guarded program: ends with us, says why it could not start, keeps its log small."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from metering.embedded import process as process_module
from metering.embedded.process import GuardedProcess
from schemas.errors import EmbeddedError

SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"


def program(text: str, log_path: Path, grace_s: float = 20.0) -> GuardedProcess:
    return GuardedProcess("it", [sys.executable, "-c", text], log_path=log_path, grace_s=grace_s)


def wait_for(fact: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30.0
    while not fact():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_what_a_program_prints_is_in_its_log(tmp_path: Path) -> None:
    running = program(SLEEPS, tmp_path / "it.log")
    running.start()
    running.wait_until(lambda: "up" in (tmp_path / "it.log").read_text(), 30)

    running.stop()

    assert running.returncode == 128 + signal.SIGTERM
    assert gone(running.pid)


def test_a_program_that_ends_early_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    running = program("print('line before the end'); raise SystemExit(7)", tmp_path / "it.log")
    running.start()

    with pytest.raises(EmbeddedError, match=r"it: ended with exit code 7 before it was ready\n    line before the end"):
        running.wait_until(lambda: False, 30)
    running.stop()


def test_a_program_that_does_not_exist_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="cannot start /no/such/program"):
        GuardedProcess("it", ["/no/such/program"], log_path=tmp_path / "it.log").start()


def test_a_program_deaf_to_requests_is_killed_after_its_grace(tmp_path: Path) -> None:
    running = program(DEAF, tmp_path / "it.log", grace_s=0.2)
    running.start()
    running.wait_until(lambda: "up" in (tmp_path / "it.log").read_text(), 30)

    running.stop()

    assert running.returncode == 128 + signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent death signal exists on Linux only")
def test_a_program_does_not_outlive_its_guard(tmp_path: Path) -> None:
    running = program(DEAF, tmp_path / "it.log")
    running.start()
    assert running._guard is not None

    os.kill(running._guard.pid, signal.SIGKILL)

    wait_for(lambda: gone(running.pid), "the program's end")
    running.stop()


def test_ctrl_c_in_the_terminal_does_not_reach_the_program(tmp_path: Path) -> None:
    running = program(SLEEPS, tmp_path / "it.log")
    running.start()

    assert os.getpgid(running.pid) != os.getpgid(0)
    running.stop()


def test_a_log_that_grew_too_long_makes_room_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "LOG_BYTES_MAX", 10)
    log_path = tmp_path / "it.log"
    log_path.write_text("a long story of yesterday\n")
    running = program(SLEEPS, log_path)

    running.start()
    running.stop()

    assert (tmp_path / "it.log.1").read_text() == "a long story of yesterday\n"
    assert "yesterday" not in log_path.read_text()
