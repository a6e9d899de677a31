"""How long it takes to close a month of many customers with five charges each, and to export it as CSV.

    python -m benchmarks.billing_rate 10000 30000 100000

Usage is written into the rollups directly. What was billed is read back from the exported file and compared, charge by
charge, with amounts worked out here in plain arithmetic, before anything is printed.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Final

import msgspec

from billing_export import runs
from billing_export.close import Closer
from billing_export.export import ExportFormat, export_runs
from billing_export.parallel import WORKERS_MAX, workers_for
from billing_export.usage_reader import RollupReader
from metering import catalog_store
from metering.clickhouse import connect, ensure_database
from metering.clock import FixedClock
from metering.config import Settings, load_settings, variable_of
from metering.embedded.clickhouse import EmbeddedClickHouse
from metering.migrate import migrate
from schemas.catalog import Catalog, Customer
from schemas.charges import FlatCharge, GraduatedCharge, PackageCharge, PerUnitCharge, Tier, VolumeCharge
from schemas.meter import Aggregation, Meter
from schemas.plan import Plan
from schemas.subscription import Subscription

LABEL: Final = "2026-01"
CLOCK: Final = FixedClock(datetime(2026, 2, 5, tzinfo=UTC))
CHARGES: Final = 5
GOAL_S: Final = 90.0
SIZES: Final = (10_000, 30_000, 100_000)

_MIB: Final = 1024
_TOPIC: Final = "usage.events.v1"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One size. Memory is the most that the closing processes held together, and ClickHouse, in MiB.

    `processor_s` is the processor time of the closing processes, which other work on the machine does not lengthen.
    """

    customers: int
    lines: int
    close_s: float
    export_s: float
    processor_s: float
    memory_mib: int
    clickhouse_mib: int

    @property
    def total_s(self) -> float:
        return self.close_s + self.export_s


def catalog(customers: int) -> Catalog:
    """Every customer has one subject and one subscription to the one plan."""
    meters = (
        Meter(name="calls", event_type="used", aggregation=Aggregation.COUNT),
        *(
            Meter(name=name, event_type="used", aggregation=how, value=name)
            for name, how in (("traffic", Aggregation.SUM), ("storage", Aggregation.MAX), ("jobs", Aggregation.SUM))
        ),
    )
    tiers = (Tier(up_to=Decimal(10), unit_amount=Decimal("1.005")), Tier(unit_amount=Decimal("0.5")))
    plan = Plan(
        id="standard",
        charges=(
            FlatCharge(id="fee", amount=Decimal("49.90")),
            GraduatedCharge(id="calls", meter="calls", tiers=tiers),
            PerUnitCharge(id="traffic", meter="traffic", unit_amount=Decimal("0.0333")),
            VolumeCharge(id="storage", meter="storage", tiers=tiers),
            PackageCharge(id="jobs", meter="jobs", package_size=Decimal(10), package_amount=Decimal("1.50")),
        ),
    )
    names = [f"customer-{number:06}" for number in range(customers)]
    return Catalog(
        meters=meters,
        customers=tuple(Customer(id=name, name=f"Customer {name}", subjects=(f"s-{name}",)) for name in names),
        plans=(plan,),
        subscriptions=tuple(
            Subscription(id=f"{name}-1", customer=name, plan="standard", start=date(2025, 6, 1)) for name in names
        ),
    )


def quantities(number: int) -> dict[str, Decimal]:
    """What customer `number` uses in two windows of the month, by meter."""
    return {
        "calls": Decimal(number % 17 + number % 5),
        "traffic": Decimal(number % 1000) + Decimal("0.125") + Decimal(number % 7),
        "storage": Decimal(max(number % 23, number % 11)),
        "jobs": Decimal(number % 31 + number % 3),
    }


_ROLLUPS: Final = """
INSERT INTO rollups (meter, subject, window_start, dimensions, meter_version, epoch, partition, position_first,
    position, events_count, value_sum, value_min, value_max, value_latest, latest_time, latest_offset, digest)
SELECT meter, concat('s-customer-', leftPad(toString(number), 6, '0')), window, map(), 1, 'log', 0, 0, number,
    if(meter = 'calls', toUInt64(value), 1), if(meter = 'calls', 0, value),
    if(meter = 'calls', NULL, value), if(meter = 'calls', NULL, value), if(meter = 'calls', NULL, value),
    window, number, number
FROM
(
    SELECT number, used.1 AS meter, toDateTime(used.2, 'UTC') AS window, toDecimal128(used.3, 12) AS value
    FROM numbers({customers:UInt64})
    ARRAY JOIN [
        ('calls', '2026-01-03 10:00:00', toString(number % 17)), ('calls', '2026-01-20 11:15:00', toString(number % 5)),
        ('traffic', '2026-01-03 10:00:00', concat(toString(number % 1000), '.125')),
        ('traffic', '2026-01-20 11:15:00', toString(number % 7)),
        ('storage', '2026-01-03 10:00:00', toString(number % 23)),
        ('storage', '2026-01-20 11:15:00', toString(number % 11)),
        ('jobs', '2026-01-03 10:00:00', toString(number % 31)), ('jobs', '2026-01-20 11:15:00', toString(number % 3))
    ] AS used
)"""


def amounts(number: int) -> dict[str, Decimal]:
    """What customer `number` has to pay for each charge."""
    used = quantities(number)
    cent = Decimal("0.01")
    calls, storage = used["calls"], used["storage"]
    exact = {
        "fee": Decimal("49.90"),
        "calls": min(calls, Decimal(10)) * Decimal("1.005") + max(calls - 10, Decimal(0)) * Decimal("0.5"),
        "traffic": used["traffic"] * Decimal("0.0333"),
        "storage": storage * (Decimal("1.005") if storage <= 10 else Decimal("0.5")),
        "jobs": (used["jobs"] / 10).quantize(Decimal(1), rounding=ROUND_CEILING) * Decimal("1.50"),
    }
    return {name: amount.quantize(cent, rounding=ROUND_HALF_UP) for name, amount in exact.items()}


def measure(customers: int) -> Measured:
    """Close and export a month in a process of its own, and check every charge's sum in the exported file."""
    with _database(customers) as (settings, pid, folder):
        file = folder / "line_items.csv"
        environment = {
            **os.environ,
            variable_of("clickhouse_url"): settings.clickhouse_url,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        command = [sys.executable, "-m", "benchmarks.billing_rate", "--child", str(file)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        found = msgspec.json.decode(done.stdout, type=Measured)
        _check(file, customers)
        return msgspec.structs.replace(found, customers=customers, clickhouse_mib=_peak_mib(pid))


@contextmanager
def _database(customers: int) -> Iterator[tuple[Settings, int, Path]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with EmbeddedClickHouse(folder / "clickhouse") as server:
            settings = Settings(clickhouse_url=server.url)
            ensure_database(settings)
            client = connect(settings)
            migrate(client)
            catalog_store.apply(client, catalog(customers), clock=CLOCK, applied_by="benchmark")
            client.command(_ROLLUPS, parameters={"customers": customers})
            client.insert(
                "positions",
                [("log", _TOPIC, 0, 0, customers, customers, 1)],
                column_names=["epoch", "topic", "partition", "first", "last", "accepted", "catalog_version"],
            )
            client.close()
            yield settings, server.pid, folder


def _check(file: Path, customers: int) -> None:
    """Compare the file's sums, charge by charge, with plain arithmetic; ends the benchmark where they differ."""
    expected: dict[str, Decimal] = {}
    for number in range(customers):
        for charge, amount in amounts(number).items():
            expected[charge] = expected.get(charge, Decimal(0)) + amount
    found: dict[str, Decimal] = {}
    lines = 0
    with file.open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            lines += 1
            found[row["charge"]] = found.get(row["charge"], Decimal(0)) + Decimal(row["amount"])
    if (found, lines) != (expected, customers * CHARGES):
        sys.exit(f"billed {lines} lines, {found}; expected {customers * CHARGES}, {expected}")


def _peak_mib(pid: int) -> int:
    """The most memory that a process has held; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    peak = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(peak.split()[1]) // _MIB


def _child(file: Path) -> None:
    """Close and export, and print what it took."""
    client = connect(load_settings())
    started_s = time.monotonic()
    closer = Closer(
        client=client,
        read_usage=RollupReader(client),
        clock=CLOCK,
        grace_s=86_400,
        closed_by="benchmark",
        code_version="benchmark",
        connect_again=lambda: connect(load_settings()),
    )
    run = closer.close(LABEL).run
    closed_s = time.monotonic()
    lines = export_runs(client, runs.frozen(client, LABEL), ExportFormat.CSV, file)
    done_s = time.monotonic()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    workers = workers_for(WORKERS_MAX)
    found = Measured(
        customers=0,
        lines=min(lines, run.lines_count),
        close_s=round(closed_s - started_s, 2),
        export_s=round(done_s - closed_s, 2),
        processor_s=round(sum(one.ru_utime + one.ru_stime for one in used), 2),
        memory_mib=(used[0].ru_maxrss + workers * used[1].ru_maxrss) // _MIB,
        clickhouse_mib=0,
    )
    sys.stdout.buffer.write(msgspec.json.encode(found))


def main() -> None:
    """Measure some sizes and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.billing_rate", description=__doc__)
    parser.add_argument("customers", type=int, nargs="*", default=list(SIZES), help="how many customers (%(default)s)")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.child)
        return
    for customers in options.customers:
        one = measure(customers)
        print(
            f"{customers:>7,} customers, {one.lines:,} lines: close {one.close_s:.1f} s, export {one.export_s:.1f} s, "
            f"together {one.total_s:.1f} s or {one.total_s / customers * 1e6:.0f} us a customer; "
            f"{one.processor_s:.1f} s of processor time; {one.memory_mib} MiB, ClickHouse {one.clickhouse_mib} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
