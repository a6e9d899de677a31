"""The Kafka topics, in one place: name, what a record is, and the settings a topic is created with."""

from __future__ import annotations

from typing import Final

import msgspec

USAGE_EVENTS: Final = "usage.events.v1"
DEAD_LETTERS: Final = "usage.dead_letters.v1"
BILLING_LINE_ITEMS: Final = "billing.line_items.v1"
"""Frozen line items, keyed by customer, a record each, with the header `line_item_id`."""

USAGE_ALERTS: Final = "usage.alerts.v1"
"""Alerts, keyed by customer, a CloudEvent each."""

BATCH_BYTES_MAX: Final = 1_048_576
"""Kafka's `max.message.bytes` limits a producer's whole batch, and clients fill batches of up to 1 MB by default."""
RECORD_OVERHEAD_BYTES_MAX: Final = 65_536
"""Key, headers and framing of one record, generously."""


class TopicShape(msgspec.Struct, frozen=True, kw_only=True):
    """How a topic is created. `config` are Kafka's own topic settings."""

    name: str
    partitions: int
    config: dict[str, str]


def topic_shapes(*, partitions: int, retention_ms: int, event_bytes_max: int) -> tuple[TopicShape, ...]:
    """The topics the pipeline needs.

    `cleanup.policy=delete` and no transactions keep offsets dense, which the ledger counts on.
    `LogAppendTime` makes the record's time the broker's, so that "too far in the future" is decided by the log alone.
    A dead letter may be a record of another producer, larger than an event may be.
    """
    batch_bytes_max = max(event_bytes_max, BATCH_BYTES_MAX) + RECORD_OVERHEAD_BYTES_MAX
    common = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}
    return (
        TopicShape(
            name=USAGE_EVENTS,
            partitions=partitions,
            config={**common, "retention.ms": str(retention_ms), "max.message.bytes": str(batch_bytes_max)},
        ),
        TopicShape(
            name=DEAD_LETTERS,
            partitions=1,
            config={**common, "retention.ms": "-1", "max.message.bytes": str(2 * batch_bytes_max)},
        ),
    )


def line_items_topic(*, partitions: int) -> TopicShape:
    """The topic that `metering export --to kafka` writes to, and creates when it is not there.

    It is written in transactions, so its offsets have holes: nothing counts on theirs.
    """
    return TopicShape(
        name=BILLING_LINE_ITEMS,
        partitions=partitions,
        config={"cleanup.policy": "delete", "retention.ms": "-1", "message.timestamp.type": "LogAppendTime"},
    )


def alerts_topic(*, partitions: int) -> TopicShape:
    """The topic that `metering alerts` writes to, and creates when it is not there."""
    return TopicShape(
        name=USAGE_ALERTS,
        partitions=partitions,
        config={"cleanup.policy": "delete", "retention.ms": "-1", "message.timestamp.type": "LogAppendTime"},
    )
