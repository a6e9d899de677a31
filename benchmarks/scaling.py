"""How many gateways, partitions, workers and shards, and how much disk: computed from what was measured.

    python -m benchmarks.scaling build/bench.json

A computation, not a measurement: it takes for granted that machines add up, which holds as long as Kafka spreads
subjects evenly over partitions and ClickHouse over shards.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.result import Result
from metering.config import Settings
from metering.docs.markdown import table

MEASURED: Final = Path(__file__).parent / "measured.json"
RATES: Final = (10_000, 100_000, 1_000_000)
LOAD_MAX: Final = 0.5
"""How much of what was measured a process is given, so that it can catch up after a standstill and take a peak."""
PARTITIONS_A_WORKER: Final = 4
"""So that workers can be added, and that partitions spread evenly when one is gone."""
KAFKA_DAYS: Final = Settings().kafka_retention_days
KAFKA_COPIES: Final = 3
CLICKHOUSE_COPIES: Final = 2
HEADER: Final = (
    "events/s",
    "gateways",
    "partitions",
    "workers",
    "ClickHouse shards",
    f"Kafka disk, {KAFKA_DAYS} days, {KAFKA_COPIES} copies",
    f"events on disk a month, {CLICKHOUSE_COPIES} copies",
)
_MONTH_S: Final = 30 * 86_400
_UNITS: Final = ("B", "KB", "MB", "GB", "TB", "PB")


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What one process or shard was measured to take, in events a second, and what an event takes, in bytes."""

    gateway_rate: float
    worker_rate: float
    shard_rate: float
    event_bytes: float
    json_bytes: float


_ROWS: Final = {
    "gateway_rate": "gateway",
    "worker_rate": "worker",
    "shard_rate": "worker beside a raw table with a view",
    "event_bytes": "storage of an event",
    "json_bytes": "size of an event as JSON",
}


def costs(results: Sequence[Result]) -> Costs:
    """The costs among the rows of a bench.json. Raises LookupError when a row is missing."""
    values = {one.name: one.value for one in results}
    if missing := sorted(set(_ROWS.values()) - values.keys()):
        raise LookupError(f"not measured: {', '.join(missing)}")
    return Costs(**{field: values[row] for field, row in _ROWS.items()})


def scaling_markdown(one: Costs) -> str:
    """The table of docs/scaling.md."""
    return table(HEADER, [_row(one, rate) for rate in RATES])


def _row(one: Costs, rate: int) -> tuple[str, ...]:
    workers = ceil(rate / (LOAD_MAX * one.worker_rate))
    return (
        f"{rate:,}",
        str(ceil(rate / (LOAD_MAX * one.gateway_rate))),
        str(PARTITIONS_A_WORKER * workers),
        str(workers),
        str(ceil(rate / (LOAD_MAX * one.shard_rate))),
        size_text(rate * 86_400 * KAFKA_DAYS * KAFKA_COPIES * one.json_bytes),
        size_text(rate * _MONTH_S * CLICKHOUSE_COPIES * one.event_bytes),
    )


def size_text(size_bytes: float) -> str:
    """A size with two digits and its unit, such as 1.4 TB."""
    unit = 0
    while size_bytes >= 1000 and unit < len(_UNITS) - 1:
        size_bytes /= 1000
        unit += 1
    return f"{float(f'{size_bytes:.2g}'):g} {_UNITS[unit]}"


def read(file: Path) -> list[Result]:
    """The rows of a bench.json."""
    return msgspec.json.decode(file.read_bytes(), type=list[Result])


def main() -> None:
    """Print the table for a bench.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=MEASURED, help="what `make bench` wrote (%(default)s)")
    print(scaling_markdown(costs(read(parser.parse_args().file))))


if __name__ == "__main__":
    main()
