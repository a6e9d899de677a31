"""Links that are given to customers: who they are for, until when, and where they lead."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final

import msgspec

from metering.config import Settings
from metering.portal.tokens import Claim, Purpose, Tokens
from schemas.errors import RequestError, SettingError

PREFIX: Final = "/portal"
"""Where everything of the portal stands, so that one process and one name can serve other things beside it."""

EXPIRES_IN_MAX: Final = timedelta(days=366)
_LENGTH: Final = re.compile(r"([1-9][0-9]{0,5})([mhd])", re.ASCII)
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A link to one customer's numbers. Whoever has `url` sees them until `expires_at`. `key` names the secret."""

    customer: str
    expires_at: datetime
    key: str
    url: str


def tokens_of(settings: Settings) -> Tokens:
    """What signs and checks, with the secrets of the settings."""
    return Tokens((settings.portal_secret, settings.portal_secret_before))


def make_link(settings: Settings, customer: str, *, expires_in: timedelta, now: datetime) -> Link:
    """A link for a customer. Raises SettingError where there is no secret to sign it with."""
    check_secret(settings)
    tokens = tokens_of(settings)
    ends_at = (now + expires_in).replace(microsecond=0)
    token = tokens.sign(Claim(customer=customer, ends_at=ends_at), Purpose.LINK)
    return Link(
        customer=customer,
        expires_at=ends_at,
        key=tokens.key,
        url=f"{portal_address(settings)}{PREFIX}/enter/{token}",
    )


def check_secret(settings: Settings) -> None:
    """Raise SettingError where links can neither be made nor taken."""
    if not settings.portal_secret:
        raise SettingError(
            "is not set, and links to the portal are signed with it",
            where="METERING_PORTAL_SECRET",
            fix="Make one with `openssl rand -hex 32`, and give the same to every part that makes or takes links",
        )


def portal_address(settings: Settings) -> str:
    """Where customers reach the portal: as the setting says, else the dashboard on this machine, which serves it."""
    scheme = "https" if settings.gateway_tls_cert_file else "http"
    return settings.portal_url.rstrip("/") or f"{scheme}://127.0.0.1:{settings.dashboard_port}"


def length_of(text: str) -> timedelta:
    """`30m`, `12h` or `7d` as a length of time. Raises RequestError for anything else, and beyond a year."""
    found = _LENGTH.fullmatch(text)
    length = timedelta(0) if found is None else int(found[1]) * _UNITS[found[2]]
    if not timedelta(0) < length <= EXPIRES_IN_MAX:
        raise RequestError(
            f"{text!r} is no length of time that a link may have",
            where="--expires-in",
            fix=f"Write minutes, hours or days such as 30m, 12h or 7d, {EXPIRES_IN_MAX.days}d at most",
        )
    return length
