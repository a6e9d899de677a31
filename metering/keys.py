"""API keys: what a key is made of, what it may do, and whether one that is presented is taken. Pure.

A key reads `mk_<16 hexadecimal digits>_<43 characters>`. The digits name it and may be shown; only the HMAC of the
whole is kept, so that neither the database nor a backup of it can be used to call the gateway.
"""

from __future__ import annotations

import enum
import hmac
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from schemas.errors import MeteringError

PREFIX: Final = "mk"
NAME_BYTES: Final = 8
SECRET_BYTES: Final = 32
PRESENTED_CHARACTERS_MAX: Final = 200
PUBLIC: Final = "public"
"""What a route declares that needs no key."""

_OPTION: Final = "scope"
_PEPPER_LABEL: Final = b"metering pepper"


class Scope(enum.Enum):
    """What a key may do. None of them contains another."""

    INGEST = "ingest"
    QUERY = "query"
    EXPORT = "export"
    ADMIN = "admin"


class KeyRefusedError(MeteringError):
    """A key is not taken; `code` is a stable word for programs."""

    def __init__(self, code: str, what: str, *, fix: str) -> None:
        self.code = code
        super().__init__(what, fix=fix)


class NotFoundError(MeteringError):
    """What was asked for is not there for this key, be it another customer's or nobody's. One answer for both."""

    def __init__(self) -> None:
        super().__init__("there is nothing here")


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is stored. `ends_at` is the earliest of its ends, None for none; `customer` is empty for all."""

    key: str
    name: str
    hmac: str
    pepper: str
    scopes: frozenset[Scope]
    customer: str = ""
    expires_at: datetime | None = None
    ends_at: datetime | None = None
    ended: str = ""
    replaces: str = ""
    at: datetime
    by: str

    def state(self, now: datetime) -> str:
        """`valid`, `expired`, `revoked` or `rotated`."""
        if self.ends_at is not None and self.ends_at <= now:
            return self.ended
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks: a key, what it may do, and the only customer it may see; both empty when no key is needed."""

    key: str = ""
    scopes: frozenset[Scope] = frozenset()
    customer: str = ""


ANYBODY: Final = Principal(scopes=frozenset(Scope))
"""Whoever asks where no key is needed."""


def needs(scope: Scope | str) -> dict[str, Any]:
    """What a route says to be open to this scope, or to PUBLIC: `@get("/v1/usage", opt=needs(Scope.QUERY))`."""
    return {_OPTION: scope}


def declared_scope(options: Mapping[str, Any]) -> Scope | str | None:
    """The scope among a route's options: a Scope, PUBLIC, or None for a route that declares nothing."""
    scope = options.get(_OPTION)
    return scope if isinstance(scope, Scope) or scope == PUBLIC else None


def new_key() -> tuple[str, str]:
    """(the name of a new key, the whole key)."""
    name = secrets.token_hex(NAME_BYTES)
    return name, f"{PREFIX}_{name}_{secrets.token_urlsafe(SECRET_BYTES)}"


def name_of(presented: str) -> str:
    """The name inside a key that somebody presents; empty for what is no key."""
    prefix, _, rest = presented[:PRESENTED_CHARACTERS_MAX].partition("_")
    name, _, secret = rest.partition("_")
    return name if prefix == PREFIX and secret and len(presented) <= PRESENTED_CHARACTERS_MAX else ""


def hmac_of(pepper: str, presented: str) -> str:
    """What is stored of a key: its HMAC-SHA256 under the pepper, hexadecimal."""
    return hmac.digest(pepper.encode(), presented.encode("utf-8", "surrogatepass"), "sha256").hex()


def fingerprint(pepper: str) -> str:
    """Eight digits that tell peppers apart and tell nothing about them."""
    return hmac.digest(pepper.encode(), _PEPPER_LABEL, "sha256")[:4].hex()


class KeyRing:
    """All keys there are, and whether one that is presented is among them."""

    def __init__(self, keys: Iterable[ApiKey], pepper: str) -> None:
        self._keys = {one.key: one for one in keys}
        self._pepper = pepper
        self._nobody = hmac_of(pepper, secrets.token_urlsafe(SECRET_BYTES))

    def __len__(self) -> int:
        return len(self._keys)

    def principal(self, presented: str, now: datetime) -> Principal:
        """Who presents this key. Takes as long for a key that is nobody's. Raises KeyRefusedError."""
        key = self._keys.get(name_of(presented))
        given = hmac_of(self._pepper, presented[:PRESENTED_CHARACTERS_MAX])
        same = hmac.compare_digest(given, self._nobody if key is None else key.hmac)
        if key is None or not same:
            raise KeyRefusedError(
                "unknown_key", "the API key is not known here", fix="Check it, or make one with `metering keys create`"
            )
        return _valid(key, now)

    def holder(self, name: str, now: datetime) -> Principal:
        """Who was let in with the key of this name before, as a session remembers it. Raises KeyRefusedError."""
        key = self._keys.get(name)
        if key is None:
            raise KeyRefusedError("unknown_key", "the API key is not known here any more", fix="Sign in again")
        return _valid(key, now)


def _valid(key: ApiKey, now: datetime) -> Principal:
    state = key.state(now)
    if state != "valid":
        raise KeyRefusedError(
            "key_ended", f"the API key {key.key} is {state}", fix="Use the key that replaces it, or ask for one"
        )
    return Principal(key=key.key, scopes=key.scopes, customer=key.customer)
