"""A client for programs that produce usage: one call that does not block, and nothing lost without saying so.

    client = MeteringClient("http://gateway:8080", source="urn:shop:api")
    client.record(type="request", subject="customer-7", data={"bytes": 1024, "cost": Decimal("0.015")})
    client.close()

Events wait in a bounded buffer and a thread of its own sends them in batches, again and again with the same ids until
the gateway has them. What the gateway refuses, and what is left when the client closes, goes to a callback. `void` and
`replace` correct what was recorded. Make one client for a process, after any fork.
"""

from __future__ import annotations

import atexit
import logging
import random
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

import httpx

from ingest.client_answer import RejectedEvent as RejectedEvent  # noqa: PLC0414 - what a callback is given
from ingest.client_answer import answer_of
from ingest.client_answer import log_rejected as log_rejected  # noqa: PLC0414 - what happens without one
from ingest.event_json import event_json, replacement_data
from ingest.http_client import asked_pause_s, key_header
from metering.clock import Clock, SystemClock
from metering.config import Settings, load_setting
from metering.tls import client_context
from schemas.corrections import REPLACED, VOIDED
from schemas.errors import GatewayUnavailableError, RequestError, UnavailableError

BATCH_EVENTS: Final = 500
BATCH_BYTES_MAX: Final = 2 * 1024 * 1024
BUFFER_EVENTS_MAX: Final = 10_000
BUFFER_BYTES_MAX: Final = 32 * 1024 * 1024
GATHER_S: Final = 0.1
RETRY_PAUSE_S_MAX: Final = 5.0
CLOSE_TIMEOUT_S: Final = 10.0

_SETTLING: Final = frozenset({200, 207, 422})
# Programs that use this have a logging of their own, so it speaks through the standard library.
_log = logging.getLogger(__name__)


class BufferFullError(UnavailableError):
    """The gateway has been away for so long that the buffer is full; the event was not taken."""


class MeteringClient:
    """Records usage events. Thread-safe. `on_rejected` is called from the sending thread."""

    def __init__(
        self,
        url: str,
        *,
        source: str,
        on_rejected: Callable[[RejectedEvent], None] = log_rejected,
        buffer_events_max: int = BUFFER_EVENTS_MAX,
        api_key: str | None = None,
        ca_file: str | None = None,
        clock: Clock | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`source` says who gives the ids. `transport` replaces the network, for tests of programs that use this.

        `api_key` and `ca_file` are METERING_API_KEY and METERING_GATEWAY_CA_FILE, or what those with _FILE at the end
        name, unless given.
        """
        self._url = url.rstrip("/") + "/v1/events"
        self._source = source
        self._on_rejected = on_rejected
        self._buffer_events_max = buffer_events_max
        self._clock = clock or SystemClock()
        key = load_setting("api_key") if api_key is None else api_key
        trusted = load_setting("gateway_ca_file") if ca_file is None else ca_file
        self._http = httpx.Client(
            timeout=httpx.Timeout(30.0, connect=5.0),
            transport=transport,
            headers=key_header(key),
            verify=client_context(Settings(gateway_ca_file=trusted), "gateway_ca_file") if trusted else True,
        )
        self._pause_asked_s = 0.0
        self._changed = threading.Condition()
        self._buffer: deque[bytes] = deque()
        self._buffer_bytes = 0
        self._recorded = 0
        self._settled = 0
        self._hurry = False
        self._closing = False
        self._aborting = False
        self._sender = threading.Thread(target=self._send_until_closed, name="metering-client", daemon=True)
        self._sender.start()
        atexit.register(self._close_at_exit)

    def record(
        self,
        *,
        type: str,  # noqa: A002 - the attribute's name in CloudEvents
        subject: str,
        data: Mapping[str, Any] | None = None,
        id: str | None = None,  # noqa: A002 - as above
        time: datetime | None = None,
    ) -> str:
        """Take one event and return its id; sending happens in the background.

        Give an `id` of your own (an order number, a request id) whenever the same usage might be recorded twice. `time`
        must have a zone. Raises EventRejectedError for an event that could not be billed on, RequestError for data that
        is no JSON, and BufferFullError when there is no room.
        """
        id_ = id or str(uuid.uuid4())
        event = event_json(
            id_=id_, source=self._source, type_=type, subject=subject, time=time or self._clock.now(), data=data or {}
        )
        with self._changed:
            if self._closing:
                raise RequestError("the client is closed", where="MeteringClient", fix="Record before close()")
            if len(self._buffer) >= self._buffer_events_max or (
                self._buffer and self._buffer_bytes + len(event) > BUFFER_BYTES_MAX
            ):
                raise BufferFullError(
                    f"{len(self._buffer)} events wait for the gateway already",
                    where=self._url,
                    fix="Record it again later with the same id, or keep it elsewhere",
                )
            self._buffer.append(event)
            self._buffer_bytes += len(event)
            self._recorded += 1
            self._changed.notify_all()
        return id_

    def void(
        self,
        *,
        subject: str,
        id: str,  # noqa: A002 - as in record
        source: str | None = None,
        correction_id: str | None = None,
    ) -> str:
        """Take an event back, by the id it was recorded with, and return the id of the event that does so.

        `source` is that of this client unless given. Raises as `record` does.
        """
        named = {"source": source or self._source, "id": id}
        return self.record(type=VOIDED, subject=subject, data=named, id=correction_id)

    def replace(
        self,
        *,
        subject: str,
        id: str,  # noqa: A002 - as in record
        type: str,  # noqa: A002 - as in record
        time: datetime,
        data: Mapping[str, Any] | None = None,
        source: str | None = None,
        correction_id: str | None = None,
    ) -> str:
        """Put another type, time and data in the place of an event; else as `void`."""
        named = replacement_data(source=source or self._source, id_=id, type_=type, time=time, data=data or {})
        return self.record(type=REPLACED, subject=subject, data=named, id=correction_id)

    def flush(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Return once everything recorded before is settled. Raises GatewayUnavailableError after `timeout_s`."""
        with self._changed:
            goal = self._recorded
            self._hurry = True
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._settled >= goal, timeout_s):
                raise GatewayUnavailableError(
                    f"{goal - self._settled} events were not delivered within {timeout_s:g} s",
                    where=self._url,
                    fix="They stay in the buffer and are sent again",
                )

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send what is left and end the thread. Closing again does nothing.

        Raises GatewayUnavailableError when events are left after `timeout_s`; each went to `on_rejected` with the
        reason `undelivered`, and may be in already if only the answer was lost: its id makes a repeat safe.
        """
        with self._changed:
            already_closed, self._closing, self._hurry = self._closing, True, True
            self._changed.notify_all()
        if already_closed:
            return
        atexit.unregister(self._close_at_exit)
        self._sender.join(timeout_s)
        if self._sender.is_alive():
            with self._changed:
                self._aborting = True
                self._changed.notify_all()
            self._http.close()
            self._sender.join()
        self._http.close()
        left = list(self._buffer)
        for event in left:
            self._report(event, "undelivered", "", "the client was closed before")
        if left:
            raise GatewayUnavailableError(
                f"{len(left)} events were not delivered", where=self._url, fix="Record them again with the same ids"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send_until_closed(self) -> None:
        pause_s = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._buffer or self._closing)
                if self._aborting or not self._buffer:
                    return
                if not pause_s:
                    self._changed.wait_for(lambda: self._hurry or len(self._buffer) >= BATCH_EVENTS, GATHER_S)
                batch = self._next_batch()
            if self._send(batch):
                pause_s = 0.0
                continue
            pause_s = min(max(pause_s * 2, self._pause_asked_s, 0.1), RETRY_PAUSE_S_MAX)
            with self._changed:
                # Spread out, so that many clients do not come back to a restarted gateway at the same moment.
                self._changed.wait_for(lambda: self._aborting, pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - guards nothing  # nosec B311

    def _next_batch(self) -> list[bytes]:
        """The oldest events; they stay in the buffer until they are settled."""
        batch: list[bytes] = []
        size_bytes = 0
        for event in self._buffer:
            if batch and (len(batch) >= BATCH_EVENTS or size_bytes + len(event) > BATCH_BYTES_MAX):
                break
            batch.append(event)
            size_bytes += len(event)
        return batch

    def _send(self, batch: list[bytes]) -> bool:
        """Send once; True when every event is settled: acknowledged, or refused for good and reported."""
        try:
            response = self._http.post(
                self._url,
                params={"partial": "true"},
                content=b"[" + b",".join(batch) + b"]",
                headers={"Content-Type": "application/cloudevents-batch+json"},
            )
        except (httpx.HTTPError, RuntimeError) as error:
            # httpx raises RuntimeError when close() shuts the connection while a request is on its way.
            _log.warning("%d usage events wait for the gateway: %r", len(batch), error)
            return False
        status = response.status_code
        answer = answer_of(response)
        self._pause_asked_s = asked_pause_s(response) or 0.0
        if status in _SETTLING and answer.accepted + len(answer.errors) == len(batch):
            for one in answer.errors:
                self._report(batch[one.index], one.reason, one.field, one.detail)
        elif status == httpx.codes.REQUEST_ENTITY_TOO_LARGE and len(batch) > 1:
            half = len(batch) // 2
            return self._send(batch[:half]) and self._send(batch[half:])
        elif status == httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            self._report(batch[0], "too_large", "", answer.detail)
        else:
            # A status that settles without counting every event came from something that is no gateway.
            _log.warning("%d usage events wait for the gateway: %d %s", len(batch), status, answer.detail)
            return False
        self._settle(len(batch))
        return True

    def _settle(self, count: int) -> None:
        with self._changed:
            for _ in range(count):
                self._buffer_bytes -= len(self._buffer.popleft())
            self._settled += count
            if not self._buffer:
                self._hurry = self._closing
            self._changed.notify_all()

    def _report(self, event: bytes, reason: str, field: str, detail: str) -> None:
        rejected = RejectedEvent(event=event, reason=reason, field=field, detail=detail)
        try:
            self._on_rejected(rejected)
        except Exception:  # noqa: BLE001 - whatever it is
            # A faulty callback must neither end the thread nor hide the event.
            _log.exception("the callback on_rejected failed")
            log_rejected(rejected)

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except GatewayUnavailableError as error:
            _log.error("usage events were not delivered: %s", error)
