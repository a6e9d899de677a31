"""The rows that an erasure writes: what it finds under somebody's name, again under a pseudonym.

Rows go from a table through this process and back in blocks, so that memory has a bound; a copy that is written twice
replaces itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from aggregators import arrays, store
from aggregators.erase_rows import STATE_KEYS, SUBJECT_TABLES
from metering import catalog_store
from schemas.catalog import from_document
from schemas.erasure import PSEUDONYM_PREFIX, Erasures, Receipts
from schemas.meter import MeterVersion
from schemas.usage_event import event_digest

Connect = Callable[[], Client]

_ONCE_MORE: Final = {"insert_deduplicate": 0}
"""A block may be one that stood there before and was deleted, and must not be taken for a repeat."""


def subjects_found(client: Client, erasures: Erasures) -> list[str]:
    """Every subject that stands somewhere under its own name and is to stand under a pseudonym."""
    found: set[str] = set()
    for table in SUBJECT_TABLES:
        rows = client.query(
            f"SELECT DISTINCT subject FROM {table} WHERE NOT startsWith(subject, {{prefix:String}})",  # noqa: S608 - a constant
            {"prefix": PSEUDONYM_PREFIX},
        ).result_rows
        found.update(row[0] for row in rows)
    for said in ("key", "JSONExtractString(raw, 'subject')"):
        keys = client.query(
            f"SELECT DISTINCT {said} FROM dead_letters WHERE {said} != ''",  # noqa: S608 - constants
            query_formats={"String": "bytes"},
        ).result_rows
        found.update(row[0].decode("utf-8", "replace") for row in keys)
    for one in catalog_store.history(client):
        customers = catalog_store.load(client, one.version).catalog.customers
        found.update(subject for customer in customers for subject in customer.subjects)
    return sorted(one for one in found if not one.startswith(PSEUDONYM_PREFIX) and erasures.of(one) is not None)


def copy_events(client: Client, connect: Connect, names: Sequence[str], receipts: Receipts) -> None:
    """Write a receipt for every event of these subjects."""

    def renamed(rows: pa.Table) -> pa.Table:
        made = [receipts.receipt(raw.encode()) for raw in _texts(rows, "raw")]
        changed = _names(rows, receipts, {"subject": "subject", "source": "source", "id": "id"})
        changed = _set(changed, "raw", pa.array(made, pa.binary()))
        return _set(changed, "receipt_digest", arrays.digests([event_digest(one) for one in made]))

    _copy(client, connect, "events", names, renamed)


def copy_corrections(client: Client, connect: Connect, names: Sequence[str], receipts: Receipts) -> None:
    """Write the rows of `corrections` with the pseudonyms that the receipts have."""
    kinds = {"subject": "subject", "source": "source", "id": "id", "correction_source": "source", "correction_id": "id"}
    _copy(client, connect, "corrections", names, lambda rows: _names(rows, receipts, kinds))


def copy_members(
    client: Client, connect: Connect, names: Sequence[str], receipts: Receipts, versions: Sequence[MeterVersion]
) -> None:
    """Write the rows of `members`, each member as the receipts of its events have it."""
    by_key = {(one.meter.name, one.version): one for one in versions}

    def renamed(rows: pa.Table) -> pa.Table:
        keys = zip(_texts(rows, "meter"), rows["meter_version"].to_pylist(), strict=True)
        members = [
            receipts.member(by_key[key], member) if key in by_key else receipts.name("member", member)
            for key, member in zip(keys, _texts(rows, "member"), strict=True)
        ]
        changed = _names(rows, receipts, {"subject": "subject"})
        return _set(changed, "member", pa.array(members, pa.string()))

    _copy(client, connect, "members", names, renamed)


def copy_rollups(client: Client, pseudonyms: Mapping[str, str]) -> None:
    """Write the states of these subjects, and which values their days keep, under their pseudonyms.

    What stands under a pseudonym already is as new or newer: only a worker that was cut off writes the old name again.
    """
    for table, key in STATE_KEYS.items():
        client.command(
            f"INSERT INTO {table} SELECT * FROM (SELECT * REPLACE("  # noqa: S608 - constants
            "transform(subject, {names:Array(String)}, {pseudonyms:Array(String)}, subject) AS subject) "
            f"FROM (SELECT * FROM {table} FINAL WHERE subject IN {{names:Array(String)}})) "
            f"WHERE (subject, {key}) NOT IN (SELECT subject, {key} FROM {table} "
            "WHERE subject IN {pseudonyms:Array(String)})",
            {"names": list(pseudonyms), "pseudonyms": list(pseudonyms.values())},
            settings=_ONCE_MORE,
        )


def rewrite_catalog(client: Client, version: int, text: str) -> None:
    """Put another document in the place of a catalog version's, at one stroke.

    By way of a scratch table, because a document is longer than a parameter may be.
    """
    name = f"{client.database}_erase_{uuid.uuid4().hex[:12]}"
    digest = from_document(version, text.encode()).digest
    client.command("CREATE DATABASE {name:Identifier}", {"name": name})
    try:
        client.command(
            "CREATE TABLE {name:Identifier}.documents (document String) ENGINE = MergeTree ORDER BY tuple()",
            {"name": name},
        )
        client.insert("documents", [[text]], column_names=["document"], database=name)
        client.command(
            f"ALTER TABLE catalog_versions UPDATE document = (SELECT document FROM `{name}`.documents LIMIT 1), "  # noqa: S608 - a name of ours
            "digest = {digest:String} WHERE version = {version:UInt32}",
            {"digest": digest, "version": version},
            settings={"mutations_sync": 2},
        )
    finally:
        client.command("DROP DATABASE {name:Identifier}", {"name": name})


def _copy(
    client: Client, connect: Connect, table: str, names: Sequence[str], renamed: Callable[[pa.Table], pa.Table]
) -> None:
    reader = connect()
    try:
        with reader.query_arrow_stream(
            f"SELECT * FROM {table} FINAL WHERE subject IN {{names:Array(String)}}",  # noqa: S608 - a constant of ours
            {"names": list(names)},
            settings={
                "output_format_arrow_string_as_string": 1,
                "output_format_arrow_low_cardinality_as_dictionary": 0,
            },
        ) as blocks:
            for block in blocks:
                rows = block if isinstance(block, pa.Table) else pa.Table.from_batches([block])
                store.insert(client, table, renamed(rows), settings=_ONCE_MORE)
    finally:
        reader.close()


def _names(rows: pa.Table, receipts: Receipts, kinds: Mapping[str, str]) -> pa.Table:
    for column, kind in kinds.items():
        known: dict[str, str] = {}
        texts = [known.get(one) or known.setdefault(one, receipts.name(kind, one)) for one in _texts(rows, column)]
        rows = _set(rows, column, pa.array(texts, pa.string()))
    return rows


def _texts(rows: pa.Table, column: str) -> list[str]:
    found: list[Any] = rows[column].to_pylist()
    return [one.decode() if isinstance(one, bytes) else one for one in found]


def _set(rows: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(column), column, values)
