"""The table of speeds in the README, from what was measured.

python -m benchmarks.speed build/bench.json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.result import Result
from benchmarks.scaling import MEASURED, read
from metering.docs.markdown import table

HEADER: Final = ("what", "measured", "beside", "how")
SHOWN: Final = {
    "worker": "{ratio:g} times a plain Faust agent",
    "worker beside a raw table with a view": "the worker takes {ratio:g} of it",
    "rebuild": "{ratio:g} times a rebuild that folds all in Python",
    "gateway": "",
    "gateway p99": "",
    "storage of an event": "{ratio:g} times smaller than its JSON",
    "storage of a rollup row": "",
}
"""The rows of the table, in order, and what stands beside each."""


def speed_markdown(results: Sequence[Result]) -> str:
    """The table. Raises LookupError when a row is missing."""
    by_name = {one.name: one for one in results}
    if missing := [name for name in SHOWN if name not in by_name]:
        raise LookupError(f"not measured: {', '.join(missing)}")
    return table(HEADER, [_row(by_name[name], beside) for name, beside in SHOWN.items()])


def _row(one: Result, beside: str) -> tuple[str, ...]:
    value = f"{one.value:,.0f}" if one.value >= 1000 else f"{one.value:g}"
    return (one.name, f"{value} {one.unit}", beside.format(ratio=one.ratio), one.conditions)


def main() -> None:
    """Print the table for a bench.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=MEASURED, help="what `make bench` wrote (%(default)s)")
    print(speed_markdown(read(parser.parse_args().file)))


if __name__ == "__main__":
    main()
