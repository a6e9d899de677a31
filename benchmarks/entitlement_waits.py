"""Entitlements: how long each of 1,000 answers a second takes while usage goes on.

`python -m benchmarks.entitlement_waits` runs it alone. Every answer is compared with the number that was stored before
a time is printed.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

import msgspec

from benchmarks.gateway_rate import TIMEOUT_S, is_ready
from benchmarks.result import machine
from benchmarks.stack import engines, python_process, wait_for
from metering import catalog_store
from metering.clickhouse import connect, ensure_database
from metering.clock import SystemClock
from metering.config import Settings
from metering.embedded.ports import free_ports
from metering.migrate import migrate
from schemas.catalog import Catalog, Customer
from schemas.charges import PerUnitCharge
from schemas.meter import Aggregation, Meter
from schemas.plan import Plan
from schemas.quota import Entitlement, Quota
from schemas.subscription import Subscription

CUSTOMERS: Final = 10_000
ROWS_EACH: Final = 100
RATE: Final = 1_000
SECONDS: Final = 30
CONNECTIONS: Final = 20
MOVING: Final = 200
"""Customers whose usage grows every second, by one; their answers may be some seconds behind, and no more."""

_decode = msgspec.json.Decoder(Entitlement).decode


def main() -> None:
    """Measure once and print the percentiles."""
    with engines() as settings:
        waits_s = sorted(entitlement_waits(settings, "entitlements"))
    found = ", ".join(f"p{share:g} {at(waits_s, share) * 1000:.2f} ms" for share in (50, 90, 99, 99.9))
    print(f"{len(waits_s)} right answers at {RATE} a second: {found}, longest {waits_s[-1] * 1000:.1f} ms")
    print(f"{CUSTOMERS} customers, {CUSTOMERS * ROWS_EACH} rollups, {MOVING} customers using meanwhile, on {machine()}")


def at(ordered: list[float], share: float) -> float:
    """The value that `share` percent of an ordered list do not exceed."""
    return ordered[max(0, -(-len(ordered) * int(share * 10) // 1000) - 1)]


def entitlement_waits(settings: Settings, name: str) -> list[float]:
    """Seconds until each answer, counted from when it was due. Raises AssertionError for an answer that is wrong."""
    settings = msgspec.structs.replace(settings, clickhouse_database=name, gateway_port=free_ports(1)[0])
    ensure_database(settings)
    client = connect(settings)
    migrate(client)
    catalog_store.apply(client, catalog(), clock=SystemClock(), applied_by="bench")
    begin = int(SystemClock().now().replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())
    # Customer n has used n, in rows of windows that follow each other from the start of this month.
    client.command(
        """INSERT INTO rollups (meter, subject, window_start, meter_version, epoch, partition, position, events_count)
        SELECT 'calls', concat('s', toString(intDiv(number, {rows:UInt32}))),
            toDateTime({begin:UInt32} + 900 * (number % {rows:UInt32}), 'UTC'), 1, 'log', 0, 0,
            if(number % {rows:UInt32} = 0, intDiv(number, {rows:UInt32}), 0)
        FROM numbers({count:UInt64})""",
        {"rows": ROWS_EACH, "begin": begin, "count": CUSTOMERS * ROWS_EACH},
    )
    ledger = ["epoch", "topic", "partition", "first", "last"]
    client.insert("positions", [("log", "usage.events.v1", 0, 0, 0)], column_names=ledger)
    with python_process(settings, "-m", "metering", "gateway") as process:
        wait_for(process, lambda: is_ready(settings.gateway_address), TIMEOUT_S)
        wait_for(process, lambda: asyncio.run(answers_right(settings.gateway_port)), TIMEOUT_S)
        return asyncio.run(_measure(settings, begin))


def catalog() -> Catalog:
    """Everybody has one plan with one quota."""
    customers = tuple(Customer(id=f"c{number}", subjects=(f"s{number}",)) for number in range(CUSTOMERS))
    charge = PerUnitCharge(id="calls", meter="calls", unit_amount=Decimal(1))
    return Catalog(
        meters=(Meter(name="calls", event_type="call", aggregation=Aggregation.COUNT),),
        customers=customers,
        plans=(Plan(id="pro", charges=(charge,)),),
        subscriptions=tuple(
            Subscription(id=one.id, customer=one.id, plan="pro", start=date(2026, 1, 1)) for one in customers
        ),
        quotas=(Quota(id="calls", plan="pro", meter="calls", quantity=Decimal(CUSTOMERS // 2)),),
    )


async def answers_right(port: int) -> bool:
    """Whether the gateway has read what was used."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    status, body = await ask(reader, writer, CUSTOMERS - 1)
    writer.close()
    return status == b"200" and _decode(body).used == str(CUSTOMERS - 1)


async def _measure(settings: Settings, begin: int) -> list[float]:
    waiting = iter(range(RATE * SECONDS))
    waits_s: list[float] = []
    started_s = time.monotonic()

    async def asker() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.gateway_port)
        for number in waiting:
            due_s = started_s + number / RATE
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            customer = number * 7_919 % CUSTOMERS
            status, body = await ask(reader, writer, customer)
            waits_s.append(time.monotonic() - due_s)
            check(customer, status, body, begun_s=due_s - started_s)
        writer.close()

    use = asyncio.to_thread(_use, settings, begin)
    await asyncio.gather(use, *(asker() for _ in range(CONNECTIONS)))
    return waits_s


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, customer: int) -> tuple[bytes, bytes]:
    """Status and body, over a connection that stays open: a client as light as can be."""
    writer.write(b"GET /v1/customers/c%d/entitlements/calls HTTP/1.1\r\nHost: bench\r\n\r\n" % customer)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head.split(b" ", 2)[1], await reader.readexactly(length)


def check(customer: int, status: bytes, body: bytes, *, begun_s: float) -> None:
    """End the benchmark at an answer that is wrong, or further behind than five seconds."""
    if status != b"200":
        raise AssertionError(f"customer {customer} was answered {status!r}: {body!r}")
    found = _decode(body)
    used = int(found.used or -1)
    grown = used - customer
    # The first growth comes with the first second; who uses nothing meanwhile has the same number all the time.
    least = max(0, int(begun_s) - 6) if customer < MOVING else 0
    most = SECONDS if customer < MOVING else 0
    right = least <= grown <= most and found.allowed == (used < CUSTOMERS // 2)
    if not right:
        raise AssertionError(
            f"customer {customer} has used {found.used} after {begun_s:.1f} s, allowed {found.allowed}"
        )


def _use(settings: Settings, begin: int) -> None:
    """Every second the first customers use one more, with a row of the ledger after the rollups, as a worker writes."""
    client = connect(settings)
    started_s = time.monotonic()
    columns = "meter subject window_start meter_version epoch partition position events_count"
    for turn in range(1, SECONDS + 1):
        window = datetime.fromtimestamp(begin, UTC)
        rows = [("calls", f"s{one}", window, 1, "log", 0, turn, one + turn) for one in range(MOVING)]
        client.insert("rollups", rows, column_names=columns.split(" "))
        client.insert(
            "positions",
            [("log", "usage.events.v1", 0, turn, turn)],
            column_names=["epoch", "topic", "partition", "first", "last"],
        )
        time.sleep(max(0.0, started_s + turn - time.monotonic()))
    client.close()


if __name__ == "__main__":
    main()
