"""`make bench`: measures both sides in one run, prints a table and writes build/bench.json."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.billing_rate import GOAL_S, SIZES, Measured, measure
from benchmarks.gateway_rate import gateway_rate
from benchmarks.stack import engines, fill_log
from benchmarks.worker_rate import plain_rate, worker_rate

WORKER_EVENTS = 200_000
PLAIN_EVENTS = 20_000
GATEWAY_EVENTS = 100_000
ROUNDS = 3
RATIO_GOAL = 10.0
GATEWAY_GOAL = 20_000.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A row of bench.json. `value` is the median of the rounds, `spread` its least and greatest."""

    name: str
    value: float
    unit: str
    spread: tuple[float, float]
    ratio: float | None
    goal: str
    met: bool
    conditions: str


def main() -> None:
    """Run all benchmarks; ends with 1 when totals differ, never because of a time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="times each side runs, alternating (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("build/bench.json"), help="where the result goes (%(default)s)"
    )
    options = parser.parse_args()
    console = Console(stderr=True)
    worker: list[float] = []
    plain: list[float] = []
    gateway: list[float] = []
    with engines() as settings, console.status("filling the log") as status:
        fill_log(settings, WORKER_EVENTS)
        for number in range(options.rounds):
            status.update(f"round {number + 1}: worker")
            worker.append(worker_rate(settings, f"worker_{number}", WORKER_EVENTS))
            status.update(f"round {number + 1}: plain Faust agent")
            plain.append(plain_rate(settings, f"plain_{number}", PLAIN_EVENTS))
    with engines() as settings, console.status("gateway"):
        gateway = [gateway_rate(settings, f"gateway_{number}", GATEWAY_EVENTS) for number in range(options.rounds)]
    with console.status("billing"):
        billing = [measure(customers) for customers in SIZES]
    results = [*_results(worker, plain, gateway), *_billing_results(billing)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
    _show(results)


def _results(worker: list[float], plain: list[float], gateway: list[float]) -> list[Result]:
    machine = f"{os.cpu_count()} cores shared with Kafka and ClickHouse, Python {platform.python_version()}"
    faust = f"faust-streaming {version('faust-streaming')}"
    ratio = round(statistics.median(worker) / statistics.median(plain), 1)
    return [
        Result(
            name="worker",
            value=round(statistics.median(worker)),
            unit="events/s",
            spread=_spread(worker),
            ratio=ratio,
            goal=f"{RATIO_GOAL:.0f} x the plain agent",
            met=ratio >= RATIO_GOAL,
            conditions=f"{machine}; one process, dedupe on, exact decimals, 169-byte events",
        ),
        Result(
            name="plain Faust agent",
            value=round(statistics.median(plain)),
            unit="events/s",
            spread=_spread(plain),
            ratio=None,
            goal="",
            met=True,
            conditions=f"{machine}; {faust}, stream.take and one insert a batch",
        ),
        Result(
            name="gateway",
            value=round(statistics.median(gateway)),
            unit="events/s",
            spread=_spread(gateway),
            ratio=None,
            goal=f"{GATEWAY_GOAL:,.0f} events/s",
            met=statistics.median(gateway) >= GATEWAY_GOAL,
            conditions=f"{machine}; one process, batches of 500, 4 connections, acks=all",
        ),
    ]


def _billing_results(billing: list[Measured]) -> list[Result]:
    """How long closing and exporting takes, for growing numbers of customers; the goal is for the largest."""
    largest = billing[-1].customers
    return [
        Result(
            name=f"close {one.customers:,}",
            value=round(one.total_s, 1),
            unit="s",
            spread=(round(one.total_s, 1), round(one.total_s, 1)),
            ratio=None,
            goal=f"{GOAL_S:.0f} s" if one.customers == largest else "",
            met=one.customers != largest or one.total_s <= GOAL_S,
            conditions=f"{one.lines:,} lines: closed in {one.close_s} s, exported as CSV in {one.export_s} s; "
            f"{one.memory_mib} MiB, ClickHouse {one.clickhouse_mib} MiB",
        )
        for one in billing
    ]


def _spread(rates: list[float]) -> tuple[float, float]:
    return round(min(rates)), round(max(rates))


def _show(results: list[Result]) -> None:
    table = Table("measure", "value", "unit", "from", "to", "ratio", "goal", "met", box=None)
    for one in results:
        table.add_row(
            one.name,
            f"{one.value:,.10g}",
            one.unit,
            f"{one.spread[0]:,.10g}",
            f"{one.spread[1]:,.10g}",
            "" if one.ratio is None else f"{one.ratio}",
            one.goal,
            ("yes" if one.met else "no") if one.goal else "",
        )
    console = Console(soft_wrap=True)
    console.print("The totals of both sides are right.\n")
    console.print(table)
    console.print()
    for one in results:
        console.print(f"{one.name}: {one.conditions}")


if __name__ == "__main__":
    main()
