"""The steps of `metering close` and `metering export` at which a process can be made to die or stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

STEPS: Final = (
    "close.claim",
    "close.lines",
    "close.freeze",
    "export.write",
    "export.fsync",
    "export.rename",
    "export.mark",
    "export.note",
)


def inject_billing(around: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> None:
    """Wrap each step by what `around` makes of it."""
    # Only here: a worker that is to die needs none of it, and is started a hundred times.
    from billing_export import close, export, export_file, runs
    from metering.cli import export as command

    runs.claim = around("close.claim", runs.claim)
    runs.freeze = around("close.freeze", runs.freeze)
    # Called for each part of the lines once they were handed to the files, which are still open.
    export.Totals.count = around("export.write", export.Totals.count)  # type: ignore[method-assign]
    export_file._to_disk = around("export.fsync", export_file._to_disk)
    Path.replace = around("export.rename", Path.replace)  # type: ignore[method-assign]
    # Names that these modules have from others.
    for module, step, name in (
        (close, "close.lines", "write_rows"),
        (command, "export.mark", "record_files"),
        (command, "export.note", "_note"),
    ):
        setattr(module, name, around(step, getattr(module, name)))
