"""One guarded program: started in its own session, its output in a log file, ended in order or at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from metering.embedded import guard
from schemas.errors import EmbeddedError

PROJECT_ROOT = Path(__file__).resolve().parents[2]
LOG_TAIL_LINES = 12
LOG_BYTES_MAX = 16 * 1024 * 1024
POLL_S = 0.02


class GuardedProcess:
    """A program that cannot outlive us (see `guard`); what it prints is appended to `log_path`."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        grace_s: float = 20.0,
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log_path = log_path
        self.grace_s = grace_s
        self.pid = 0
        self._env = dict(os.environ if env is None else env)
        self._cwd = cwd
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program. Raises EmbeddedError when it cannot be started at all."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_BYTES_MAX:
            self.log_path.replace(self.log_path.with_name(self.log_path.name + ".1"))
        with self.log_path.open("ab") as log:
            # A session of its own keeps the terminal's Ctrl-C away from it: the parts are to stop in order.
            self._guard = subprocess.Popen(
                [sys.executable, "-S", "-E", guard.__file__, str(self.grace_s), "--", *self.argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        first_line = self._guard.stdout.readline() if self._guard.stdout else b""
        if not first_line.strip().isdigit():
            code = self._guard.wait()
            self._release()
            raise EmbeddedError(
                f"cannot start {self.argv[0]} (exit code {code})", where=self.name, fix=f"See {self.log_path}"
            )
        self.pid = int(first_line)

    @property
    def running(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    @property
    def returncode(self) -> int | None:
        """How it ended; None while it runs or before it was started. 128 + n when signal n ended it."""
        return None if self._guard is None else self._guard.poll()

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `ready` says so. Raises EmbeddedError with the end of its log when the program ends or is late."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.running:
                raise EmbeddedError(
                    f"ended with exit code {self.returncode} before it was ready{self.log_tail()}",
                    where=self.name,
                    fix=f"The whole log is {self.log_path}",
                )
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"was not ready after {timeout_s:.0f} s{self.log_tail()}",
                    where=self.name,
                    fix=f"The whole log is {self.log_path}",
                )
            time.sleep(POLL_S)

    def log_tail(self) -> str:
        """The last lines of the log, indented, each on a line of its own; empty when there are none."""
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - 8_192))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return "".join(f"\n    {line}" for line in lines[-LOG_TAIL_LINES:])

    def request_stop(self) -> None:
        """Ask the program to end and return at once; `wait` tells when it has."""
        if self._guard is not None and self._guard.poll() is None and self._guard.stdin is not None:
            self._guard.stdin.close()

    def wait(self) -> int | None:
        """Wait until it has ended; at most its grace and a little, after which it is killed."""
        if self._guard is None:
            return None
        try:
            self._guard.wait(self.grace_s + 5.0)
        except subprocess.TimeoutExpired:
            self.kill()
        code = self._guard.wait()
        self._release()
        return code

    def stop(self) -> None:
        """Ask it to end, kill it after its grace. Nothing happens when it is not running."""
        self.request_stop()
        self.wait()

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        if self._guard is None:
            return
        # The guard reaps the program only after us, so the id cannot belong to anybody else while the guard lives.
        if self._guard.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            try:
                self._guard.wait(5.0)
            except subprocess.TimeoutExpired:
                self._guard.kill()
        self._guard.wait()
        self._release()

    def _release(self) -> None:
        if self._guard is not None:
            for pipe in (self._guard.stdin, self._guard.stdout):
                if pipe is not None:
                    pipe.close()


def python_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a Python of ours: this one, able to import these packages, its output unbuffered."""
    env = dict(os.environ)
    others = env.get("PYTHONPATH")
    env["PYTHONPATH"] = f"{PROJECT_ROOT}{os.pathsep}{others}" if others else str(PROJECT_ROOT)
    env["PYTHONUNBUFFERED"] = "1"
    env.update(extra or {})
    return env
