"""Alerts: how long after the gateway took an event its customer's alert is in the topic, while usage goes on.

`python -m benchmarks.alert_waits` runs it alone. Each customer must have been told of once, and with the right number,
before a time is printed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Final

import httpx
import msgspec
from confluent_kafka import Consumer

from benchmarks.entitlement_waits import at
from benchmarks.gateway_rate import BATCH_EVENTS, HEADERS, TIMEOUT_S, body, is_ready, paced
from benchmarks.result import machine
from benchmarks.stack import CATALOG, EVENT_TYPE, engines, fresh_database, python_process, wait_for
from metering import catalog_store
from metering.clickhouse import connect
from metering.clock import SystemClock
from metering.config import Settings
from metering.embedded.ports import free_ports
from metering.kafka import client_config
from schemas.alert import AlertRule, Watch
from schemas.catalog import Catalog, Customer
from schemas.charges import PerUnitCharge
from schemas.plan import Plan
from schemas.quota import Quota
from schemas.subscription import Subscription
from schemas.topics import USAGE_ALERTS

CUSTOMERS: Final = 60
INTERVAL_S: Final = 0.5
RATE: Final = 2_000
WARM_UP_S: Final = 5.0
LISTEN_S: Final = 10.0


def main() -> None:
    """Measure once and print the percentiles."""
    with engines() as settings:
        waits_s = sorted(alert_waits(settings, "alerts"))
    found = ", ".join(f"p{share:g} {at(waits_s, share):.2f} s" for share in (50, 90))
    print(f"{len(waits_s)} alerts, each told once: {found}, longest {waits_s[-1]:.2f} s")
    print(f"while {RATE} events a second came in, on {machine()}")


def alert_waits(settings: Settings, name: str) -> list[float]:
    """Seconds from the gateway's answer to the alert, by customer. Raises AssertionError for one told wrong."""
    settings = msgspec.structs.replace(fresh_database(settings, name), gateway_port=free_ports(1)[0])
    client = connect(settings)
    catalog_store.apply(client, catalog(), clock=SystemClock(), applied_by="benchmarks")
    client.close()
    with (
        python_process(settings, "-m", "metering", "worker") as worker,
        python_process(settings, "-m", "metering", "alerts") as alerts,
        python_process(settings, "-m", "metering", "gateway") as gateway,
    ):
        wait_for(gateway, lambda: is_ready(settings.gateway_address), TIMEOUT_S)
        found = asyncio.run(_measure(settings))
        for process in (worker, alerts):
            if process.poll() is not None:
                raise RuntimeError(f"a process ended with {process.returncode}")
    return found


def catalog() -> Catalog:
    """Every customer may call once a month, and is told of when they have."""
    names = [f"c{number}" for number in range(CUSTOMERS)]
    return Catalog(
        meters=CATALOG.meters,
        customers=tuple(Customer(id=name, subjects=(f"{name}-app",)) for name in names),
        plans=(Plan(id="free", charges=(PerUnitCharge(id="calls", meter="calls", unit_amount=Decimal(0)),)),),
        subscriptions=tuple(
            Subscription(id=name, customer=name, plan="free", start=date(2026, 1, 1)) for name in names
        ),
        quotas=(Quota(id="one-call", plan="free", meter="calls", quantity=Decimal(1)),),
        alerts=(AlertRule(id="used-up", watch=Watch.QUOTA, thresholds=(100,)),),
    )


async def _measure(settings: Settings) -> list[float]:
    told: dict[str, float] = {}
    wrong: list[str] = []
    over = threading.Event()
    listening = asyncio.create_task(asyncio.to_thread(_listen, settings, told, wrong, over))
    answered: dict[str, float] = {}
    count = int(RATE * (WARM_UP_S + CUSTOMERS * INTERVAL_S)) // BATCH_EVENTS * BATCH_EVENTS
    async with httpx.AsyncClient(timeout=httpx.Timeout(TIMEOUT_S, pool=None)) as client:
        url = settings.gateway_address
        bodies = [body(first) for first in range(0, count, BATCH_EVENTS)]
        load = asyncio.create_task(paced(client, url, bodies, RATE / BATCH_EVENTS))
        await asyncio.sleep(WARM_UP_S)
        for number in range(CUSTOMERS):
            answer = await client.post(f"{url}/v1/events", content=_call(f"c{number}"), headers=HEADERS)
            answer.raise_for_status()
            answered[f"c{number}"] = time.monotonic()
            await asyncio.sleep(INTERVAL_S)
        await load
    over.set()
    await listening
    if wrong or told.keys() != answered.keys():
        raise AssertionError(f"told wrong: {wrong}, not told of: {sorted(answered.keys() - told.keys())}")
    return [told[name] - answered[name] for name in answered]


def _listen(settings: Settings, told: dict[str, float], wrong: list[str], over: threading.Event) -> None:
    """Note when each customer's alert came, and which came twice or with another number."""
    consumer = Consumer(
        {**client_config(settings), "group.id": "alert-waits", "auto.offset.reset": "earliest", "fetch.wait.max.ms": 10}
    )
    consumer.subscribe([USAGE_ALERTS])
    # After the last event some seconds more, for what is late and for an alert that is told twice to show.
    end_s = float("inf")
    while time.monotonic() < end_s:
        if over.is_set() and end_s == float("inf"):
            end_s = time.monotonic() + LISTEN_S
        message = consumer.poll(0.1)
        value = None if message is None or message.error() else message.value()
        if value is None:
            continue
        alert: Mapping[str, Any] = msgspec.json.decode(value)
        name = alert["subject"]
        if name in told or (alert["data"]["value"], alert["data"]["threshold_percent"]) != ("1", 100):
            wrong.append(value.decode())
        told.setdefault(name, time.monotonic())
    consumer.close()


def _call(customer: str) -> bytes:
    now = SystemClock().now().isoformat()
    return (
        f'[{{"specversion":"1.0","id":"{customer}","source":"bench","type":"{EVENT_TYPE}","subject":"{customer}-app",'
        f'"time":"{now}","data":{{"region":"eu-1","bytes":1}}}}]'
    ).encode()


if __name__ == "__main__":
    main()
