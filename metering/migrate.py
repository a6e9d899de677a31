"""Runs the numbered migrations of schemas/clickhouse/ that a database has not seen, in order, each once."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final

from clickhouse_connect.driver.client import Client

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


_RECORD: Final = "INSERT INTO schema_migrations (name, digest) SELECT {name:String}, {digest:String}"


def migrations() -> list[tuple[str, str]]:
    """(file name, SQL text) of every migration, in the order of their numbers."""
    folder = resources.files("schemas") / "clickhouse"
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return [(file.name, file.read_text(encoding="utf-8")) for file in sorted(files, key=lambda file: file.name)]


def statements(text: str) -> list[str]:
    """The statements of a migration, which end with a semicolon at the end of a line."""
    parts = (part.strip() for part in f"{text}\n".split(";\n"))
    return [part for part in parts if any(line and not line.startswith("--") for line in part.splitlines())]


def migrate(client: Client) -> list[str]:
    """Bring the client's database up to date; returns the names of the migrations that were run.

    Each statement is `IF NOT EXISTS` or its like, so that two migrators at once, or one that died, do no harm.
    Raises InvariantViolationError when a migration that was run has another text now.
    """
    client.command(_CREATE_HISTORY)
    seen: dict[str, str] = dict(client.query("SELECT name, digest FROM schema_migrations FINAL").result_rows)  # type: ignore[arg-type]
    done: list[str] = []
    for name, text in migrations():
        digest = hashlib.sha256(text.encode()).hexdigest()
        if name in seen:
            if seen[name] != digest:
                raise InvariantViolationError(
                    f"migration {name} was changed after it was run",
                    where=str(client.database),
                    fix="Restore its text and put the change into a new migration",
                )
            continue
        for statement in statements(text):
            client.command(statement)
        # A statement, not the client's insert, which asks for the table's columns first and takes twice as long.
        client.command(_RECORD, {"name": name, "digest": digest})
        done.append(name)
    return done
