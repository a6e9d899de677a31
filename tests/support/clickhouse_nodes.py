"""A cluster of two shards on this machine: two real ClickHouse engines that ask each other over their own protocol.

What it is not: the engine library has no Keeper and no queue of `ON CLUSTER` statements, and its nodes fetch no parts
from each other. So the test's client runs such a statement on every node itself, tables that would be replicated are
plain ones, and a row of a table that stands whole on every node is handed on by the node that took it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import clickhouse_connect
import msgspec
from clickhouse_connect.driver.client import Client

from metering.cluster_client import ClusterClient
from metering.cluster_tables import WHOLE
from metering.config import Settings
from metering.embedded.clickhouse import server_answers
from metering.embedded.ports import HOST, free_ports
from metering.embedded.process import GuardedProcess, python_env

CLUSTER = "two_shards"
START_TIMEOUT_S = 120.0
PATIENT = {"connect_timeout_with_failover_ms": 60_000, "handshake_timeout_ms": 60_000, "use_hedged_requests": 0}
"""A busy machine is no node that is away."""

_NODE = """<clickhouse>
    <logger><level>none</level></logger>
    <listen_host>127.0.0.1</listen_host>
    <tcp_port>{tcp}</tcp_port>
    <http_port>{http}</http_port>
    <macros><shard>{shard}</shard><replica>a</replica></macros>
    <remote_servers><{cluster}>{shards}</{cluster}></remote_servers>
</clickhouse>
"""
_SHARD = """<shard><internal_replication>true</internal_replication>
    <replica><host>127.0.0.1</host><port>{tcp}</port></replica></shard>"""


class Nodes(msgspec.Struct, frozen=True, kw_only=True):
    """The HTTP and the native port of each node, and its process."""

    http: tuple[int, ...]
    tcp: tuple[int, ...]
    processes: tuple[GuardedProcess, ...]

    def settings(self, database: str, node: int = 0) -> Settings:
        """Settings of a part that is connected to one of the nodes."""
        return Settings(
            clickhouse_url=f"http://{HOST}:{self.http[node]}",
            clickhouse_cluster=CLUSTER,
            clickhouse_database=database,
        )

    @contextmanager
    def away(self, node: int) -> Iterator[None]:
        """One node is dead for the length of the block, and has its rows again after it."""
        process = self.processes[node]
        process.kill()
        try:
            yield
        finally:
            process.start()
            process.wait_until(lambda: server_answers(self.http[node]), START_TIMEOUT_S)

    def plain_client(self, database: str, node: int = 0) -> Client:
        """A client as an analyst's tool makes one: without any setting of ours."""
        return clickhouse_connect.get_client(
            host=HOST,
            port=self.http[node],
            database=database,
            autogenerate_session_id=False,
            tz_mode="aware",
            settings=PATIENT,
        )


@contextmanager
def two_shards(folder: Path) -> Iterator[Nodes]:
    """Two nodes, each a shard, for the length of the block."""
    ports = free_ports(4)
    https, tcps = ports[:2], ports[2:]
    shards = "".join(_SHARD.format(tcp=tcp) for tcp in tcps)
    processes: list[GuardedProcess] = []
    try:
        for number, (http, tcp) in enumerate(zip(https, tcps, strict=True)):
            home = folder / f"node-{number}"
            home.mkdir(parents=True)
            config = _NODE.format(tcp=tcp, http=http, shard=number, cluster=CLUSTER, shards=shards)
            (home / "config.xml").write_text(config)
            argv = [sys.executable, "-m", "tests.support.clickhouse_node", str(home)]
            process = GuardedProcess(f"node-{number}", argv, log_path=home / "node.log", env=python_env(), grace_s=0.1)
            process.start()
            processes.append(process)
        for process, http in zip(processes, https, strict=True):
            process.wait_until(partial(server_answers, http), START_TIMEOUT_S)
        yield Nodes(http=tuple(https), tcp=tuple(tcps), processes=tuple(processes))
    finally:
        for process in processes:
            process.kill()


def client_class(nodes: Nodes) -> type[ClusterClient]:
    """The product's client, with a stand-in for what these nodes lack: it runs `ON CLUSTER` statements on each."""
    each = [nodes.plain_client("default", node) for node in range(len(nodes.http))]

    class OnEveryNode(ClusterClient):
        def __init__(self, cluster: str, **arguments: Any) -> None:
            super().__init__(cluster, **{**arguments, "settings": {**arguments["settings"], **PATIENT}})

        def command(self, cmd: str, parameters: Any = None, *rest: Any, **named: Any) -> Any:
            if " ON CLUSTER " not in cmd:
                return super().command(cmd, parameters, *rest, **named)
            for one in each:
                one.database = self.database
                one.command(on_one_node(cmd), parameters, use_database="CREATE DATABASE" not in cmd, **named)
            return ""

    return OnEveryNode


def on_one_node(statement: str) -> str:
    """What a statement of the cluster shape is on a node that replicates nothing."""
    text = re.sub(r" ON CLUSTER (?:`\w+`|\{cluster:Identifier\})", "", statement)
    text = re.sub(r"Replicated(\w*)MergeTree\('[^']*', '[^']*'(?:, (\w+))?\)", r"\1MergeTree(\2)", text)
    text = re.sub(
        r"replicated_deduplication_window = (\d+)(?:, replicated_deduplication_window_seconds = \d+)?",
        r"non_replicated_deduplication_window = \1",
        text,
    )
    return text.replace("MergeTree()", "MergeTree")


def hand_on(nodes: Nodes, database: str) -> None:
    """Have the first node hand on to the other what is inserted into a table that stands whole on every node."""
    client = nodes.plain_client(database)
    for table in sorted(WHOLE - {"schema_migrations"}):
        client.command(f"CREATE TABLE {table}_there AS remote('127.0.0.1:{nodes.tcp[1]}', {database}, {table})")
        handing = f"CREATE MATERIALIZED VIEW {table}_on TO {table}_there AS SELECT * FROM {table}"  # noqa: S608 - constants
        client.command(handing)
    client.close()
