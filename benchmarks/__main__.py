"""`make bench`: measures both sides of each comparison in one run, prints a table and writes build/bench.json."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.status import Status

from benchmarks import measures
from benchmarks.measures import FULL, SHORT, Say, Sizes
from benchmarks.plots import plot
from benchmarks.result import Result, show, write
from benchmarks.worker_stages import stages

MEASURES: Final[dict[str, Callable[[Sizes, Say], list[Result]]]] = {
    "worker": measures.worker,
    "stages": stages,
    "workers": measures.workers,
    "resent": measures.resent,
    "freshness": measures.fresh,
    "gateway": measures.gateway,
    "memory": measures.memory,
    "query": measures.query,
    "billing": measures.billing,
    "rebuild": measures.rebuild,
}


def main() -> None:
    """Run all benchmarks, or some; ends with 1 when totals differ, never because of a time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "measure",
        nargs="*",
        metavar="MEASURE",
        choices=[*MEASURES, []],
        help=f"some of {', '.join(MEASURES)}; else all",
    )
    parser.add_argument("--short", action="store_true", help="smaller sizes than those that the goals are for")
    parser.add_argument("--rounds", type=int, help="times each side runs, alternating (5, or 3 with --short)")
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench.json"), help="where the result goes (%(default)s)"
    )
    options = parser.parse_args()
    sizes = SHORT if options.short else FULL
    if options.rounds:
        sizes = msgspec.structs.replace(sizes, rounds=options.rounds)
    results: list[Result] = []
    with Console(stderr=True).status("starting") as status:
        for name in options.measure or MEASURES:
            results += MEASURES[name](sizes, partial(_say, status, name))
            write(results, options.out)
    plots = plot(results, options.out.parent)
    show(results)
    for file in plots:
        print(file)


def _say(status: Status, name: str, text: str) -> None:
    status.update(f"{name}: {text}")


if __name__ == "__main__":
    main()
