"""The Faust application: one agent that hands every record batch to the pipeline."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import faust
from faust.serializers.schemas import Schema
from faust.types import AppT, StreamT, TransportT
from faust.types.auth import CredentialsT
from faust.types.tuples import Message
from typing_extensions import override

from aggregators.record_batch import RecordBatch
from aggregators.transport import BatchConsumer, TakeOver, transport_class
from metering.config import Settings
from metering.tls import client_context

GROUP_ID: Final = "metering-aggregators"
POLL_RECORDS_MAX: Final = 5_000
FETCH_BYTES_MAX: Final = 4 * 1024 * 1024
BATCHES_BUFFERED_MAX: Final = 8
SESSION_TIMEOUT_S: Final = 10
HEARTBEAT_S: Final = 2
METADATA_AGE_S: Final = 10
"""New partitions are read from this long after they were added; the client's own default is five minutes."""


class _Untouched(Schema[Any, Any]):
    """Hands keys and values over as they came: the transport has put a RecordBatch where Faust expects bytes."""

    @override
    def loads_key(self, app: AppT, message: Message, **_: Any) -> Any:
        return message.key

    @override
    def loads_value(self, app: AppT, message: Message, **_: Any) -> Any:
        return message.value


class AggregatorApp(faust.App):
    """A Faust app on the record-batch transport.

    Nothing of Faust's that touches exactly-once is in use: no tables, no Faust commits, no web server.
    """

    def __init__(
        self, settings: Settings, *, topic: str, take_over: TakeOver, take: Callable[[RecordBatch], Awaitable[None]]
    ) -> None:
        self._transport_class = transport_class(topic, take_over)
        super().__init__(
            GROUP_ID,
            broker=[f"aiokafka://{server}" for server in settings.kafka_bootstrap.split(",")],
            broker_credentials=_credentials(settings),
            broker_max_poll_records=POLL_RECORDS_MAX,
            broker_session_timeout=SESSION_TIMEOUT_S,
            broker_heartbeat_interval=HEARTBEAT_S,
            broker_commit_interval=3600.0,
            consumer_max_fetch_size=FETCH_BYTES_MAX,
            consumer_metadata_max_age_ms=METADATA_AGE_S * 1_000,
            consumer_auto_offset_reset="earliest",
            stream_buffer_maxsize=BATCHES_BUFFERED_MAX,
            stream_wait_empty=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            autodiscover=False,
            store="memory://",
            datadir=Path(tempfile.gettempdir()) / f"{GROUP_ID}-{os.getpid()}",  # Faust wants one; nothing is kept there
        )
        channel = self.topic(topic, schema=_Untouched(), internal=False)

        async def aggregate(batches: StreamT[RecordBatch]) -> None:
            async for batch in batches:
                await take(batch)

        self.agent(channel, name=f"{GROUP_ID}.aggregate", concurrency=1)(aggregate)

    def _new_transport(self) -> TransportT:
        return self._transport_class(self.conf.broker_consumer, self)

    @property
    def batch_consumer(self) -> BatchConsumer:
        """The consumer, as what it is."""
        consumer = self.consumer
        if not isinstance(consumer, BatchConsumer):
            raise TypeError(f"the transport made a {type(consumer).__name__}")
        return consumer


def _credentials(settings: Settings) -> CredentialsT | None:
    protocol = settings.kafka_security_protocol
    context = (
        client_context(settings, "kafka_ca_file", cert_setting="kafka_cert_file", key_setting="kafka_key_file")
        if protocol.endswith("SSL")
        else None
    )
    if protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=settings.kafka_username,
            password=settings.kafka_password,
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None
