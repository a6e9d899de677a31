"""How long each page of the dashboard takes at a million rollup rows.

    python -m benchmarks.dashboard_pages

Usage of 1,000 customers over a year is written into the rollups directly. What a page adds up is compared with a plain
sum before any time is printed. The dashboard runs as it does in production, in a process of its own; a page's time is
that of the whole answer over HTTP.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

import httpx
import msgspec
import pyarrow as pa
from clickhouse_connect.driver.client import Client

from metering import catalog_store
from metering.catalog_file import parse_catalog
from metering.clickhouse import connect, ensure_database
from metering.clock import Clock, FixedClock, SystemClock
from metering.config import Settings, load_settings
from metering.embedded.clickhouse import EmbeddedClickHouse
from metering.embedded.parts import settings_env
from metering.embedded.ports import free_ports
from metering.migrate import migrate

ROWS: Final = 1_000_000
CUSTOMERS: Final = 1_000
GOAL_MS: Final = 300
TIMES: Final = 15
READY_S: Final = 60.0
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
REGIONS: Final = ("eu", "us")

METERS: Final = """
event_types: [sales.cost]
meters:
  - {name: requests, event_type: request, aggregation: count, unit: calls, group_by: {region: region}}
  - {name: traffic, event_type: request, aggregation: sum, value: bytes, unit: GB, group_by: {region: region}}
plans:
  - id: standard
    charges:
      - {id: fee, model: flat, amount: 49.90, description: Base fee}
      - {id: calls, model: per_unit, meter: requests, unit_amount: 0.01, description: Calls}
      - {id: traffic, model: per_unit, meter: traffic, unit_amount: 0.05, group_by: [region], description: Traffic}
goals:
  - {id: grow, kpi: mrr, currency: USD, target: 40000}
"""


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """A page and its times in milliseconds: the first look, later ones, and until everything on it was counted."""

    page: str
    first_ms: float
    median_ms: float
    least_ms: float
    greatest_ms: float
    complete_ms: float


def main() -> None:
    """Fill, compare, time, print. Ends with 1 when a number is wrong, never because of a time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard_pages", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="rollup rows (%(default)s)")
    parser.add_argument("--times", type=int, default=TIMES, help="how often each page is asked for (%(default)s)")
    options = parser.parse_args()
    now = SystemClock().now()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        [clickhouse_port] = free_ports(1)
        with EmbeddedClickHouse(path / "clickhouse", port=clickhouse_port, log_path=path / "clickhouse.log") as engine:
            [port] = free_ports(1)
            settings = msgspec.structs.replace(
                load_settings(), clickhouse_url=engine.url, kafka_servers="127.0.0.1:1", dashboard_port=port
            )
            ensure_database(settings)
            client = connect(settings)
            migrate(client)
            fill(client, options.rows, now)
            with dashboard(settings, path / "dashboard.log") as address:
                timed = measure(address, client, now, times=options.times)
    show(timed, options.rows)


def fill(client: Client, rows: int, now: datetime) -> None:
    """A catalog of 1,000 customers, and rollups of two meters spread evenly over the year until now."""
    customers = "".join(f"  - {{id: c{n}, name: Customer {n}, subjects: [s{n}]}}\n" for n in range(CUSTOMERS))
    held = "".join(
        f"  - {{id: h{n}, customer: c{n}, plan: standard, start: {now.year - 1}-01-01}}\n" for n in range(CUSTOMERS)
    )
    text = f"{METERS}customers:\n{customers}subscriptions:\n{held}"
    clock: Clock = FixedClock(now - timedelta(days=365))
    catalog_store.apply(client, parse_catalog(text), clock=clock, applied_by="benchmark")
    quarters = rows // (2 * CUSTOMERS)
    step = timedelta(minutes=15) * (365 * 96 // quarters)
    # The window that runs now is answered from events, of which there are none here, so usage ends with the one before.
    last = now - (now - EPOCH) % timedelta(minutes=15) - timedelta(minutes=15)
    for meter in ("requests", "traffic"):
        for first in range(0, CUSTOMERS, 100):
            client.insert_arrow("rollups", rollups(meter, range(first, first + 100), quarters, last, step))
    client.insert(
        "positions",
        [("log-1", "usage.events.v1", 0, 0, rows, rows, 0, 0, 0, 0, 1, now, now, "benchmark", "benchmark")],
    )


def rollups(meter: str, customers: range, quarters: int, last: datetime, step: timedelta) -> pa.Table:
    """A row for each customer and every step back from now; customer n counts n % 7 + 1 in each."""
    pairs = [(customer, place) for customer in customers for place in range(quarters)]
    moments = [last - place * step for _, place in pairs]
    counts = [customer % 7 + 1 for customer, _ in pairs]
    sums = [Decimal(0) if meter == "requests" else Decimal(count) for count in counts]
    dimensions = [[("region", REGIONS[place % 2])] for _, place in pairs]
    return pa.table(
        {
            "meter": [meter] * len(pairs),
            "subject": [f"s{customer}" for customer, _ in pairs],
            "window_start": pa.array(moments, pa.timestamp("s", "UTC")),
            "dimensions": pa.array(dimensions, pa.map_(pa.string(), pa.string())),
            "meter_version": pa.array([1] * len(pairs), pa.uint32()),
            "epoch": ["log-1"] * len(pairs),
            "partition": pa.array([0] * len(pairs), pa.uint32()),
            "position_first": pa.array([0] * len(pairs), pa.uint64()),
            "position": pa.array(list(range(len(pairs))), pa.uint64()),
            "events_count": pa.array(counts, pa.uint64()),
            "value_sum": pa.array(sums, pa.decimal256(76, 12)),
            "latest_time": pa.array(moments, pa.timestamp("us", "UTC")),
        }
    )


@contextmanager
def dashboard(settings: Settings, log_path: Path) -> Iterator[str]:
    """`metering dashboard` in a process of its own."""
    env = {**os.environ, **settings_env(settings)}
    address = f"http://127.0.0.1:{settings.dashboard_port}"
    with (
        log_path.open("w") as log,
        subprocess.Popen([sys.executable, "-m", "metering", "dashboard"], env=env, stdout=log, stderr=log) as process,
    ):
        try:
            deadline_s = time.monotonic() + READY_S
            while not answers(address):
                if time.monotonic() > deadline_s or process.poll() is not None:
                    sys.exit(f"the dashboard did not start: {log_path.read_text()[-2000:]}")
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()


def answers(address: str) -> bool:
    """Whether the dashboard is alive."""
    try:
        return httpx.get(f"{address}/healthz").is_success
    except httpx.TransportError:
        return False


def measure(address: str, client: Client, now: datetime, *, times: int) -> list[Timed]:
    """The times of every page, after the numbers on two of them were found right."""
    month = f"{now:%Y-%m}-01"
    usage = f"/usage?meter=traffic&from={month}&window=day&by=everything"
    pages = {
        "overview": "/",
        "usage, a month by day": usage,
        "usage, by customer": f"/usage?meter=traffic&from={month}&window=total&by=customer",
        "usage, a year by month and region": (
            f"/usage?meter=traffic&from={now.year - 1}-{now.month:02}-01&window=month&by=everything&group_by=region"
        ),
        "customers": "/customers",
        "customers, searched": "/customers?search=c77",
        "customer": "/customer?id=c7",
        "runs": "/runs",
        "dead letters": "/dead-letters",
        "KPIs": "/kpis",
    }
    with httpx.Client(base_url=address, timeout=READY_S) as http:
        looks = {name: first_looks_ms(http, path) for name, path in pages.items()}
        check(http, client, usage, month)
        found = []
        for name, path in pages.items():
            taken = [one_ms(http, path) for _ in range(times)]
            found.append(
                Timed(
                    page=name,
                    first_ms=looks[name][0],
                    median_ms=statistics.median(taken),
                    least_ms=min(taken),
                    greatest_ms=max(taken),
                    complete_ms=looks[name][1],
                )
            )
    return found


def one_ms(http: httpx.Client, path: str) -> float:
    """How long one answer takes."""
    began_s = time.perf_counter()
    http.get(path).raise_for_status()
    return (time.perf_counter() - began_s) * 1000


def first_looks_ms(http: httpx.Client, path: str) -> tuple[float, float]:
    """How long the first look at a page takes, and how long it is from then until nothing on it is being counted."""
    began_s = time.perf_counter()
    answer = http.get(path).raise_for_status()
    first_ms = (time.perf_counter() - began_s) * 1000
    while "data-again" in answer.text:
        time.sleep(0.05)
        answer = http.get(path).raise_for_status()
    return first_ms, (time.perf_counter() - began_s) * 1000


def check(http: httpx.Client, client: Client, usage: str, month: str) -> None:
    """Compare the sum on the page with one that ClickHouse adds up plainly; ends the program when they differ."""
    shown = re.search(r'id="total"><data value="([0-9.]+)"', http.get(usage).text)
    [(plain,)] = client.query(
        "SELECT toString(sum(value_sum)) FROM rollups FINAL "
        "WHERE meter = 'traffic' AND window_start >= {month:DateTime}",
        {"month": f"{month} 00:00:00"},
    ).result_rows
    rows = int(client.query("SELECT count() FROM rollups FINAL").result_rows[0][0])
    if shown is None or Decimal(shown.group(1)) != Decimal(plain):
        sys.exit(f"the page says {shown and shown.group(1)}, the rollups {plain}")
    print(f"{rows:,} rollup rows; the month's traffic on the page is that of the rollups: {plain}")


def show(timed: list[Timed], rows: int) -> None:
    """A line for each page."""
    heads = "".join(f"{name:>10} ms" for name in ("first", "median", "least", "greatest", "complete"))
    print(f"\n{'page':36}{heads}   ({rows:,} rows asked for)")
    for one in timed:
        over = "" if max(one.first_ms, one.greatest_ms) <= GOAL_MS else f"  above {GOAL_MS} ms"
        times = (one.first_ms, one.median_ms, one.least_ms, one.greatest_ms, one.complete_ms)
        print(f"{one.page:36}{''.join(f'{time_ms:13.0f}' for time_ms in times)}{over}")


if __name__ == "__main__":
    main()
