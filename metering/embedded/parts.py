"""The parts of a stack as the supervisor sees them: an engine, or a process of the caller's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from metering.config import Settings, variable_of
from metering.embedded.process import GuardedProcess, python_env


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A process to run beside the engines.

    `ready` says whether it can be used; without it, it is ready as soon as it runs. `ports` maps the variable of a
    setting to the port it will listen on, checked before anything starts. `env` is added to its environment.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = {}
    ready: Callable[[], bool] | None = None
    address: str = ""
    ports: Mapping[str, int] = {}
    grace_s: float = 30.0


class Engine(Protocol):
    """What EmbeddedKafka, MockKafka and EmbeddedClickHouse have in common."""

    @property
    def pid(self) -> int: ...
    @property
    def running(self) -> bool: ...
    @property
    def returncode(self) -> int | None: ...
    @property
    def log_path(self) -> Path: ...
    def start(self) -> None: ...
    def request_stop(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def log_tail(self) -> str: ...


class Part:
    """Something that runs, and what the supervisor remembers about it."""

    def __init__(self, name: str, running: Engine, *, address: str, log_path: Path) -> None:
        self.name = name
        self.address = address
        self.log_path = log_path
        self.restartable = True
        self.started_at_s = 0.0
        self.restart_at_s: float | None = None
        self.quick_deaths = 0
        self.ready_told = False
        self._it = running

    @property
    def running(self) -> bool:
        return self._it.running

    @property
    def pid(self) -> int:
        return self._it.pid

    @property
    def returncode(self) -> int | None:
        return self._it.returncode

    def ready(self) -> bool:
        return True

    def start(self) -> None:
        self._it.start()

    def request_stop(self) -> None:
        self._it.request_stop()

    def stop(self) -> None:
        self._it.stop()

    def kill(self) -> None:
        self._it.kill()

    def log_tail(self) -> str:
        return self._it.log_tail()


class EnginePart(Part):
    """An engine: its `start` returns when it answers. What was in memory only is not started again."""

    def __init__(self, name: str, engine: Engine, *, address: str) -> None:
        super().__init__(name, engine, address=address, log_path=engine.log_path)
        self.restartable = not getattr(engine, "in_memory", False)


class ChildPart(Part):
    """A process of the caller's, told through its environment where everything is."""

    def __init__(self, spec: ChildSpec, settings: Settings, *, log_path: Path) -> None:
        env = python_env({**settings_env(settings), **spec.env})
        process = GuardedProcess(spec.name, spec.argv, log_path=log_path, env=env, grace_s=spec.grace_s)
        super().__init__(spec.name, process, address=spec.address, log_path=log_path)
        self._ready = spec.ready

    def ready(self) -> bool:
        return self._ready is None or self._ready()


def settings_env(settings: Settings) -> dict[str, str]:
    """The variables from which `load_settings` reads the same settings again; defaults are left out."""
    defaults = Settings()
    return {
        variable_of(name): str(value)
        for name in settings.__struct_fields__
        if (value := getattr(settings, name)) != getattr(defaults, name)
    }
