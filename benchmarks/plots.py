"""Draws what was measured: how far ahead of the alternatives, and how cost grows with work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from benchmarks.result import Result

mpl.use("agg")

import matplotlib.pyplot as plt

_RATES: Final = ("worker", "worker beside a raw table with a view", "plain Faust agent")
_LABELS: Final = ("this worker", "ClickHouse raw table\nwith a view", "plain Faust agent")
_COLOURS: Final = ("#2563eb", "#94a3b8", "#cbd5e1")


def plot(results: Sequence[Result], folder: Path) -> list[Path]:
    """Write a PNG for each group of rows that is there; returns the files."""
    by_name = {one.name: one for one in results}
    drawn: list[Path] = []
    if all(name in by_name for name in _RATES):
        drawn.append(_bars(folder / "worker.png", [by_name[name] for name in _RATES]))
    queries = [one for one in results if re.fullmatch(r"usage among [\d,]+ events", one.name)]
    if len(queries) > 1:
        times = [(_number(one.name), one.value, one.value * (one.ratio or 1)) for one in queries]
        drawn.append(
            _lines(
                folder / "query.png",
                "One customer's month",
                ("events in the table", "ms"),
                [
                    ("from rollups", [(count, ours) for count, ours, _ in times]),
                    ("JSON_VALUE over every event", [(count, theirs) for count, _, theirs in times]),
                ],
            )
        )
    closes = [one for one in results if re.fullmatch(r"close and export [\d,]+ customers", one.name)]
    if len(closes) > 1:
        points = [(_number(one.name), one.value) for one in closes]
        title = "Close and export, five charges each"
        drawn.append(_lines(folder / "billing.png", title, ("customers", "s"), [("seconds", points)]))
    return drawn


def _bars(file: Path, rows: Sequence[Result]) -> Path:
    figure, axes = plt.subplots(figsize=(7, 2.6))
    bars = axes.barh(_LABELS, [one.value for one in rows], color=_COLOURS)
    axes.bar_label(bars, labels=[f"{one.value:,.0f}" for one in rows], padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max(one.value for one in rows))
    axes.set_title(
        "Events a second, Kafka to rollups (the raw table has no Kafka and no dedupe)", loc="left", fontsize=10
    )
    return _save(figure, axes, file)


def _lines(
    file: Path, title: str, labels: tuple[str, str], series: Sequence[tuple[str, Sequence[tuple[float, float]]]]
) -> Path:
    figure, axes = plt.subplots(figsize=(7, 3.4))
    for (name, points), colour in zip(series, _COLOURS, strict=False):
        axes.plot(*zip(*points, strict=True), marker="o", label=name, color=colour)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.legend(frameon=False)
    axes.set_title(title, loc="left", fontsize=10)
    return _save(figure, axes, file)


def _save(figure: Any, axes: Any, file: Path) -> Path:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=144)
    plt.close(figure)
    return file


def _number(name: str) -> int:
    return int("".join(filter(str.isdigit, name)))
