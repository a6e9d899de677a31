"""Brings the services to the state the code expects: database, tables, views, topics."""

from __future__ import annotations

from metering.clickhouse import connect, ensure_database
from metering.config import Settings
from metering.kafka import ensure_topics
from metering.migrate import migrate


def prepare_services(settings: Settings) -> list[str]:
    """Run what is missing; returns the names of the migrations and topics that were made."""
    ensure_database(settings)
    client = connect(settings)
    try:
        migrations = migrate(client, cluster=settings.clickhouse_cluster)
    finally:
        client.close()
    return [*migrations, *(f"topic {topic}" for topic in ensure_topics(settings))]
