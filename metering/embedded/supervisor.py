"""Runs the whole stack on one machine: engines first, then what the caller prepares, then the caller's processes.

Whatever dies is started again with growing pauses; what keeps dying ends the stack with the log's name on the screen.
Everything stops in the reverse order of its start.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

import msgspec
from rich.console import Console
from rich.markup import escape

from metering.clock import Clock, SystemClock
from metering.config import Settings, variable_of
from metering.embedded.clickhouse import EmbeddedClickHouse
from metering.embedded.folder import FolderLock
from metering.embedded.kafka import EmbeddedKafka
from metering.embedded.kafka_mock import WARNING, MockKafka
from metering.embedded.parts import ChildPart, ChildSpec, EnginePart, Part, settings_env
from metering.embedded.ports import require_free
from schemas.errors import EmbeddedError, JarsUnavailableError, SettingError

LOCK_NAME = "up.lock"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_S = 0.05
QUICK_DEATH_S = 10.0
QUICK_DEATHS_MAX = 5
BACKOFF_S = 0.5
BACKOFF_S_MAX = 10.0
READY_TIMEOUT_S = 90.0


class _StopRequested(BaseException):
    """A signal asked for the end. No Exception, so that nobody's handler of errors swallows it."""


class Supervisor:
    """The stack of one data folder.

    `prepare` is called once the engines answer and before the first child starts: migrations and topics. It is given
    the settings with the engines' real addresses. Children get the same settings through their environment.
    """

    def __init__(
        self,
        settings: Settings,
        children: Sequence[ChildSpec],
        *,
        prepare: Callable[[Settings], None] | None = None,
        console: Console | None = None,
        clock: Clock | None = None,
        quick_deaths_max: int = QUICK_DEATHS_MAX,
    ) -> None:
        self.settings = settings
        self._specs = list(children)
        self._prepare = prepare
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._clock = clock or SystemClock()
        self._quick_deaths_max = quick_deaths_max
        self._folder = settings.data_dir.absolute()
        self._lock = FolderLock(self._folder, name=LOCK_NAME, holder="a stack")
        self._parts: list[Part] = []

    def run(self) -> int:
        """Start, watch until SIGINT, SIGTERM or a failure, stop. Gives the exit code: 0 when it was asked to stop.

        Raises AlreadyRunningError, PortTakenError, SettingError and EmbeddedError from the start, with nothing left
        running. A second signal while stopping kills what is left. Call it in the main thread.
        """
        with _signals_raise():
            try:
                return self._run()
            except _StopRequested:
                for number in STOP_SIGNALS:
                    signal.signal(number, signal.SIG_IGN)
                self._say("killing")
                self.kill()
                return 130

    def _run(self) -> int:
        try:
            self._start()
            while True:
                self._look_after()
                time.sleep(POLL_S)
        except _StopRequested:
            self._say("stopping; once more to kill")
            return 0
        except _GaveUpError as gave_up:
            self._say(f"[bold red]{escape(str(gave_up))}[/]")
            return 1
        finally:
            self.stop()

    def start(self) -> None:
        """Start everything and return once all of it is ready. Raises what `run` raises, and stops what was started."""
        try:
            self._start()
        except _GaveUpError as gave_up:
            self.stop()
            raise EmbeddedError(str(gave_up)) from gave_up
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self._lock.acquire()
        self._check_ports()
        self._start_engines()
        if self._prepare is not None:
            self._prepare(self.settings)
        logs = self._folder / "logs"
        children = [ChildPart(spec, self.settings, log_path=logs / f"{spec.name}.log") for spec in self._specs]
        for child in children:
            self._parts.append(child)
            self._begin(child)
        while not all(part.ready_told for part in self._parts):
            self._look_after()
            time.sleep(POLL_S)
        self._say(f"all ready; data in {escape(str(self._folder))}, Ctrl-C stops everything")

    def stop(self) -> None:
        """Stop all of it: the children at once, then the engines they use. Each may end what it is doing."""
        for kind in (ChildPart, EnginePart):
            parts = [part for part in reversed(self._parts) if isinstance(part, kind)]
            ran = [part for part in parts if part.running]
            for part in ran:
                part.request_stop()
            for part in parts:
                part.stop()
                if part in ran:
                    self._say(f"{escape(part.name)} stopped")
                self._parts.remove(part)
        self._lock.release()

    def kill(self) -> None:
        """End all of it at once."""
        while self._parts:
            self._parts.pop().kill()
        self._lock.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _check_ports(self) -> None:
        ports: list[tuple[str, int]] = []
        if not self.settings.kafka_servers:
            ports.append((variable_of("kafka_port"), self.settings.kafka_port))
        if not self.settings.clickhouse_url:
            ports.append((variable_of("clickhouse_port"), self.settings.clickhouse_port))
        ports += [item for spec in self._specs for item in spec.ports.items()]
        by_port: dict[int, str] = {}
        for variable, port in ports:
            if port in by_port:
                raise SettingError(f"names port {port}, and so does {by_port[port]}", where=variable, fix="Change one")
            by_port[port] = variable
        require_free(dict(ports))

    def _start_engines(self) -> None:
        if not self.settings.kafka_servers:
            kafka = self._start_kafka()
            self.settings = msgspec.structs.replace(self.settings, kafka_servers=kafka.bootstrap)
        if not self.settings.clickhouse_url:
            clickhouse = EmbeddedClickHouse(
                self._folder / "clickhouse",
                port=self.settings.clickhouse_port,
                log_path=self._folder / "logs" / "clickhouse.log",
            )
            self._start_engine(EnginePart("clickhouse", clickhouse, address=f"http://127.0.0.1:{clickhouse.port}"))
            self.settings = msgspec.structs.replace(self.settings, clickhouse_url=clickhouse.url)

    def _start_kafka(self) -> EmbeddedKafka | MockKafka:
        folder, log_path = self._folder / "kafka", self._folder / "logs" / "kafka.log"
        kafka = EmbeddedKafka(folder, port=self.settings.kafka_port, log_path=log_path)
        try:
            self._start_engine(EnginePart("kafka", kafka, address=f"127.0.0.1:{self.settings.kafka_port}"))
        except JarsUnavailableError as error:
            if kafka.has_log:
                # Going on with an empty log beside tables that were filled from the real one helps nobody.
                raise
            self._say(f"[bold yellow]WARNING {escape(WARNING)}[/] ({escape(str(error))})")
            mock = MockKafka(folder, log_path=log_path)
            self._start_engine(EnginePart("kafka", mock, address="in memory"))
            return mock
        return kafka

    def _start_engine(self, part: EnginePart) -> None:
        self._parts.append(part)
        try:
            self._begin(part)
        except BaseException:
            self._parts.remove(part)
            raise
        self._tell_ready(part)

    def _begin(self, part: Part) -> None:
        self._say(f"{escape(part.name)} starting")
        part.started_at_s = self._clock.monotonic_s()
        part.start()

    def _begin_again(self, part: Part) -> None:
        try:
            self._begin(part)
        except EmbeddedError as error:
            # Whatever kept it from starting counts as one more death, found at the next look.
            self._say(f"[red]{escape(str(error))}[/]")

    def _look_after(self) -> None:
        for part in list(self._parts):
            if part.running:
                self._look_after_running(part)
            elif part.restart_at_s is None:
                self._died(part)
            elif self._clock.monotonic_s() >= part.restart_at_s:
                part.restart_at_s = None
                self._begin_again(part)

    def _look_after_running(self, part: Part) -> None:
        if part.ready_told:
            return
        if part.ready():
            self._tell_ready(part)
        elif self._clock.monotonic_s() - part.started_at_s > READY_TIMEOUT_S:
            self._say(f"[red]{escape(part.name)} is not ready after {READY_TIMEOUT_S:.0f} s[/]")
            part.kill()

    def _died(self, part: Part) -> None:
        part.stop()
        part.ready_told = False
        now_s = self._clock.monotonic_s()
        lived_s = now_s - part.started_at_s
        part.quick_deaths = part.quick_deaths + 1 if lived_s < QUICK_DEATH_S or not part.restartable else 1
        ended = f"{part.name} ended with exit code {part.returncode} after {lived_s:.0f} s"
        if not part.restartable or part.quick_deaths >= self._quick_deaths_max:
            again = f" for the {part.quick_deaths}. time in a row" if part.quick_deaths > 1 else ""
            raise _GaveUpError(f"{ended}{again}; everything stops. Its log: {part.log_path}{part.log_tail()}")
        pause_s = min(BACKOFF_S * 2 ** (part.quick_deaths - 1), BACKOFF_S_MAX)
        self._say(f"[red]{escape(ended)}[/], starting again in {pause_s:g} s; log: {escape(str(part.log_path))}")
        part.restart_at_s = now_s + pause_s

    def _tell_ready(self, part: Part) -> None:
        part.ready_told = True
        took_s = self._clock.monotonic_s() - part.started_at_s
        where = f" on {part.address}" if part.address else ""
        self._say(f"[green]{escape(part.name)} ready[/]{escape(where)} (process {part.pid}, {took_s:.1f} s)")

    def _say(self, line: str) -> None:
        self._console.print(line)


class _GaveUpError(Exception):
    """A part keeps dying."""


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGINT and SIGTERM raise _StopRequested wherever the main thread is."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("signals reach the main thread only")

    def request(_number: int, _frame: FrameType | None) -> None:
        raise _StopRequested

    before = {number: signal.signal(number, request) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


__all__ = ["ChildSpec", "Supervisor", "settings_env"]
