"""Signed words that a browser keeps: who signed in, and that a form came from a page of ours. Pure.

A session names a key and when it is over; whether the key is still taken is asked anew at every request. Signatures are
HMAC-SHA256 under a secret that never leaves this machine, and are compared in constant time.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from typing import Final

from metering.keys import NAME_BYTES

COOKIE: Final = "metering_session"
TEXT_CHARACTERS_MAX: Final = 200

_SESSION: Final = "metering dashboard session"
_FORM: Final = "metering dashboard form"
_NAME_CHARACTERS: Final = 2 * NAME_BYTES


class Signer:
    """Signs with one secret; dashboards that share it take each other's sessions."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def session(self, key: str, ends_at: datetime) -> str:
        """What the browser of somebody who showed `key` keeps until `ends_at`."""
        said = f"{key}.{int(ends_at.timestamp())}"
        return f"{said}.{self._signature(_SESSION, said)}"

    def key_of(self, session: str, now: datetime) -> str:
        """The name of the key in a session; empty for what we did not sign, and for a session that is over."""
        said, _, signature = session[:TEXT_CHARACTERS_MAX].rpartition(".")
        same = hmac.compare_digest(self._signature(_SESSION, said).encode(), signature.encode("utf-8", "replace"))
        key, _, ends = said.partition(".")
        if not same or len(key) != _NAME_CHARACTERS or datetime.fromtimestamp(int(ends), UTC) <= now:
            return ""
        return key

    def form_token(self, key: str) -> str:
        """What every form for the holder of `key` (empty where none is needed) carries."""
        return self._signature(_FORM, key)

    def is_form_token(self, token: str, key: str) -> bool:
        """Whether a form came from a page that we made for the holder of `key`."""
        return hmac.compare_digest(
            self.form_token(key).encode(), token[:TEXT_CHARACTERS_MAX].encode("utf-8", "replace")
        )

    def _signature(self, what: str, said: str) -> str:
        return hmac.digest(self._secret, f"{what}\n{said}".encode("utf-8", "surrogatepass"), "sha256").hex()
