"""Runs the numbered migrations of schemas/clickhouse/ that a database has not seen, in order, each once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from importlib import resources
from typing import Final

from clickhouse_connect.driver.client import Client

from metering.cluster_client import refuse_other_shape
from metering.cluster_ddl import cluster_statements
from schemas.errors import InvariantViolationError

_CREATE_HISTORY: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations
(
    name       String COMMENT 'File name of the migration',
    digest     String COMMENT 'SHA-256 of its text, hexadecimal',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was run, UTC'
)
ENGINE = ReplacingMergeTree
ORDER BY name
COMMENT 'Migrations that this database has seen; read with FINAL'
"""


_OF_TABLE: Final = re.compile(r"^(?:CREATE|ALTER) TABLE (?:IF NOT EXISTS )?(?P<table>\w+)$", re.MULTILINE)


def migrations() -> list[tuple[str, str]]:
    """(file name, SQL text) of every migration, in the order of their numbers."""
    folder = resources.files("schemas") / "clickhouse"
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return [(file.name, file.read_text(encoding="utf-8")) for file in sorted(files, key=lambda file: file.name)]


def statements(text: str) -> list[str]:
    """The statements of a migration, which end with a semicolon at the end of a line."""
    parts = (part.strip() for part in f"{text}\n".split(";\n"))
    return [part for part in parts if any(line and not line.startswith("--") for line in part.splitlines())]


def shaped(text: str, *, cluster: str, database: str) -> list[str]:
    """The statements of a migration in the shape of a cluster; without one they are the migration's own."""
    if not cluster:
        return statements(text)
    return [one for each in statements(text) for one in cluster_statements(each, cluster=cluster, database=database)]


def statements_of(tables: Collection[str], *, cluster: str, database: str) -> list[str]:
    """The statements that make these tables on a cluster, and what later migrations changed about them."""
    return [
        one
        for _, text in migrations()
        for each in statements(text)
        if (named := _OF_TABLE.search(each)) and named["table"] in tables
        for one in cluster_statements(each, cluster=cluster, database=database)
    ]


def printed(*, cluster: str, database: str) -> str:
    """All that `migrate` would have run on an empty database, as text that can be read and run."""
    parts = [("the migrations that the database has seen", f"{_CREATE_HISTORY.strip()};\n"), *migrations()]
    return "\n".join(
        f"-- {name}\n" + "".join(f"{one};\n\n" for one in shaped(text, cluster=cluster, database=database))
        for name, text in parts
    )


def migrate(client: Client, *, cluster: str = "") -> list[str]:
    """Bring the client's database up to date; returns the names of the migrations that were run.

    Each statement is `IF NOT EXISTS` or its like, so that two migrators at once, or one that died, do no harm.
    Raises InvariantViolationError when a migration that was run has another text now, SettingError when the tables
    that are there were made for a cluster and none is set, or the other way.
    """
    database = str(client.database)
    refuse_other_shape(client, cluster)
    for statement in shaped(f"{_CREATE_HISTORY};\n", cluster=cluster, database=database):
        client.command(statement)
    seen: dict[str, str] = dict(client.query("SELECT name, digest FROM schema_migrations FINAL").result_rows)  # type: ignore[arg-type]
    done: list[str] = []
    for name, text in migrations():
        digest = hashlib.sha256(text.encode()).hexdigest()
        if name in seen:
            if seen[name] != digest:
                raise InvariantViolationError(
                    f"migration {name} was changed after it was run",
                    where=database,
                    fix="Restore its text and put the change into a new migration",
                )
            continue
        for statement in shaped(text, cluster=cluster, database=database):
            client.command(statement)
        client.insert("schema_migrations", [(name, digest)], column_names=["name", "digest"])
        done.append(name)
    return done
