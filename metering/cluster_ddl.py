"""Turns a migration's statement into the statements of the cluster shape. Pure.

The migrations are this project's own text and have few forms. A statement of another form is refused, so that none
reaches a cluster as a table that is on one node alone.
"""

from __future__ import annotations

import re
from typing import Final

from metering.cluster_tables import SHARDED, WHOLE, everywhere, local_name
from schemas.errors import InvariantViolationError

TOKENS_KEPT_S: Final = 315_360_000
"""How long a replicated table remembers insert tokens: ten years, as a claim is for good. Their number has a limit."""

_CREATE_TABLE: Final = re.compile(
    r"CREATE TABLE IF NOT EXISTS (?P<table>\w+)\n"
    r"(?P<columns>\(\n.*\n\))\n"
    r"ENGINE = (?P<kind>|Replacing|Aggregating)MergeTree(?:\((?P<version>\w+)\))?\n"
    r"(?P<order>(?:PARTITION BY [^\n]+\n)?ORDER BY [^\n]+\n)"
    r"(?:SETTINGS non_replicated_deduplication_window = (?P<tokens>\d+)\n)?"
    r"COMMENT (?P<comment>'(?:[^']|'')*')",
    re.DOTALL,
)
_CREATE_VIEW: Final = re.compile(
    r"(?P<create>CREATE (?:OR REPLACE VIEW|VIEW IF NOT EXISTS) \w+)\n(?P<rest>\(.*)", re.DOTALL
)
_ALTER: Final = re.compile(r"ALTER TABLE (?P<table>\w+)\n(?P<actions>.*)", re.DOTALL)
_OF_ROWS: Final = ("ADD INDEX IF NOT EXISTS ", "MODIFY ORDER BY ")
"""Actions on how rows are stored: of a spread table they are its shards' business."""
_OF_COLUMNS: Final = ("ADD COLUMN IF NOT EXISTS ", "COMMENT COLUMN ")

_ON_ALL_REPLICAS: Final = "\nSETTINGS alter_sync = 2"
"""The next statement may be a view of the new column, and go to a replica that would not have it yet."""

_TEXT: Final = r"'(?:[^'\\]|\\.|'')*'"
_TEXT_OR_SIGN: Final = re.compile(rf"{_TEXT}|.", re.DOTALL)
_SUBQUERY_IN: Final = re.compile(rf"{_TEXT}|--[^\n]*|(?P<word>\b(?:NOT )?IN\b)(?=\s*\(\s*SELECT\b)", re.DOTALL)


def cluster_statements(statement: str, *, cluster: str, database: str) -> list[str]:
    """What a statement of a migration is on a cluster, in the order to run it.

    `cluster` and `database` come from the settings, which check that they are names. Raises InvariantViolationError
    when the statement has a form, or names a table, that is not known here.
    """
    said = [line for line in statement.strip().splitlines() if not line.startswith("--")]
    text = "\n".join(said)
    on_cluster = everywhere(cluster)
    if made := _CREATE_TABLE.fullmatch(text):
        return _tables(made, on_cluster, cluster, database)
    if viewed := _CREATE_VIEW.fullmatch(text):
        return [f"{viewed['create']} {on_cluster}\n{_asked_once(viewed['rest'])}"]
    if changed := _ALTER.fullmatch(text):
        return _alters(changed["table"], _actions(changed["actions"]), on_cluster)
    raise _unknown(f"statement {said[0]!r}" if said else "an empty statement")


def _tables(made: re.Match[str], on_cluster: str, cluster: str, database: str) -> list[str]:
    table = made["table"]
    if table in WHOLE:
        return [_replicated(made, table, f"/clickhouse/tables/all/{database}/{table}", "{shard}-{replica}", on_cluster)]
    key = SHARDED.get(table)
    if key is None:
        raise _unknown(f"table {table}")
    local = local_name(table)
    return [
        _replicated(made, local, f"/clickhouse/tables/{{shard}}/{database}/{local}", "{replica}", on_cluster),
        "\n".join(
            (
                f"CREATE TABLE IF NOT EXISTS {table} {on_cluster} AS {local}",
                f"ENGINE = Distributed(`{cluster}`, `{database}`, {local}, {key})",
                f"COMMENT {made['comment']}",
            )
        ),
    ]


def _replicated(made: re.Match[str], name: str, path: str, replica: str, on_cluster: str) -> str:
    version = f", {made['version']}" if made["version"] else ""
    tokens = f"replicated_deduplication_window = {made['tokens'] or 0}"
    if made["tokens"]:
        tokens += f", replicated_deduplication_window_seconds = {TOKENS_KEPT_S}"
    return (
        f"CREATE TABLE IF NOT EXISTS {name} {on_cluster}\n{made['columns']}\n"
        f"ENGINE = Replicated{made['kind']}MergeTree('{path}', '{replica}'{version})\n"
        f"{made['order']}SETTINGS {tokens}\nCOMMENT {made['comment']}"
    )


def _alters(table: str, actions: list[str], on_cluster: str) -> list[str]:
    for action in actions:
        if not action.startswith((*_OF_COLUMNS, *_OF_ROWS)):
            raise _unknown(f"ALTER TABLE {table} {action[:40]!r}")
    if table in WHOLE:
        return [_alter(table, actions, on_cluster) + _ON_ALL_REPLICAS]
    if table not in SHARDED:
        raise _unknown(f"table {table}")
    seen = [action for action in actions if action.startswith(_OF_COLUMNS)]
    # The shards first: a column that the spread table names and a shard has not would fail every question until then.
    statements = [_alter(local_name(table), actions, on_cluster) + _ON_ALL_REPLICAS]
    return [*statements, _alter(table, seen, on_cluster)] if seen else statements


def _alter(table: str, actions: list[str], on_cluster: str) -> str:
    return f"ALTER TABLE {table} {on_cluster}\n    " + ",\n    ".join(actions)


def _actions(text: str) -> list[str]:
    """The actions of an ALTER, which commas part that stand in no text and in no brackets."""
    actions, depth = [""], 0
    for one in _TEXT_OR_SIGN.findall(text):
        depth += (one == "(") - (one == ")")
        if one == "," and depth == 0:
            actions.append("")
        else:
            actions[-1] += one
    return [action.strip() for action in actions]


def _asked_once(text: str) -> str:
    """A view's text in which the node that is asked answers a subquery of IN, from all shards, and not each its own."""
    return _SUBQUERY_IN.sub(lambda found: f"GLOBAL {found['word']}" if found["word"] else found[0], text)


def _unknown(what: str) -> InvariantViolationError:
    return InvariantViolationError(
        f"{what} has no cluster shape",
        where="metering/cluster_ddl.py",
        fix="Say in metering/cluster_tables.py and metering/cluster_ddl.py what it is on a cluster",
    )
