"""How long after the gateway's answer an event shows in `usage`, under a steady load."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import httpx
import msgspec

from benchmarks.gateway_rate import BATCH_EVENTS, HEADERS, TIMEOUT_S, body, is_ready, paced
from benchmarks.stack import EVENT_TYPE, fresh_database, python_process, wait_for
from metering import catalog_store
from metering.clickhouse import connect
from metering.config import Settings
from metering.embedded.ports import free_ports
from metering.usage.answer import answer
from schemas.period import month
from schemas.usage_query import By, UsageQuery

PROBE_INTERVAL_S: Final = 0.25
LOOK_INTERVAL_S: Final = 0.02
WARM_UP_S: Final = 3.0


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from the answer to the first look that showed the event, one for each probe; events a second sent."""

    waited_s: list[float]
    sent_rate: float


def freshness(settings: Settings, name: str, *, rate: int, seconds: float) -> Freshness:
    """Send `rate` events a second in batches, among them probes with subjects of their own, and look for the probes."""
    settings = msgspec.structs.replace(fresh_database(settings, name), gateway_port=free_ports(1)[0])
    count = int(rate * (seconds + WARM_UP_S)) // BATCH_EVENTS * BATCH_EVENTS
    bodies = [body(first) for first in range(0, count, BATCH_EVENTS)]
    with (
        python_process(settings, "-m", "metering", "worker") as worker,
        python_process(settings, "-m", "metering", "gateway") as gateway,
    ):
        wait_for(gateway, lambda: is_ready(settings.gateway_address), TIMEOUT_S)
        found = asyncio.run(_measure(settings, bodies, rate, seconds))
        if worker.poll() is not None:
            raise RuntimeError(f"the worker ended with {worker.returncode}")
    return found


async def _measure(settings: Settings, bodies: list[bytes], rate: int, seconds: float) -> Freshness:
    async with httpx.AsyncClient(timeout=httpx.Timeout(TIMEOUT_S, pool=None)) as client:
        url = settings.gateway_address
        load = asyncio.create_task(paced(client, url, bodies, rate / BATCH_EVENTS))
        await asyncio.sleep(WARM_UP_S)
        answered_s: dict[str, float] = {}
        looking = asyncio.create_task(_look(settings, answered_s, int(seconds / PROBE_INTERVAL_S)))
        for number in range(int(seconds / PROBE_INTERVAL_S)):
            subject = f"probe-{number}"
            answer_of = await client.post(f"{url}/v1/events", content=_probe(subject), headers=HEADERS)
            answer_of.raise_for_status()
            answered_s[subject] = time.monotonic()
            await asyncio.sleep(PROBE_INTERVAL_S)
        waited_s = await looking
        sent = await load
    return Freshness(waited_s=waited_s, sent_rate=len(sent) * BATCH_EVENTS / max(one.ended_s for one in sent))


async def _look(settings: Settings, answered_s: dict[str, float], count: int) -> list[float]:
    client = connect(settings)
    catalog = catalog_store.load(client, 1)
    period = month("2026-01", "UTC")
    seen: dict[str, float] = {}
    deadline_s = time.monotonic() + TIMEOUT_S + count * PROBE_INTERVAL_S
    while len(seen) < count:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{count - len(seen)} events were answered and never shown")
        asked = tuple(one for one in answered_s if one not in seen)
        if asked:
            query = UsageQuery(meter="calls", start=period.start, end=period.end, by=By.SUBJECT, subjects=asked)
            for row in await asyncio.to_thread(answer, client, catalog, query):
                seen[row.who] = max(0.0, time.monotonic() - answered_s[row.who])
        await asyncio.sleep(LOOK_INTERVAL_S)
    client.close()
    return list(seen.values())


def _probe(subject: str) -> bytes:
    return (
        b'[{"specversion":"1.0","id":"%s","source":"bench","type":"%s","subject":"%s",'
        b'"time":"2026-01-15T12:00:00Z","data":{"region":"eu-1","bytes":1}}]'
        % (subject.encode(), EVENT_TYPE.encode(), subject.encode())
    )
