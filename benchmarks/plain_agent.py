"""What one would write first: a Faust agent that takes batches and inserts each at once. No dedupe, no ledger."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any

import faust
import orjson

from metering.clickhouse import connect
from metering.config import load_settings
from schemas.topics import USAGE_EVENTS

BATCH = 1_000
WITHIN_S = 0.5
COLUMNS = ["subject", "id", "time", "region", "bytes"]


def plain_app(group: str) -> faust.App:
    """The agent, in a consumer group of its own; decimals exact like the worker's."""
    settings = load_settings()
    client = connect(settings)
    app = faust.App(
        group,
        broker=f"aiokafka://{settings.kafka_bootstrap}",
        consumer_auto_offset_reset="earliest",
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        autodiscover=False,
        store="memory://",
        datadir=str(settings.data_dir / group),
    )
    topic = app.topic(USAGE_EVENTS, value_serializer="raw", key_serializer="raw")

    @app.agent(topic)
    async def insert(stream: Any) -> None:
        async for values in stream.take(BATCH, within=WITHIN_S):
            rows = []
            for value in values:
                one = orjson.loads(value)
                data = one["data"]
                rows.append((one["subject"], one["id"], one["time"], data["region"], Decimal(str(data["bytes"]))))
            client.insert("plain_events", rows, column_names=COLUMNS)

    return app


if __name__ == "__main__":
    faust.Worker(plain_app(sys.argv[1]), loglevel="ERROR", loop=None).execute_from_commandline()
