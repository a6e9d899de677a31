"""Keeps the catalog's versions in ClickHouse: append-only, each number claimed by one of any simultaneous applies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from metering import erasure_store
from metering.clock import Clock
from metering.subscription_store import write_lives
from schemas.catalog import AppliedCatalog, Catalog, applied, document, from_document
from schemas.catalog_check import check_catalog
from schemas.errors import CatalogError, InvariantViolationError, RequestError
from schemas.meter_versions import next_meter_versions
from schemas.problem import Problem, path_text

_VERSION_COLUMNS: Final = ["version", "digest", "document", "applied_at", "applied_by"]
_SUBJECT_COLUMNS: Final = [
    "subject", "customer", "customer_name", "timezone", "currency", "active", "catalog_version"
]  # fmt: skip


class CatalogVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the catalog's history. `applied_at` is UTC."""

    version: int
    digest: str
    applied_at: datetime
    applied_by: str


def latest(client: Client) -> AppliedCatalog | None:
    """The newest catalog version, or None before the first apply."""
    rows = client.query("SELECT max(version) FROM catalog_versions").result_rows
    newest = int(rows[0][0])
    return load(client, newest) if newest else None


def latest_version(client: Client) -> int:
    """The number of the newest catalog version; 0 before the first apply. Cheap enough to ask every second."""
    return int(client.query("SELECT max(version) FROM catalog_versions").result_rows[0][0])


def load(client: Client, version: int) -> AppliedCatalog:
    """One catalog version.

    Raises RequestError when it was never applied, InvariantViolationError when its stored text was changed.
    """
    rows = client.query(
        "SELECT DISTINCT digest, document FROM catalog_versions WHERE version = {version:UInt32}", {"version": version}
    ).result_rows
    where = f"{client.database}.catalog_versions"
    if not rows:
        raise RequestError(
            f"catalog version {version} was never applied", where=where, fix="See `metering apply --help`"
        )
    if len(rows) > 1:
        raise InvariantViolationError(
            f"catalog version {version} stands there {len(rows)} times with different content",
            where=where,
            fix="The insert token of catalog_versions did not hold: check its non_replicated_deduplication_window",
        )
    digest, text = rows[0]
    found = from_document(version, text.encode())
    if found.digest != digest:
        raise InvariantViolationError(
            f"catalog version {version} does not match its digest", where=where, fix="Restore the row from a backup"
        )
    return found


def history(client: Client) -> list[CatalogVersion]:
    """Every version ever applied, oldest first."""
    rows = client.query(
        "SELECT version, digest, applied_at, applied_by FROM catalog_versions ORDER BY version"
    ).result_rows
    return [CatalogVersion(version=row[0], digest=row[1], applied_at=row[2], applied_by=row[3]) for row in rows]


def plan_apply(
    before: AppliedCatalog | None,
    catalog: Catalog,
    *,
    located: Callable[[Sequence[Problem]], list[str]] | None = None,
    is_checked: bool = False,
) -> AppliedCatalog:
    """What applying `catalog` after `before` would give. Pure; the same version as before when nothing changes.

    `located` writes problems with the lines of the file they came from. `is_checked` says that the catalog was found
    right in itself, as one that was read from a file is.
    Raises CatalogError for a catalog that is wrong in itself or that contradicts what was applied before.
    """
    if not is_checked:
        check_catalog(catalog)
    version = 1 if before is None else before.version + 1
    versions, problems = next_meter_versions(() if before is None else before.meter_versions, catalog.meters, version)
    if problems:
        raise CatalogError(located(problems) if located else [f"{path_text(one.path)}: {one.what}" for one in problems])
    after = applied(version, catalog, versions)
    return before if before is not None and before.digest == after.digest else after


def apply(
    client: Client, catalog: Catalog, *, clock: Clock, applied_by: str, is_checked: bool = False
) -> AppliedCatalog:
    """Append `catalog` as the next version and return it; an unchanged catalog returns the present version.

    Subjects of erased customers are stored as their pseudonyms, whatever the catalog calls them.
    Of two applies at the same moment one wins; the other raises RequestError unless it said the same.
    Raises CatalogError as `plan_apply` does.
    """
    before = latest(client)
    catalog = erasure_store.without_erased(client, catalog)
    after = plan_apply(before, catalog, is_checked=is_checked)
    if before is None or after.version != before.version:
        after = _claim(client, after, clock=clock, applied_by=applied_by)
    # Also when nothing changed: an apply that died after its claim is finished by the next one.
    previous = load(client, after.version - 1) if after.version > 1 else None
    _write_subjects(client, previous, after)
    write_lives(client, previous, after)
    if erasure_store.without_erased(client, after.catalog) is not after.catalog:
        raise RequestError(
            f"a customer was erased while catalog version {after.version} was applied, which still names its subjects",
            where=f"{client.database}.catalog_versions",
            fix="Apply again, and run `metering erase` for the customer again",
        )
    return after


def unfilled_meters(client: Client, applied_catalog: AppliedCatalog) -> list[str]:
    """Meters that this very catalog version measures anew while accepted events are there already, by name.

    Those events were folded without them: `metering rebuild NAME` fills a meter from history.
    """
    introduced = {
        one.meter.name for one in applied_catalog.meter_versions if one.introduced_in == applied_catalog.version
    }
    if not introduced:
        return []
    accepted = client.query("SELECT sum(accepted) FROM positions FINAL").result_rows[0][0]
    return sorted(introduced) if accepted else []


def _claim(client: Client, after: AppliedCatalog, *, clock: Clock, applied_by: str) -> AppliedCatalog:
    """Insert the version under a token that names its number alone: a second insert of the number is dropped."""
    text = document(after.catalog, after.meter_versions).decode()
    client.insert(
        "catalog_versions",
        [(after.version, after.digest, text, clock.now(), applied_by)],
        column_names=_VERSION_COLUMNS,
        settings={"insert_deduplication_token": f"catalog-version-{after.version}"},
    )
    winner = load(client, after.version)
    if winner.digest != after.digest:
        raise RequestError(
            f"somebody else applied another catalog as version {after.version} at the same moment",
            where=f"{client.database}.catalog_versions",
            fix="Look at the difference with `metering apply FILE --dry-run`, then apply again",
        )
    return winner


def _write_subjects(client: Client, before: AppliedCatalog | None, after: AppliedCatalog) -> None:
    """Bring `subjects` up to this version; rows of an older version never replace newer ones."""
    rows = [
        (subject, one.id, one.name, one.timezone, one.currency, 1, after.version)
        for one in after.catalog.customers
        for subject in one.subjects
    ]
    rows += [
        (subject, one.id, one.name, one.timezone, one.currency, 0, after.version)
        for one in (before.catalog.customers if before else ())
        for subject in one.subjects
        if after.customer_of(subject) is None
    ]
    if rows:
        client.insert("subjects", rows, column_names=_SUBJECT_COLUMNS)
