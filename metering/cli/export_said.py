"""What `metering export` prints: what was written and delivered, or what would be."""

from __future__ import annotations

from typing import Any

import msgspec
import typer

from billing_export.deliver import Delivered
from billing_export.manifest import ExportFolder
from metering.cli.billing_tables import console


def say_done(folders: list[ExportFolder], deliveries: list[Delivered], *, json: bool) -> None:
    """Print each file, and of each delivery what was accepted and what failed with which answer."""
    if json:
        said = [{"path": str(folder.path), "manifest": folder.manifest} for folder in folders]
        complete = [{**msgspec.structs.asdict(one), "complete": one.is_complete} for one in deliveries]
        typer.echo(msgspec.json.encode({"folders": said, "deliveries": complete}))
        return
    screen = console()
    for folder in folders:
        for file in folder.manifest.files:
            screen.print(
                f"{folder.path / file.name}: {folder.manifest.lines_count} lines of run {folder.manifest.run}",
                markup=False,
            )
    for one in deliveries:
        screen.print(f"Run {one.run} to {one.target}: {_sentence(one)}", markup=False)
        for failure in one.failures:
            screen.print(f"  {failure.customer} {failure.key}: {failure.status}: {failure.answer}", markup=False)


def _sentence(done: Delivered) -> str:
    parts = [f"{done.accepted} accepted"]
    if done.accepted_before:
        parts.append(f"{done.accepted_before} had been before")
    if done.failed:
        parts.append(f"{done.failed} failed")
    if done.failed_before:
        parts.append(f"{done.failed_before} failed before (--retry-failed sends them again)")
    if done.lines_left_out:
        parts.append(f"{done.lines_left_out} lines are nothing for it")
    return ", ".join(parts) + "."


def say_preview(found: list[dict[str, Any]], *, json: bool) -> None:
    """Print what would go, and what would fail."""
    if json:
        typer.echo(msgspec.json.encode({"would_export": found}))
        return
    screen = console()
    for one in found:
        count, what = (one["deliveries_count"], "deliveries") if "first" in one else (one["lines_count"], "rows")
        screen.print(
            f"Run {one['run']} to {one['to']}: {count} {what} of {one['lines_count']} lines would go.", markup=False
        )
        for document in one.get("first", ()):
            screen.print(f"  {msgspec.json.encode(document).decode()}", markup=False)
        for refusal in one.get("refused", ()):
            screen.print(f"  would fail: {refusal['key']}: {refusal['reason']}", markup=False)
    screen.print("Nothing was sent.")
