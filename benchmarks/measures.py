"""What is measured, how much of it, and what was set as the goal: one function a group of rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Final

import msgspec

from benchmarks.billing_rate import GOAL_S, measure
from benchmarks.freshness import freshness
from benchmarks.gateway_rate import gateway_rate, gateway_waits
from benchmarks.rebuild_rate import held_memory, rebuild_rate
from benchmarks.result import Result, result
from benchmarks.rollup_query import asked, ratio
from benchmarks.stack import engines, fill_log
from benchmarks.view_rate import view_rate
from benchmarks.worker_rate import plain_rate, resent_rates, worker_rate

Say = Callable[[str], None]

WORKER_GOAL: Final = 100_000
PLAIN_GOAL: Final = 20.0
VIEW_GOAL: Final = 0.8
WORKERS_GOAL: Final = 1.6
RESENT_GOAL: Final = 0.5
FRESH_RATE: Final = 20_000
FRESH_GOALS_S: Final = (0.5, 1.5)
GATEWAY_GOAL: Final = 40_000
GATEWAY_WAIT_GOAL_MS: Final = 100.0
MEMORY_GOAL_MIB: Final = 600
QUERY_GOAL: Final = 20.0
REBUILD_GOAL: Final = 500_000

_WORKER: Final = "one process, dedupe on, exact decimals, records of one event of about 170 bytes"


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured."""

    rounds: int
    worker_events: int
    plain_events: int
    gateway_events: int
    fresh_s: float
    memory_events: int
    query_events: tuple[int, ...]
    customers: tuple[int, ...]
    rebuild_events: int


SHORT: Final = Sizes(
    rounds=3,
    worker_events=200_000,
    plain_events=20_000,
    gateway_events=100_000,
    fresh_s=10.0,
    memory_events=500_000,
    query_events=(200_000, 1_000_000),
    customers=(2_000, 5_000),
    rebuild_events=200_000,
)
FULL: Final = Sizes(
    rounds=5,
    worker_events=400_000,
    plain_events=20_000,
    gateway_events=200_000,
    fresh_s=60.0,
    memory_events=10_000_000,
    query_events=(1_000_000, 5_000_000, 20_000_000),
    customers=(10_000, 30_000, 100_000),
    rebuild_events=1_000_000,
)


def worker(sizes: Sizes, say: Say) -> list[Result]:
    """One worker beside a plain Faust agent on the same log, and beside ClickHouse's own way."""
    ours: list[float] = []
    plain: list[float] = []
    view: list[float] = []
    with engines() as settings:
        say("filling the log")
        fill_log(settings, sizes.worker_events)
        for number in range(sizes.rounds):
            say(f"round {number + 1} of {sizes.rounds}")
            ours.append(worker_rate(settings, f"worker_{number}", sizes.worker_events))
            plain.append(plain_rate(settings, f"plain_{number}", sizes.plain_events))
            view.append(view_rate(settings, f"view_{number}", sizes.worker_events))
    middle = statistics.median(ours)
    times_plain, times_view = middle / statistics.median(plain), middle / statistics.median(view)
    faust = f"faust-streaming {version('faust-streaming')}, stream.take and one insert a batch; no dedupe, no ledger"
    return [
        result(
            "worker",
            ours,
            "events/s",
            f"{_WORKER}; the ratio is to the plain agent",
            ratio=times_plain,
            goal=f"{WORKER_GOAL:,}; {PLAIN_GOAL:g} x plain",
            met=middle >= WORKER_GOAL and times_plain >= PLAIN_GOAL,
        ),
        result("plain Faust agent", plain, "events/s", faust),
        result(
            "worker beside a raw table with a view",
            view,
            "events/s",
            "ClickHouse's own way: JSON blocks into a raw table with a materialized view, no Kafka, no dedupe; "
            "the ratio is the worker's to it",
            ratio=times_view,
            goal=f"{VIEW_GOAL:g} x",
            met=times_view >= VIEW_GOAL,
        ),
    ]


def workers(sizes: Sizes, say: Say) -> list[Result]:
    """Two workers, each with half of the partitions, beside one."""
    one: list[float] = []
    two: list[float] = []
    count = 2 * sizes.worker_events
    with engines() as settings:
        say("filling the log")
        fill_log(settings, count)
        for number in range(sizes.rounds):
            say(f"round {number + 1} of {sizes.rounds}")
            one.append(worker_rate(settings, f"one_{number}", count))
            two.append(worker_rate(settings, f"two_{number}", count, processes=2))
    gain = statistics.median(two) / statistics.median(one)
    return [
        result(
            "two workers",
            two,
            "events/s",
            "while both were at work, beside one worker on the same log",
            ratio=gain,
            goal=f"{WORKERS_GOAL:g} x one",
            met=gain >= WORKERS_GOAL,
        )
    ]


def resent(sizes: Sizes, say: Say) -> list[Result]:
    """The same events once more: each is known, so each has to be looked up."""
    rates: list[tuple[float, float]] = []
    with engines() as settings:
        say("filling the log twice")
        fill_log(settings, sizes.worker_events)
        fill_log(settings, sizes.worker_events)
        for number in range(sizes.rounds):
            say(f"round {number + 1} of {sizes.rounds}")
            rates.append(resent_rates(settings, f"resent_{number}", sizes.worker_events))
    first, second = (list(column) for column in zip(*rates, strict=True))
    share = statistics.median(second) / statistics.median(first)
    return [
        result(
            "events sent again",
            second,
            "events/s",
            "every event is in already; the ratio is to the first time",
            ratio=share,
            goal=f"{RESENT_GOAL:g} x",
            met=share >= RESENT_GOAL,
        )
    ]


def fresh(sizes: Sizes, say: Say) -> list[Result]:
    """How long an answered event takes to show in usage."""
    say(f"{FRESH_RATE:,} events a second for {sizes.fresh_s:g} s")
    with engines() as settings:
        found = freshness(settings, "fresh", rate=FRESH_RATE, seconds=sizes.fresh_s)
    conditions = f"{found.sent_rate:,.0f} events/s through the gateway, {len(found.waited_s)} events looked for"
    return [
        result(
            f"freshness p{share}",
            [percentile(found.waited_s, share)],
            "s",
            conditions,
            goal=f"{goal_s:g} s",
            met=percentile(found.waited_s, share) <= goal_s,
        )
        for share, goal_s in zip((50, 99), FRESH_GOALS_S, strict=True)
    ]


def gateway(sizes: Sizes, say: Say) -> list[Result]:
    """How many events a gateway takes, and how long it takes for a batch at half of that."""
    with engines() as settings:
        rates: list[float] = []
        for number in range(sizes.rounds):
            say(f"round {number + 1} of {sizes.rounds}")
            rates.append(gateway_rate(settings, f"gateway_{number}", sizes.gateway_events))
        half = statistics.median(rates) / 2
        say(f"{half:,.0f} events a second")
        waits_ms = [1000 * one for one in gateway_waits(settings, "gateway_half", rate=half, seconds=sizes.fresh_s)]
    middle = statistics.median(rates)
    return [
        result(
            "gateway",
            rates,
            "events/s",
            "one process, batches of 500, 4 connections, acks=all",
            goal=f"{GATEWAY_GOAL:,}",
            met=middle >= GATEWAY_GOAL,
        ),
        result(
            "gateway p99",
            [percentile(waits_ms, 99)],
            "ms",
            f"from when a batch of 500 is due to its answer, at {half:,.0f} events/s, {len(waits_ms)} batches",
            goal=f"{GATEWAY_WAIT_GOAL_MS:g} ms",
            met=percentile(waits_ms, 99) <= GATEWAY_WAIT_GOAL_MS,
        ),
    ]


def memory(sizes: Sizes, say: Say) -> list[Result]:
    """What a worker holds after many distinct events."""
    with engines() as settings:
        held = held_memory(settings, "memory", sizes.memory_events, lambda done: say(f"{done:,} events"))
    return [
        result(
            "worker memory",
            [held.most_mib],
            "MiB",
            f"the most at any look during {sizes.memory_events:,} distinct events; {held.half_mib} MiB after half of "
            f"them, {held.end_mib} at the end",
            goal=f"{MEMORY_GOAL_MIB} MiB after 10 million",
            met=held.most_mib <= MEMORY_GOAL_MIB,
        )
    ]


def query(sizes: Sizes, say: Say) -> list[Result]:
    """One customer's month by rollups and by scans of the raw events, and what a row takes on disk."""
    rows: list[Result] = []
    with engines() as settings:
        for count in sizes.query_events:
            say(f"{count:,} events")
            one, stored = asked(settings, f"query_{count}", count)
            sorted_ms = 1000 * statistics.median(one.sorted_scan_s)
            rows.append(
                result(
                    f"usage among {count:,} events",
                    [1000 * seconds for seconds in one.rollups_s],
                    "ms",
                    "one of 1,000 customers, one month, total; the ratio is to JSON_VALUE over all events by time "
                    f"({1000 * statistics.median(one.scan_s):,.0f} ms; sorted by customer {sorted_ms:,.0f} ms)",
                    ratio=ratio(one),
                    goal=f"{QUERY_GOAL:g} x",
                    met=ratio(one) >= QUERY_GOAL,
                )
            )
    note = f"once merged, with {count:,} events of 1,000 customers in a month"
    return [
        *rows,
        result("size of an event as JSON", [stored.json], "bytes", "as it was sent"),
        result("storage of an event", [stored.event], "bytes", note, ratio=stored.json / stored.event),
        result("storage of a rollup row", [stored.rollup], "bytes", note),
    ]


def billing(sizes: Sizes, say: Say) -> list[Result]:
    """Closing and exporting a month, for growing numbers of customers; the goal is for 100,000."""
    rows: list[Result] = []
    for customers in sizes.customers:
        say(f"{customers:,} customers")
        one = measure(customers)
        has_goal = customers >= 100_000
        rows.append(
            result(
                f"close and export {customers:,} customers",
                [one.total_s],
                "s",
                f"{one.lines:,} lines: closed in {one.close_s} s, exported as CSV in {one.export_s} s; "
                f"{one.memory_mib} MiB, ClickHouse {one.clickhouse_mib} MiB",
                goal=f"{GOAL_S:g} s" if has_goal else "",
                met=one.total_s <= GOAL_S if has_goal else None,
            )
        )
    return rows


def rebuild(sizes: Sizes, say: Say) -> list[Result]:
    """Folding stored events again, where ClickHouse folds plain ones by itself beside where Python folds them all."""
    with engines() as settings:
        say("filling the log")
        fill_log(settings, sizes.rebuild_events)
        worker_rate(settings, "rebuilt", sizes.rebuild_events)
        rates: list[float] = []
        by_python: list[float] = []
        for number in range(sizes.rounds):
            say(f"round {number + 1} of {sizes.rounds}")
            rates.append(rebuild_rate(settings, "rebuilt"))
            by_python.append(rebuild_rate(settings, "rebuilt", use_plain=False))
    middle = statistics.median(rates)
    compared = f"every meter from {sizes.rebuild_events:,} stored events, compared with what the worker wrote"
    return [
        result(
            "rebuild",
            rates,
            "events/s",
            f"{compared}; the ratio is to a rebuild that folds all of them in Python",
            ratio=middle / statistics.median(by_python),
            goal=f"{REBUILD_GOAL:,}",
            met=middle >= REBUILD_GOAL,
        ),
        result("rebuild in Python", by_python, "events/s", f"{compared}, all folded by the worker's own code"),
    ]


def percentile(values: Sequence[float], share: int) -> float:
    """The least value that `share` percent of them do not pass."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]
