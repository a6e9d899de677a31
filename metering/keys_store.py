"""Keeps API keys in ClickHouse: made, ended and noted as used; rows are only ever added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from metering import audit_log
from metering.audit_log import Action
from metering.clock import Clock
from metering.keys import ApiKey, Scope, fingerprint, hmac_of, new_key
from schemas.errors import RequestError, SettingError

AT_ONCE: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The end of a revoked key: past for every clock."""

_KEY_COLUMNS: Final = ("key", "name", "hmac", "pepper", "scopes", "customer", "expires_at", "replaces", "at", "by")
_END_COLUMNS: Final = ("key", "ends_at", "why", "at", "by")


def create(
    client: Client,
    *,
    pepper: str,
    name: str,
    scopes: Iterable[Scope],
    customer: str = "",
    expires_at: datetime | None = None,
    replaces: str = "",
    clock: Clock,
    by: str,
) -> tuple[ApiKey, str]:
    """Make a key and store it; returns it with its text, which cannot be had again.

    Raises SettingError without a pepper, RequestError for a key without a scope or one that is over already.
    """
    if not pepper:
        raise SettingError(
            "is not set, and keys are hashed with it",
            where="METERING_KEY_PEPPER",
            fix="Make one with `openssl rand -hex 32` and give it to every part, best as METERING_KEY_PEPPER_FILE",
        )
    may = frozenset(scopes)
    now = clock.now()
    if not may:
        raise RequestError("a key needs a scope", where="--scope", fix="Choose of ingest, query, export and admin")
    if customer and Scope.ADMIN in may:
        raise RequestError(
            "a customer's key cannot be an admin's", where="--scope", fix="Leave --customer or admin out"
        )
    if expires_at is not None and expires_at <= now:
        raise RequestError("the key would be over already", where="--expires-in-days")
    public, text = new_key()
    made = ApiKey(
        key=public,
        name=name,
        hmac=hmac_of(pepper, text),
        pepper=fingerprint(pepper),
        scopes=may,
        customer=customer,
        expires_at=expires_at,
        replaces=replaces,
        at=now,
        by=by,
    )
    words = sorted(scope.value for scope in may)
    row = (public, name, made.hmac, made.pepper, words, customer, expires_at, replaces, now, by)
    client.insert("api_keys", [row], column_names=_KEY_COLUMNS)
    detail = {"name": name, "scopes": words, "customer": customer, "replaces": replaces}
    audit_log.record(client, Action.KEY_CREATED, public, detail, clock=clock, by=by)
    return made, text


def revoke(client: Client, key: ApiKey, *, clock: Clock, by: str) -> None:
    """End a key at once; gateways follow within seconds. Revoking again adds a row and changes nothing."""
    _end(client, key, AT_ONCE, "revoked", clock=clock, by=by)
    audit_log.record(client, Action.KEY_REVOKED, key.key, {"name": key.name}, clock=clock, by=by)


def rotate(
    client: Client,
    key: ApiKey,
    *,
    pepper: str,
    old_ends_at: datetime,
    expires_at: datetime | None = None,
    clock: Clock,
    by: str,
) -> tuple[ApiKey, str]:
    """Make a key that may do the same, and let the old one end at `old_ends_at`; until then both are taken.

    Raises RequestError for a key that has ended already.
    """
    state = key.state(clock.now())
    if state != "valid":
        raise RequestError(f"key {key.key} is {state}", where="KEY", fix="Make a new one with `metering keys create`")
    made, text = create(
        client,
        pepper=pepper,
        name=key.name,
        scopes=key.scopes,
        customer=key.customer,
        expires_at=expires_at,
        replaces=key.key,
        clock=clock,
        by=by,
    )
    _end(client, key, old_ends_at, "rotated", clock=clock, by=by)
    audit_log.record(client, Action.KEY_ROTATED, key.key, {"replaced_by": made.key}, clock=clock, by=by)
    return made, text


def load(client: Client) -> list[ApiKey]:
    """Every key ever made, oldest first, each with its earliest end."""
    rows = client.query(
        f"SELECT {', '.join(_KEY_COLUMNS)}, ends.1 AS ends_at, ends.2 AS ended FROM api_keys "  # noqa: S608 - constants
        "LEFT JOIN (SELECT key, argMin((ends_at, why), (ends_at, at)) AS ends FROM api_key_ends GROUP BY key) AS ended "
        "USING key ORDER BY at, key LIMIT 1 BY key"
    ).result_rows
    return [_key(row) for row in rows]


def find(client: Client, name: str) -> ApiKey:
    """The key of this name. Raises RequestError when there is none."""
    found = [one for one in load(client) if one.key == name]
    if not found:
        raise RequestError(f"there is no key {name[:40]!r}", where="KEY", fix="`metering keys list` shows them")
    return found[0]


def mark(client: Client) -> tuple[int, int]:
    """Something that is another once a key was made or ended: both tables only ever grow."""
    ((keys, ends),) = client.query(
        "SELECT (SELECT count() FROM api_keys), (SELECT count() FROM api_key_ends)"
    ).result_rows
    return int(keys), int(ends)


def note_uses(client: Client, uses: Mapping[str, datetime]) -> None:
    """Store when keys were last used; an older time never replaces a newer one."""
    if uses:
        client.insert("api_key_uses", list(uses.items()), column_names=("key", "used_at"))


def last_uses(client: Client) -> dict[str, datetime]:
    """When each key that ever was used was last used."""
    rows = client.query("SELECT key, max(used_at) FROM api_key_uses GROUP BY key").result_rows
    return {str(key): used_at for key, used_at in rows}


def _end(client: Client, key: ApiKey, ends_at: datetime, why: str, *, clock: Clock, by: str) -> None:
    client.insert("api_key_ends", [(key.key, ends_at, why, clock.now(), by)], column_names=_END_COLUMNS)


def _key(row: Sequence[Any]) -> ApiKey:
    values: dict[str, Any] = dict(zip((*_KEY_COLUMNS, "ends_at", "ended"), row, strict=True))
    values["scopes"] = frozenset(map(Scope, values["scopes"]))
    if not values["ended"]:
        # A key without an end was joined to zeros.
        values["ends_at"] = None
    return ApiKey(**values)
