"""Which table of the cluster shape is spread over the shards, and by what; the others stand whole on every node.

`docs/decisions/0027-one-source-for-one-node-and-a-cluster.md` says why, table by table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

SHARDED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "events": "cityHash64(subject)",
        "rollups": "cityHash64(subject)",
        "members": "cityHash64(subject)",
        "corrections": "cityHash64(subject)",
        "group_overflows": "cityHash64(subject)",
        "dead_letters": "cityHash64(epoch, partition, offset)",
    }
)
"""Sharding expression of each spread table. Its columns stand in the sorting key: rows that replace each other meet."""

WHOLE: Final = frozenset(
    {
        "alert_deliveries",
        "alerts",
        "api_key_ends",
        "api_key_uses",
        "api_keys",
        "audit_log",
        "catalog_starts",
        "catalog_versions",
        "dead_letter_states",
        "deliveries",
        "delivery_claims",
        "erasure_keys",
        "erasures",
        "line_items",
        "meter_fills",
        "partition_pauses",
        "positions",
        "runs",
        "schema_migrations",
        "subjects",
        "subscription_facts",
    }
)
"""Tables that every node has all rows of."""


def everywhere(cluster: str) -> str:
    """What has a statement run on every node; the settings check that the name needs no more than backticks."""
    return f"ON CLUSTER `{cluster}`"


def local_name(table: str) -> str:
    """The name of a shard's part of a spread table."""
    return f"{table}_local"
