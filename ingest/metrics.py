"""Every metric of the gateway, in one place: what it means and when to worry."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_EVENTS: Final = (1, 10, 50, 100, 500, 1_000, 5_000, 10_000)


class GatewayMetrics:
    """The gateway's metrics on a registry of their own, so that several gateways can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        # Requests to /v1/events by the status they got. Worry when 5xx grow: Kafka is away or slow.
        self.requests = Counter(
            "metering_gateway_requests_total", "Requests to /v1/events by status", ["status"], registry=self.registry
        )

        # Events that Kafka acknowledged. Worry when it stands still while requests come in.
        self.events_accepted = Counter(
            "metering_gateway_events_accepted_total", "Events acknowledged by Kafka", registry=self.registry
        )

        # Events refused, by reason of docs/events.md. Worry when one reason jumps: a producer changed.
        self.events_rejected = Counter(
            "metering_gateway_events_rejected_total", "Events refused by reason", ["reason"], registry=self.registry
        )

        # Events that Kafka did not acknowledge: `failed` are not in the log, `unknown` may be. Worry at any growth.
        self.events_undelivered = Counter(
            "metering_gateway_events_undelivered_total",
            "Events without an acknowledgement by outcome",
            ["outcome"],
            registry=self.registry,
        )

        # From the whole body read to Kafka's acknowledgement. Worry when it nears kafka_delivery_timeout_s.
        self.acknowledge_seconds = Histogram(
            "metering_gateway_acknowledge_seconds",
            "Seconds from a read request to Kafka's acknowledgement",
            buckets=_SECONDS,
            registry=self.registry,
        )

        # Events in a request. Many requests of one event each cost the most; tell producers to batch.
        self.request_events = Histogram(
            "metering_gateway_request_events", "Events in a request", buckets=_EVENTS, registry=self.registry
        )

        # Events and bytes that wait for Kafka. Worry when they stay near the bound of ingest/producer.py.
        self.queued_events = Gauge(
            "metering_gateway_queued_events", "Events that wait for Kafka", registry=self.registry
        )
        self.queued_bytes = Gauge(
            "metering_gateway_queued_bytes", "Bytes of events that wait for Kafka", registry=self.registry
        )

        # Memory that request bodies take. Worry when it stays near the bound of ingest/body.py: senders are refused.
        self.body_bytes = Gauge(
            "metering_gateway_body_bytes", "Bytes of request bodies held in memory", registry=self.registry
        )

        # 1 while Kafka answers and the topics exist. Worry at 0.
        self.kafka_ready = Gauge(
            "metering_gateway_kafka_ready", "1 while Kafka can be written to", registry=self.registry
        )

        # Version of the catalog that events are checked with; 0 without one. Worry when gateways differ for long.
        self.catalog_version = Gauge(
            "metering_gateway_catalog_version", "Catalog version in use, 0 for none", registry=self.registry
        )

        # Times the API keys could not be read. Growth means that ClickHouse is away; the last keys stay in use for
        # keys_stale_s_max, then requests with a key get 503.
        self.key_failures = Counter(
            "metering_gateway_key_failures_total", "Failed attempts to read the API keys", registry=self.registry
        )

        # Times the catalog could not be read. Growth means that ClickHouse is away; the last catalog stays in use.
        self.catalog_failures = Counter(
            "metering_gateway_catalog_failures_total", "Failed attempts to read the catalog", registry=self.registry
        )
