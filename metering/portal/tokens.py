"""Signed words about one customer until a time: the link that is given away, and what a browser gets for it. Pure.

A token reads `v1.<key>.<customer>.<end>.<signature>`: which secret signed it, the customer in base64url, seconds since
1970, and an HMAC-SHA256 of all of it. A link is no session and a session no link: each is signed under words of its
own. Of several secrets the first signs and all are taken, so that one can be replaced while links are out.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hmac
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from metering.keys import fingerprint

VERSION: Final = "v1"
SECRET_CHARACTERS_MIN: Final = 32
TOKEN_CHARACTERS_MAX: Final = 600
"""A customer's id has 128 characters at most, so no token of ours is nearly as long."""

_SHAPE: Final = re.compile(
    rf"{VERSION}\.(?P<key>[0-9a-f]{{8}})\.(?P<customer>[A-Za-z0-9_-]+)\.(?P<end>[0-9]{{1,11}})"
    r"\.(?P<signature>[0-9a-f]{64})",
    re.ASCII,
)


class Purpose(enum.Enum):
    """What a token is for."""

    LINK = "metering portal link"
    SESSION = "metering portal session"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says: whose numbers may be seen, and until when. `key` names the secret that signed it, if any did.

    A session is signed with the secret of its link, so that whoever takes a secret away ends both.
    """

    customer: str
    ends_at: datetime
    key: str = ""


class Tokens:
    """Signs with the first of some secrets, and takes what any of them signed. Without secrets it takes nothing."""

    def __init__(self, given: Sequence[str]) -> None:
        self._secrets = {fingerprint(one): one.encode() for one in reversed([one for one in given if one])}
        self._key = next(iter(reversed(self._secrets)), "")
        self._nobody = secrets.token_bytes(SECRET_CHARACTERS_MIN)

    @property
    def key(self) -> str:
        """The name of the secret that signs; empty where there is none."""
        return self._key

    def sign(self, claim: Claim, purpose: Purpose) -> str:
        """The token, signed with the secret that the claim names, or the first. Raises LookupError where it is gone."""
        key = claim.key or self._key
        if key not in self._secrets:
            raise LookupError("there is no secret to sign with")
        customer = base64.urlsafe_b64encode(claim.customer.encode()).decode().rstrip("=")
        said = f"{VERSION}.{key}.{customer}.{int(claim.ends_at.timestamp())}"
        return f"{said}.{_signature(self._secrets[key], said, purpose)}"

    def claim(self, token: str, purpose: Purpose, now: datetime) -> Claim | None:
        """What a token says; None for one that we did not sign for this purpose, and for one that is over."""
        found = _SHAPE.fullmatch(token) if len(token) <= TOKEN_CHARACTERS_MAX else None
        if found is None:
            return None
        said = token.rpartition(".")[0]
        # Signed under a secret of nobody where the key is not known, so that this takes as long.
        known = self._secrets.get(found["key"], self._nobody)
        if not hmac.compare_digest(_signature(known, said, purpose), found["signature"]):
            return None
        ends_at = datetime.fromtimestamp(int(found["end"]), UTC)
        claim = Claim(customer=_decoded(found["customer"]), ends_at=ends_at, key=found["key"])
        return claim if claim.customer and claim.ends_at > now else None


def _signature(secret: bytes, said: str, purpose: Purpose) -> str:
    return hmac.digest(secret, f"{purpose.value}\n{said}".encode(), "sha256").hex()


def _decoded(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
