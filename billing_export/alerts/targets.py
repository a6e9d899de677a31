"""Where alerts go: a signed webhook, and the Kafka topic usage.alerts.v1. Each may get one twice, with the same id."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from billing_export.alerts.message import message
from billing_export.alerts.store import Fired, Outcome
from billing_export.delivery import shortened
from billing_export.delivery_retry import is_not_now
from billing_export.delivery_webhook import (
    KEY_HEADER,
    SECRET_CHARACTERS_MIN,
    SIGNATURE_HEADER,
    signature,
)
from metering.clock import Clock
from metering.config import Settings
from metering.kafka import client_config, ensure_topics
from schemas.errors import KafkaUnavailableError, SettingError, UnavailableError
from schemas.topics import USAGE_ALERTS, alerts_topic

FLUSH_TIMEOUT_S: Final = 10.0


class Target(Protocol):
    """Takes alerts. `group_max` is how many it is handed at a time."""

    name: str
    group_max: int

    def send(self, fired: Sequence[Fired]) -> list[Outcome]:
        """What became of those that it answered for good. Raises UnavailableError when it answers nothing now."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class WebhookTarget:
    """Posts each alert, signed as exports are: a receiver checks both in the same way."""

    name = "webhook"
    group_max = 1

    def __init__(self, settings: Settings, clock: Clock) -> None:
        parts = urlsplit(settings.alerts_webhook_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingError(
                "needs a http or https address", where="METERING_ALERTS_WEBHOOK_URL", fix="Or leave it empty"
            )
        if len(settings.alerts_webhook_secret) < SECRET_CHARACTERS_MIN:
            raise SettingError(
                f"needs {SECRET_CHARACTERS_MIN} characters or more",
                where="METERING_ALERTS_WEBHOOK_SECRET",
                fix="Set it to the secret that the receiver checks signatures with",
            )
        self._url = settings.alerts_webhook_url
        self._secret = settings.alerts_webhook_secret
        self._clock = clock
        self._client = httpx.Client(timeout=settings.delivery_timeout_s, follow_redirects=False)

    def send(self, fired: Sequence[Fired]) -> list[Outcome]:
        return [self._post(one) for one in fired]

    def close(self) -> None:
        self._client.close()

    def _post(self, one: Fired) -> Outcome:
        body = message(one)
        headers = {
            "Content-Type": "application/cloudevents+json",
            KEY_HEADER: one.alert.id,
            SIGNATURE_HEADER: signature(self._secret, int(self._clock.now().timestamp()), body),
        }
        where = urlsplit(self._url).netloc  # a path may hold a token
        try:
            response = self._client.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise UnavailableError(f"no answer ({type(error).__name__})", where=where) from error
        # A receiver that does not take our signature will once the secret is right; the alert is not to be lost.
        if is_not_now(response.status_code) or response.status_code in (401, 403):
            raise UnavailableError(f"answered {response.status_code}", where=where)
        state = "accepted" if response.is_success else "failed"
        text = shortened(response.text, self._secret)
        return Outcome(id=one.alert.id, state=state, status=str(response.status_code), answer=text)


class TopicTarget:
    """Writes each alert to the topic, keyed by its customer."""

    name = "kafka"
    group_max = 500

    def __init__(self, settings: Settings, *, topic: str = USAGE_ALERTS) -> None:
        self._settings = settings
        self._topic = topic
        self._producer: Producer | None = None

    def send(self, fired: Sequence[Fired]) -> list[Outcome]:
        written: dict[str, str] = {}

        def note(name: str, error: KafkaError | None, record: Message) -> None:
            if error is None:
                written[name] = f"{record.partition()}/{record.offset()}"

        try:
            producer = self._ready()
            for one in fired:
                name = one.alert.id
                producer.produce(
                    self._topic,
                    key=one.alert.customer,
                    value=message(one),
                    headers=[("content-type", b"application/cloudevents+json; charset=UTF-8")],
                    on_delivery=partial(note, name),
                )
            producer.flush(FLUSH_TIMEOUT_S)
        except (KafkaException, BufferError) as error:
            raise self._away(str(error)) from error
        if not written:
            raise self._away("nothing was acknowledged")
        return [
            Outcome(id=name, state="accepted", status="acknowledged", answer=place) for name, place in written.items()
        ]

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def _ready(self) -> Producer:
        if self._producer is None:
            shape = alerts_topic(partitions=self._settings.kafka_partitions)
            ensure_topics(self._settings, [msgspec.structs.replace(shape, name=self._topic)])
            self._producer = Producer(
                {
                    **client_config(self._settings),
                    "enable.idempotence": True,
                    "acks": "all",
                    "partitioner": "murmur2_random",
                    "delivery.timeout.ms": int(FLUSH_TIMEOUT_S * 1000),
                }
            )
        return self._producer

    def _away(self, what: str) -> KafkaUnavailableError:
        # What an old producer still holds goes out in the end, or fails: both are as good as a repeat.
        self.close()
        return KafkaUnavailableError(what, where=f"{self._settings.kafka_bootstrap}, topic {self._topic}")


def targets_of(settings: Settings, clock: Clock) -> list[Target]:
    """The topic, and the webhook when there is an address for it. Raises SettingError for one that cannot be used."""
    hooks: list[Target] = [WebhookTarget(settings, clock)] if settings.alerts_webhook_url else []
    return [TopicTarget(settings), *hooks]
