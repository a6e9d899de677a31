"""Sends events to a gateway in batches, several at a time, and remembers where in the log each one came to stand.

A request that fails for a passing reason is sent again as it is: an event that was in already is recognised by its
identity and counts once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import httpx
import msgspec
import stamina

from ingest.content import BATCH
from ingest.files.events import FileEvent, RowProblem
from ingest.http_client import asked_pause_s, key_header
from ingest.load_record import Load, Progress
from schemas.errors import GatewayUnavailableError, RequestError

BATCH_EVENTS: Final = 500
BATCH_BYTES_MAX: Final = 2 * 1024 * 1024
IN_FLIGHT: Final = 4
RETRY_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})


class StrictLoadError(RequestError):
    """A strict load met a row that cannot be taken; the batches before it are in the log, the rest was not sent."""

    exit_code = 1


class _PassingError(Exception):
    """The gateway said to come again; `pause_s` is how long it asked for, None for its silence."""

    def __init__(self, what: str, pause_s: float | None) -> None:
        self.pause_s = pause_s
        super().__init__(what)


class _Answer(msgspec.Struct):
    accepted: int = 0
    errors: list[dict[str, Any]] = []
    epoch: str = ""
    positions: list[tuple[int, int] | None] = []


class _Refusal(msgspec.Struct):
    code: str = ""
    detail: str = ""
    fix: str = ""
    errors: list[dict[str, Any]] = []


def load(
    rows: Iterable[FileEvent | RowProblem],
    *,
    gateway_url: str,
    api_key: str = "",
    trusted: ssl.SSLContext | None = None,
    strict: bool = False,
    batch_events: int = BATCH_EVENTS,
    in_flight: int = IN_FLIGHT,
    retry_timeout_s: float = 120.0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Load:
    """Send all rows to the gateway; returns once Kafka has acknowledged every event that was taken.

    `api_key` is shown to the gateway; `trusted` says whose certificates to take, else the system's.
    Bad rows are noted and the rest still loads, unless `strict`: then the first one raises StrictLoadError.
    Raises GatewayUnavailableError when one batch could not be placed for `retry_timeout_s`, and RequestError when the
    gateway refuses to talk (a wrong address, a wrong version). Loading again after any error is safe.
    """
    return asyncio.run(
        _Loader(
            gateway_url.rstrip("/"),
            api_key=api_key,
            trusted=trusted,
            strict=strict,
            batch_events=batch_events,
            retry_timeout_s=retry_timeout_s,
            on_progress=on_progress,
        ).run(rows, in_flight)
    )


class _Batch(msgspec.Struct):
    numbers: list[int]
    events: list[bytes]


class _Loader:
    def __init__(
        self,
        url: str,
        *,
        api_key: str,
        trusted: ssl.SSLContext | None,
        strict: bool,
        batch_events: int,
        retry_timeout_s: float,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._url = url
        self._headers = key_header(api_key)
        self._verify = trusted or True
        self._strict = strict
        self._batch_events = batch_events
        self._retry_timeout_s = retry_timeout_s
        self._on_progress = on_progress
        self._load = Load()

    async def run(self, rows: Iterable[FileEvent | RowProblem], in_flight: int) -> Load:
        limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
        pending: set[asyncio.Task[None]] = set()
        timeout = httpx.Timeout(60.0, connect=5.0)
        async with httpx.AsyncClient(
            timeout=timeout, limits=limits, headers=self._headers, verify=self._verify
        ) as client:
            try:
                for batch in self._batches(rows):
                    if len(pending) >= in_flight:
                        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                        self._settle(done)
                    pending.add(asyncio.create_task(self._place(client, batch)))
                    # Lets the new task put its request on the wire before the next batch is read.
                    await asyncio.sleep(0)
                while pending:
                    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    self._settle(done)
            finally:
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)
        return self._load

    def _settle(self, done: Iterable[asyncio.Task[None]]) -> None:
        for task in done:
            task.result()
        if self._on_progress:
            load = self._load
            self._on_progress(Progress(read=load.read, acknowledged=load.acknowledged, refused=load.refused))

    def _batches(self, rows: Iterable[FileEvent | RowProblem]) -> Iterator[_Batch]:
        batch, size_bytes = _Batch([], []), 0
        for row in rows:
            if isinstance(row, RowProblem):
                self._note(row)
                continue
            if batch.events and (
                len(batch.events) >= self._batch_events or size_bytes + len(row.event) > BATCH_BYTES_MAX
            ):
                yield batch
                batch, size_bytes = _Batch([], []), 0
            batch.numbers.append(self._load.add_event(row))
            batch.events.append(row.event)
            size_bytes += len(row.event) + 1
        if batch.events:
            yield batch

    def _note(self, problem: RowProblem) -> None:
        self._load.note_problem(problem)
        if self._strict:
            raise StrictLoadError(
                f"{problem.reason}: {problem.detail}",
                where=f"{problem.file}:{problem.line}",
                fix="Correct the row and load the file again; what is in already counts once",
            )

    async def _place(self, client: httpx.AsyncClient, batch: _Batch) -> None:
        """Send one batch until it is settled; a batch that is too large for the gateway is sent in halves."""
        response = await self._send(client, batch)
        if response.status_code in (httpx.codes.OK, httpx.codes.MULTI_STATUS):
            self._note_answer(batch, msgspec.json.decode(response.content, type=_Answer))
            return
        refusal = _refusal(response)
        if response.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            if len(batch.events) > 1:
                half = len(batch.events) // 2
                await self._place(client, _Batch(batch.numbers[:half], batch.events[:half]))
                await self._place(client, _Batch(batch.numbers[half:], batch.events[half:]))
                return
            self._note_errors(batch, [{"index": 0, "reason": "too_large", "field": "", "detail": refusal.detail}])
            return
        if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY and refusal.errors:
            self._note_errors(batch, refusal.errors)
            return
        raise RequestError(
            f"the gateway answered {response.status_code} ({refusal.detail or response.text[:200]})",
            where=f"{self._url}/v1/events",
            fix=refusal.fix or "Check the address and that the gateway has this version",
        )

    async def _send(self, client: httpx.AsyncClient, batch: _Batch) -> httpx.Response:
        body = b"[" + b",".join(batch.events) + b"]"
        parameters = {"positions": "true"} if self._strict else {"positions": "true", "partial": "true"}
        attempts = stamina.retry_context(on=_pause, attempts=None, timeout=self._retry_timeout_s, wait_max=5.0)
        try:
            async for attempt in attempts:
                with attempt:
                    self._load.retries += attempt.num > 1
                    response = await client.post(
                        f"{self._url}/v1/events", params=parameters, content=body, headers={"Content-Type": BATCH}
                    )
                    _raise_if_passing(response)
        except httpx.TransportError as error:
            raise GatewayUnavailableError(
                f"the gateway does not answer ({error!r})",
                where=self._url,
                fix="Start it with `metering up`, or set METERING_GATEWAY_URL; then load again, repeats count once",
            ) from error
        except _PassingError as error:
            raise GatewayUnavailableError(
                f"the gateway could not take a batch ({error})",
                where=self._url,
                fix="See its /readyz; then load again, repeats count once",
            ) from error
        return response

    def _note_answer(self, batch: _Batch, answer: _Answer) -> None:
        if len(answer.positions) != len(batch.events):
            raise RequestError("the gateway's answer has no positions", where=self._url, fix="Update the gateway")
        if self._load.epoch and answer.epoch != self._load.epoch:
            raise RequestError(
                "Kafka's log was replaced during the load", where=self._url, fix="Load the file again from its start"
            )
        self._load.epoch = answer.epoch
        for number, position in zip(batch.numbers, answer.positions, strict=True):
            if position is not None:
                self._load.add_position(number, *position)
        self._note_errors(batch, answer.errors)

    def _note_errors(self, batch: _Batch, errors: list[dict[str, Any]]) -> None:
        for error in errors:
            file, line = self._load.place_of(batch.numbers[error["index"]])
            self._note(RowProblem(file, line, error["reason"], error["field"], error["detail"]))


def _raise_if_passing(response: httpx.Response) -> None:
    if response.status_code in RETRY_STATUSES:
        raise _PassingError(_refusal(response).detail or str(response.status_code), asked_pause_s(response))


def _refusal(response: httpx.Response) -> _Refusal:
    """The problem document of an answer; an empty one when something else answered."""
    try:
        return msgspec.json.decode(response.content, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Refusal()


def _pause(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds."""
    if isinstance(error, _PassingError):
        return True if error.pause_s is None else error.pause_s
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)
