"""What a measurement says: a row of build/bench.json and of the table."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A row of bench.json. `value` is the median of the rounds, `spread` its least and greatest.

    `ratio` is how many times the other side of a comparison; `met` is None where nothing was set as a goal.
    """

    name: str
    value: float
    unit: str
    spread: tuple[float, float]
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None
    conditions: str


def result(
    name: str,
    values: Sequence[float],
    unit: str,
    conditions: str,
    *,
    ratio: float | None = None,
    goal: str = "",
    met: bool | None = None,
) -> Result:
    """The row of a measure that was taken `len(values)` times."""
    return Result(
        name=name,
        value=rounded(statistics.median(values)),
        unit=unit,
        spread=(rounded(min(values)), rounded(max(values))),
        ratio=None if ratio is None else rounded(ratio),
        goal=goal,
        met=met,
        conditions=f"{conditions}; {'once' if len(values) == 1 else f'{len(values)} times'}",
    )


def rounded(value: float) -> float:
    """No more digits than a measurement has: three, or all those before the point."""
    return float(f"{value:.3g}") if abs(value) < 1000 else round(value)


def machine() -> str:
    """What everything was measured on."""
    return f"{os.cpu_count()} cores shared with Kafka and ClickHouse, Python {platform.python_version()}"


def write(results: Sequence[Result], file: Path) -> None:
    """Write the rows as one JSON document."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))


def show(results: Sequence[Result]) -> None:
    """Print the rows as a table, then what each was measured under."""
    table = Table("measure", "value", "unit", "from", "to", "ratio", "goal", "met", box=None)
    for one in results:
        table.add_row(
            one.name,
            f"{one.value:,.10g}",
            one.unit,
            *(f"{value:,.10g}" for value in one.spread),
            "" if one.ratio is None else f"{one.ratio:g}",
            one.goal,
            {None: "", True: "yes", False: "no"}[one.met],
        )
    console = Console(soft_wrap=True)
    console.print("Whatever was compared came to the same totals, and they are right.\n")
    console.print(table)
    console.print(f"\nOn {machine()}.\n")
    for one in results:
        console.print(f"{one.name}: {one.conditions}")
