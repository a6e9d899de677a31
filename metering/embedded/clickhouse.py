"""The embedded ClickHouse as one starts and stops it: a process of ours that serves a folder of tables over HTTP."""

from __future__ import annotations

import http.client
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from metering.config import variable_of
from metering.embedded.folder import FolderLock
from metering.embedded.ports import HOST, free_ports, require_free
from metering.embedded.process import GuardedProcess, python_env

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


class EmbeddedClickHouse:
    """A ClickHouse on 127.0.0.1 over a folder of its own; tables are there again after a restart or a kill.

    `port` 0 chooses a free one at the first start and keeps it while the object lives.
    """

    def __init__(self, data_dir: Path, *, port: int = 0, log_path: Path | None = None) -> None:
        self._folder = data_dir.resolve()
        self._port = port
        self._log_path = log_path or self._folder / "clickhouse.log"
        self._process: GuardedProcess | None = None

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; 0 before the first start when it was left to us."""
        return self._port

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    @property
    def pid(self) -> int:
        """Process id of the server; 0 before the first start."""
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
        """Start the server and wait until it answers.

        Raises PortTakenError, AlreadyRunningError, or EmbeddedError with the end of its log.
        """
        # Asked here as well as in the server: the caller is to get the error itself, not a log to read.
        lock = FolderLock(self._folder, name="clickhouse.lock", holder="a ClickHouse engine")
        lock.acquire()
        lock.release()
        if self._port:
            require_free({variable_of("clickhouse_port"): self._port})
        else:
            (self._port,) = free_ports(1)
        module = "metering.embedded.clickhouse_server"
        self._process = GuardedProcess(
            "clickhouse",
            [sys.executable, "-m", module, "--data", str(self._folder), "--port", str(self._port)],
            log_path=self._log_path,
            env=python_env(),
            grace_s=STOP_TIMEOUT_S,
        )
        try:
            self._process.start()
            self._process.wait_until(self._ready, START_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Let running requests end, then stop; kill the process when that takes too long."""
        if self._process:
            self._process.stop()

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        if self._process:
            self._process.kill()

    def request_stop(self) -> None:
        """Ask the server to stop and return at once; `stop` then waits for it."""
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
        return server_answers(self._port)


def server_answers(port: int, host: str = HOST) -> bool:
    """Whether a ClickHouse HTTP interface answers its ping there."""
    connection = http.client.HTTPConnection(host, port, timeout=2.0)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().read() == b"Ok.\n"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
