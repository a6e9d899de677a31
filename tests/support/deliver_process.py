"""A process that delivers a run and may kill itself at a step: `python -m tests.support.deliver_process ARGUMENTS`.

The arguments are one JSON document: settings, run, kind of target, and at which occurrence of which step to die.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from billing_export import runs
from billing_export.deliver import Delivered, deliver
from billing_export.delivery_claims import this_process
from billing_export.delivery_targets import TargetOptions, open_target
from billing_export.export_lines import Documents
from metering.clickhouse import connect
from metering.clock import SystemClock
from metering.config import Settings

ROOT = Path(__file__).parents[2]


class Arguments(msgspec.Struct, frozen=True, kw_only=True):
    settings: dict[str, Any]
    run: str
    kind: str
    options: dict[str, Any] = {}
    group_max: int = 0
    die_at: str = ""
    die_after: int = 1


def run_process(settings: Settings, run: str, kind: str, **arguments: Any) -> subprocess.CompletedProcess[str]:
    """Deliver in a process of its own, and wait for its end."""
    given = {name: value for name, value in msgspec.structs.asdict(settings).items() if name != "data_dir"}
    document = Arguments(settings=given, run=run, kind=kind, **arguments)
    return subprocess.run(
        [sys.executable, "-m", "tests.support.deliver_process", msgspec.json.encode(document).decode()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if path)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def work(arguments: Arguments) -> Delivered:
    settings = Settings(**arguments.settings)
    client = connect(settings)
    run = runs.by_id(client, arguments.run)
    target = open_target(arguments.kind, run, settings, TargetOptions(**arguments.options), clock=SystemClock())
    if arguments.group_max:
        setattr(target, "group_max", arguments.group_max)  # noqa: B010 - it is a constant of the class
    left = arguments.die_after

    def on_step(step: str) -> None:
        nonlocal left
        if step == arguments.die_at:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    return deliver(
        client,
        run,
        Documents(client, run).items(),
        target,
        clock=SystemClock(),
        exporter=this_process("test"),
        lease_s=60.0,
        on_step=on_step,
    )


if __name__ == "__main__":
    print(msgspec.json.encode(work(msgspec.json.decode(sys.argv[1], type=Arguments))).decode())  # noqa: T201
