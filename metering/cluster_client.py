"""A connection to a node of a ClickHouse cluster: an insert that is answered is on all replicas that may be asked.

The exactly-once argument stands on it: the ledger is written last, so whoever reads it, on whichever node, must find
all that came before. `docs/decisions/0027-one-source-for-one-node-and-a-cluster.md` argues each setting.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, BinaryIO, Final

import msgspec
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.httpclient import HttpClient
from clickhouse_connect.driver.insert import InsertContext
from clickhouse_connect.driver.summary import QuerySummary

from metering.cluster_tables import SHARDED, WHOLE, everywhere, local_name
from schemas.errors import RequestError, SettingError

_LAYOUT: Final = """
SELECT sum(nodes), count(), min(nodes), max(nodes), min(own)
FROM
(
    SELECT shard_num, count() AS nodes, min(internal_replication) AS own
    FROM system.clusters
    WHERE cluster = {cluster:String}
    GROUP BY shard_num
)
"""
_ENGINE: Final = "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = 'rollups'"


def cluster_settings(timeout_s: float) -> dict[str, int | str]:
    """What every statement on a cluster is sent with, beside the quorum."""
    return {
        # Answered means stored on the shards, not in the queue of the node that was asked.
        "distributed_foreground_insert": 1,
        "insert_quorum_parallel": 1,
        "insert_quorum_timeout": int(timeout_s * 500),
        # Rows go to the shard of their subject, also those that are read on another one.
        "parallel_distributed_insert_select": 0,
        "distributed_product_mode": "global",
        # A shard that is away is an error, never a smaller total.
        "skip_unavailable_shards": 0,
    }


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas each shard of a cluster has, and how many nodes there are in all."""

    replicas: int
    nodes: int

    def quorum(self, table: str) -> int:
        """How many nodes have to have a block of this table before its insert is answered: all that hold the table."""
        return self.nodes if table in WHOLE else self.replicas


class ClusterClient(HttpClient):
    """A client on one node of `cluster`. Asks the cluster how many nodes it has; again after an insert that failed."""

    def __init__(self, cluster: str, **arguments: Any) -> None:
        self.cluster: Final = cluster
        super().__init__(**arguments)
        self._layout: Layout | None = None
        self.layout()

    def layout(self) -> Layout:
        """The cluster as its nodes know it now. Raises SettingError when it is absent, or cannot hold these tables."""
        if self._layout is None:
            self._layout = read_layout(self, self.cluster)
            # For `INSERT … SELECT`, which goes into spread tables.
            self.set_client_setting("insert_quorum", self._layout.replicas)
        return self._layout

    def data_insert(self, context: InsertContext) -> QuerySummary:
        """Insert columns, see Client.insert."""
        context.settings["insert_quorum"] = str(self.layout().quorum(_plain(context.table)))
        try:
            return super().data_insert(context)
        except DatabaseError:
            self._layout = None
            raise

    def raw_insert(  # noqa: PLR0917 - the client's own signature
        self,
        table: str | None = None,
        column_names: Sequence[str] | None = None,
        insert_block: str | bytes | Generator[bytes, None, None] | BinaryIO | None = None,
        settings: dict[str, Any] | None = None,
        fmt: str | None = None,
        compression: str | None = None,
        transport_settings: dict[str, str] | None = None,
    ) -> QuerySummary:
        """Insert bytes of a format, see Client.raw_insert."""
        with_quorum = {"insert_quorum": self.layout().quorum(_plain(table or "")), **(settings or {})}
        try:
            return super().raw_insert(
                table, column_names, insert_block, with_quorum, fmt, compression, transport_settings
            )
        except DatabaseError:
            self._layout = None
            raise


def read_layout(client: Client, cluster: str) -> Layout:
    """How many nodes a cluster has. Raises SettingError when these tables could not be right on it."""
    ((nodes, shards, fewest, most, own),) = client.query(_LAYOUT, {"cluster": cluster}).result_rows
    if not shards:
        raise SettingError(
            f"ClickHouse knows no cluster {cluster!r}",
            where="METERING_CLICKHOUSE_CLUSTER",
            fix="Define it under remote_servers on every node, or name the one that is there: system.clusters",
        )
    if fewest != most:
        raise SettingError(
            f"the shards of cluster {cluster!r} have {fewest} to {most} replicas",
            where="METERING_CLICKHOUSE_CLUSTER",
            fix="Give each shard the same number of replicas: an insert waits for all of them",
        )
    if not own:
        raise SettingError(
            f"cluster {cluster!r} has shards without internal_replication, which would store rows more than once",
            where="METERING_CLICKHOUSE_CLUSTER",
            fix="Set <internal_replication>true</internal_replication> for every shard under remote_servers",
        )
    return Layout(replicas=int(fewest), nodes=int(nodes))


def refuse_other_shape(client: Client, cluster: str) -> None:
    """Raise SettingError when the database's tables are those of one server, and a cluster is set, or the other way.

    Writing to a cluster's tables as if they were one server's would answer before the shards have the rows.
    """
    engines = [row[0] for row in client.query(_ENGINE).result_rows]
    if engines and (engines[0] == "Distributed") != bool(cluster):
        there, said = ("one server", f"is {cluster!r}") if cluster else ("a cluster", "is not set")
        raise SettingError(
            f"the tables of database {client.database} are those of {there}",
            where=f"METERING_CLICKHOUSE_CLUSTER, which {said}",
            fix="Set it as it was when the tables were made, the same for every part; docs/cluster.md says how to move",
        )


def refuse_on_cluster(client: Client, what: str) -> None:
    """Raise RequestError where something is asked for that only one server's tables can do."""
    if isinstance(client, ClusterClient):
        raise RequestError(
            f"{what} cannot be made on a cluster",
            where=f"cluster {client.cluster}",
            fix="docs/cluster.md says what to do instead",
        )


def changed_rows(client: Client, table: str) -> str:
    """What to name in `ALTER TABLE … UPDATE` or `DELETE` so that all rows of a table are meant."""
    if isinstance(client, ClusterClient) and table in SHARDED:
        return f"{local_name(table)} {everywhere(client.cluster)}"
    return table


def delete_where(client: Client, table: str, condition: str, parameters: Mapping[str, Any]) -> None:
    """Delete the rows for which a condition, made of constants and parameters, holds; returns when they are gone."""
    if isinstance(client, ClusterClient):
        # A spread table takes no DELETE, and its shards take it from each other only as an ALTER.
        statement = f"ALTER TABLE {changed_rows(client, table)} DELETE WHERE {condition}"
        client.command(statement, dict(parameters), settings={"mutations_sync": 2})
    else:
        client.command(f"DELETE FROM {table} WHERE {condition}", dict(parameters))  # noqa: S608 - see above


def _plain(table: str) -> str:
    """The name without a database and backticks."""
    return table.rpartition(".")[2].strip("`")
