"""The tables that a rebuild works in and mends: empty copies in a database of their own, and wrong rows taken out."""

# ruff: noqa: S608 - statements are made of constants, and values are parameters
from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from metering.cluster_client import ClusterClient, delete_where
from metering.cluster_tables import everywhere
from metering.migrate import statements_of

ROWS_AT_A_TIME: Final = 1_000
"""How many rows one statement takes out on a cluster: their hashes have to fit into a parameter."""


@contextmanager
def scratch_tables(live: Client, connect: Callable[[str], Client], tables: Sequence[str]) -> Iterator[Client]:
    """A client on a database with empty copies of the tables, dropped at the end."""
    name = f"{live.database}_rebuild_{uuid.uuid4().hex[:12]}"
    on_cluster = f" {everywhere(live.cluster)}" if isinstance(live, ClusterClient) else ""
    live.command(f"CREATE DATABASE {{name:Identifier}}{on_cluster}", {"name": name})
    try:
        client = connect(name)
        try:
            if isinstance(live, ClusterClient):
                # A copy of a spread table would be spread over the parts of the live one.
                for statement in statements_of(tables, cluster=live.cluster, database=name):
                    client.command(statement)
            else:
                for table in tables:
                    # The name after AS cannot be a parameter.
                    live.command(f"CREATE TABLE {{scratch:Identifier}}.{table} AS {table}", {"scratch": name})
            yield client
        finally:
            client.close()
    finally:
        live.command(f"DROP DATABASE {{name:Identifier}}{on_cluster}", {"name": name})


def take_out(live: Client, table: str, *, key: str, within: str, wrong: str, parameters: Mapping[str, Any]) -> None:
    """Delete the rows within `within` whose key is among those that the query `wrong` gives.

    On a cluster each replica deletes by itself, where a question over other tables could get another answer: there the
    question is asked first, and rows are named by the hash of their key.
    """
    if not isinstance(live, ClusterClient):
        delete_where(live, table, f"{within} AND ({key}) IN ({wrong})", parameters)
        return
    hashed = f"hex(sipHash128({key}))"
    found = [row[0] for row in live.query(f"SELECT DISTINCT {hashed} FROM ({wrong})", dict(parameters)).result_rows]
    for first in range(0, len(found), ROWS_AT_A_TIME):
        some = {**parameters, "wrong": found[first : first + ROWS_AT_A_TIME]}
        delete_where(live, table, f"{within} AND {hashed} IN {{wrong:Array(String)}}", some)
