"""The gateway: batches of 500 events over HTTP, each answered once Kafka has acknowledged all of it."""

from __future__ import annotations

import asyncio
import time

import httpx
import msgspec

from benchmarks.stack import event, fresh_database, python_process, wait_for
from metering.config import Settings
from metering.embedded.ports import free_ports
from metering.kafka import log_ends
from schemas.topics import USAGE_EVENTS

BATCH_EVENTS = 500
CONNECTIONS = 4
TIMEOUT_S = 60.0
HEADERS = {"Content-Type": "application/cloudevents-batch+json"}


def gateway_rate(settings: Settings, name: str, count: int) -> float:
    """Events a second through one gateway process; the log must have grown by just as many."""
    settings = msgspec.structs.replace(fresh_database(settings, name), gateway_port=free_ports(1)[0])
    url = settings.gateway_address
    bodies = [body(first) for first in range(0, count, BATCH_EVENTS)]
    with python_process(settings, "-m", "metering", "gateway") as process:
        wait_for(process, lambda: is_ready(url), TIMEOUT_S)
        asyncio.run(_send(url, bodies[: 4 * CONNECTIONS]))
        before = _log_size(settings)
        started_s = time.monotonic()
        asyncio.run(_send(url, bodies))
        elapsed_s = time.monotonic() - started_s
        grown = _log_size(settings) - before
    if grown != count:
        raise AssertionError(f"the log grew by {grown} records instead of {count}")
    return count / elapsed_s


def body(first: int) -> bytes:
    """A batch of events, from number `first` on."""
    return b"[" + b",".join(event(number) for number in range(first, first + BATCH_EVENTS)) + b"]"


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A request: when it was answered, in seconds since the first was due, and how long after it was due that is."""

    ended_s: float
    waited_s: float


def gateway_waits(settings: Settings, name: str, *, rate: float, seconds: float) -> list[float]:
    """Seconds until the answer of each batch, counted from when it was due, at `rate` events a second."""
    settings = msgspec.structs.replace(fresh_database(settings, name), gateway_port=free_ports(1)[0])
    bodies = [body(first) for first in range(0, int(rate * seconds), BATCH_EVENTS)]
    with python_process(settings, "-m", "metering", "gateway") as process:
        wait_for(process, lambda: is_ready(settings.gateway_address), TIMEOUT_S)

        async def send() -> list[Sent]:
            async with httpx.AsyncClient(timeout=httpx.Timeout(TIMEOUT_S, pool=None)) as client:
                return await paced(client, settings.gateway_address, bodies, rate / BATCH_EVENTS)

        return [one.waited_s for one in asyncio.run(send())]


async def paced(client: httpx.AsyncClient, url: str, bodies: list[bytes], batches_a_second: float) -> list[Sent]:
    """Send each batch when it is due, whether or not those before it were answered: no wait hides another."""
    started_s = time.monotonic()

    async def send(number: int, content: bytes) -> Sent:
        due_s = number / batches_a_second
        await asyncio.sleep(max(0.0, started_s + due_s - time.monotonic()))
        answer = await client.post(f"{url}/v1/events", content=content, headers=HEADERS)
        answer.raise_for_status()
        ended_s = time.monotonic() - started_s
        return Sent(ended_s=ended_s, waited_s=ended_s - due_s)

    return list(await asyncio.gather(*(send(number, content) for number, content in enumerate(bodies))))


async def _send(url: str, bodies: list[bytes]) -> None:
    waiting = iter(bodies)

    async def sender(client: httpx.AsyncClient) -> None:
        for body in waiting:
            answer = await client.post(f"{url}/v1/events", content=body, headers=HEADERS)
            answer.raise_for_status()

    async with httpx.AsyncClient(timeout=httpx.Timeout(TIMEOUT_S, pool=None)) as client:
        await asyncio.gather(*(sender(client) for _ in range(CONNECTIONS)))


def _log_size(settings: Settings) -> int:
    return sum(end for _, end in log_ends(settings, USAGE_EVENTS).values())


def is_ready(url: str) -> bool:
    """Whether a gateway says that it takes events."""
    try:
        return httpx.get(f"{url}/readyz", timeout=2.0).is_success
    except httpx.TransportError:
        return False
