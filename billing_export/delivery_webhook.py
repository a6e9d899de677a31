"""Lines by HTTP POST, signed, to a receiver of your own.

The signature is HMAC-SHA256 over `TIMESTAMP.BODY`, in the header `Metering-Signature: t=TIMESTAMP,v1=HEX`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
import orjson

from billing_export.delivery import Answer, Delivery, Outcome, Sending, shortened
from billing_export.delivery_retry import NotNowError, RetryPolicy, is_not_now, retry_after_s, with_retries
from metering.clock import Clock
from schemas.errors import RequestError
from schemas.line_item import LineItem, encode_line_item

SIGNATURE_HEADER: Final = "Metering-Signature"
KEY_HEADER: Final = "Idempotency-Key"
SECRET_CHARACTERS_MIN: Final = 16


class WebhookOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where to, and with what secret. `lines_max` lines go in one request."""

    url: str
    secret: str
    lines_max: int = 1
    name: str = "webhook"


def check_webhook(options: WebhookOptions) -> None:
    """Raises RequestError for options that nothing can be sent with."""
    parts = urlsplit(options.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RequestError(
            "needs a http or https address", where="METERING_WEBHOOK_URL", fix="Set it to where lines are to be posted"
        )
    if len(options.secret) < SECRET_CHARACTERS_MIN:
        raise RequestError(
            f"needs {SECRET_CHARACTERS_MIN} characters or more",
            where="METERING_WEBHOOK_SECRET",
            fix="Set it to the secret that the receiver checks signatures with",
        )


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """The value of the signature header for a body that leaves at `timestamp`, Unix seconds."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


class Webhook:
    """Posts lines. A receiver knows a repeat by the header `Idempotency-Key`, which is the body's `key` as well."""

    group_max = 100

    def __init__(self, options: WebhookOptions, *, clock: Clock, policy: RetryPolicy) -> None:
        check_webhook(options)
        self._options = options
        self._clock = clock
        self._policy = policy
        self._client = httpx.Client(timeout=policy.timeout_s, follow_redirects=False)

    @property
    def name(self) -> str:
        return self._options.name

    def deliveries(self, items: Iterable[LineItem]) -> Iterator[Delivery]:
        """Every line, `lines_max` at a time. The key of one line is its id; of several, a hash of theirs."""
        source = iter(items)
        while part := tuple(islice(source, self._options.lines_max)):
            ids = "".join(item.id for item in part)
            key = part[0].id if self._options.lines_max == 1 else hashlib.sha256(ids.encode()).hexdigest()
            yield Delivery(key=key, items=part)

    def preview(self, delivery: Delivery) -> dict[str, object]:
        document: dict[str, object] = orjson.loads(webhook_body(delivery))
        return document

    def mark(self) -> str:
        return ""

    def send(self, sendings: Sequence[Sending]) -> Iterator[tuple[Sending, Answer]]:
        for sending in sendings:
            yield (
                sending,
                with_retries(
                    lambda one=sending: self._post(one),  # type: ignore[misc]
                    self._policy,
                    where=urlsplit(self._options.url).netloc,  # a path may hold a token
                ),
            )

    def close(self) -> None:
        self._client.close()

    def _post(self, sending: Sending) -> Answer:
        body = webhook_body(sending.delivery)
        headers = {
            "Content-Type": "application/json",
            KEY_HEADER: sending.delivery.key,
            # Signed anew for each attempt, so that a receiver may refuse signatures that are old.
            SIGNATURE_HEADER: signature(self._options.secret, int(self._clock.now().timestamp()), body),
        }
        try:
            response = self._client.post(self._options.url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise NotNowError(f"no answer ({type(error).__name__})") from error
        if is_not_now(response.status_code):
            raise NotNowError(
                f"answered {response.status_code}", pause_s=retry_after_s(response.headers.get("Retry-After"))
            )
        text = shortened(response.text, self._options.secret)
        status = str(response.status_code)
        if response.is_success:
            return Answer(outcome=Outcome.ACCEPTED, status=status, text=text, foreign_id=_id_in(response))
        refuses_all = response.status_code in (401, 403)
        stop = f"the receiver answered {status}: it does not take our signature" if refuses_all else ""
        return Answer(outcome=Outcome.FAILED, status=status, text=text, stop=stop)


def webhook_body(delivery: Delivery) -> bytes:
    """What is posted: the key, and the lines as their canonical documents."""
    lines = b",".join(encode_line_item(item) for item in delivery.items)
    return b'{"key":"%s","run":%s,"lines":[%s]}' % (
        delivery.key.encode(),
        orjson.dumps(delivery.items[0].run),
        lines,
    )


def _id_in(response: httpx.Response) -> str:
    """The `id` of a JSON answer, if it has one."""
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return ""
    found = document.get("id") if isinstance(document, dict) else None
    return found if isinstance(found, str) else ""
