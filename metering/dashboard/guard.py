"""Who may open which page: nobody is asked on this machine, and elsewhere an API key opens a session.

The scopes are those of the keys. A form is taken only from a page of this dashboard, and where no key is asked for,
only under a name of this machine: another site that is open in the same browser can neither send one nor read a page.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from http import HTTPMethod, HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlsplit

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.handlers import BaseRouteHandler

from ingest.access import is_local
from ingest.key_watch import KeyWatch
from ingest.problems import ProblemError
from metering.clock import Clock
from metering.config import Settings
from metering.dashboard.sessions import COOKIE, Signer
from metering.keys import ANYBODY, PUBLIC, KeyRefusedError, Principal, Scope, declared_scope
from metering.principal import give_principal, principal_of
from schemas.errors import InvariantViolationError

TOKEN_FIELD: Final = "form_token"  # noqa: S105 - a name
_BEARER: Final = "bearer"
_SAFE: Final = frozenset({HTTPMethod.GET, HTTPMethod.HEAD, HTTPMethod.OPTIONS})
_NEXT_CHARACTERS_MAX: Final = 2_000


class SignInError(Exception):
    """Nobody is signed in; `after` is the page to go on with."""

    def __init__(self, after: str) -> None:
        self.after = after
        super().__init__(after)


class Guard:
    """Stands before every route."""

    def __init__(self, settings: Settings, keys: KeyWatch, clock: Clock) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._signer = Signer(settings.key_pepper or secrets.token_urlsafe(32))
        self.asks_for_keys = settings.keys_required == "always" or (
            settings.keys_required == "auto" and not is_local(settings.dashboard_host)
        )

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Let the request pass, with its Principal noted; raises ProblemError, or SignInError where a key is needed."""
        scope = declared_scope(handler.opt)
        if connection.scope.get("method") not in _SAFE:
            self._check_origin(connection)
        if scope == PUBLIC:
            return
        if not isinstance(scope, Scope):
            raise InvariantViolationError(f"the route {handler.handler_name} does not say which scope it needs")
        principal = self._principal(connection)
        if scope not in principal.scopes:
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                "missing_scope",
                f"the API key may not {scope.value}",
                fix=f"Sign in with a key that has the scope {scope.value}",
            )
        give_principal(connection, principal)

    def sign_in(self, presented: str) -> Cookie:
        """The session of who shows this key. Raises KeyRefusedError, or ProblemError while keys cannot be read."""
        now = self._clock.now()
        self._check_known()
        principal = self._keys.ring.principal(presented.strip(), now)
        self._keys.note_use(principal.key, now)
        ends_at = now + timedelta(seconds=self._settings.dashboard_session_s)
        return self._cookie(self._signer.session(principal.key, ends_at), self._settings.dashboard_session_s)

    def sign_out(self) -> Cookie:
        """What takes a session out of the browser."""
        return self._cookie("", 0)

    def form_token(self, principal: Principal) -> str:
        """What forms on pages for this principal carry."""
        return self._signer.form_token(principal.key)

    async def checked_form(self, request: Request[Any, Any, Any]) -> dict[str, str]:
        """The fields of a form that one of our pages made for who sends it. Raises ProblemError for another."""
        form = await request.form()
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        if not self._signer.is_form_token(fields.get(TOKEN_FIELD, ""), principal_of(request).key):
            raise _foreign_form()
        return fields

    def _principal(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
        if not self.asks_for_keys:
            self._check_host(connection)
            return ANYBODY
        self._check_known()
        now = self._clock.now()
        scheme, _, presented = connection.headers.get("authorization", "").partition(" ")
        try:
            if scheme.lower() == _BEARER:
                principal = self._keys.ring.principal(presented.strip(), now)
            else:
                principal = self._of_session(connection, now)
        except KeyRefusedError as error:
            if scheme.lower() != _BEARER:
                raise SignInError(_address(connection)) from error
            raise ProblemError(HTTPStatus.UNAUTHORIZED, error.code, error.what, fix=error.fix) from error
        self._keys.note_use(principal.key, now)
        return principal

    def _of_session(self, connection: ASGIConnection[Any, Any, Any, Any], now: datetime) -> Principal:
        key = self._signer.key_of(connection.cookies.get(COOKIE, ""), now)
        if not key:
            raise SignInError(_address(connection))
        return self._keys.ring.holder(key, now)

    def _check_known(self) -> None:
        if not self._keys.is_known:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "keys_unavailable",
                "API keys cannot be read",
                fix="Try again in a moment; the keys are in ClickHouse",
            )

    def _check_host(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """Where nobody is asked for a key, only a name of this machine is answered: others may point here too."""
        host = urlsplit(f"//{connection.headers.get('host', '')}").hostname or ""
        if is_local(self._settings.dashboard_host) and not is_local(host):
            raise ProblemError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "foreign_name",
                "the dashboard answers under names of this machine only",
                fix=f"Open http://127.0.0.1:{self._settings.dashboard_port}/",
            )

    def _check_origin(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """A browser says where a form comes from; what says nothing is no browser, and has to know the form's token."""
        origin = connection.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != connection.headers.get("host", ""):
            raise _foreign_form()
        if connection.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise _foreign_form()

    def _cookie(self, value: str, max_age_s: int) -> Cookie:
        return Cookie(
            key=COOKIE,
            value=value,
            max_age=max_age_s,
            path="/",
            httponly=True,
            samesite="strict",
            secure=bool(self._settings.gateway_tls_cert_file),
        )


def page_after(wanted: str) -> str:
    """The page of ours to go on with after signing in; the first one for anything that could lead elsewhere."""
    parts = urlsplit(wanted[:_NEXT_CHARACTERS_MAX])
    is_ours = not parts.scheme and not parts.netloc and wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
    return wanted if is_ours and wanted.isprintable() else "/"


def sign_in_address(after: str) -> str:
    """The page to sign in on, which goes on with `after`."""
    return "/login" if after == "/" else f"/login?after={quote(after, safe='')}"


def _address(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    if connection.scope.get("method") != HTTPMethod.GET:
        return "/"
    query = connection.scope.get("query_string", b"").decode("latin-1")
    return connection.url.path + (f"?{query}" if query else "")


def _foreign_form() -> ProblemError:
    return ProblemError(
        HTTPStatus.FORBIDDEN,
        "foreign_form",
        "the form does not come from a page of this dashboard, or the page is old",
        fix="Open the page again and send it from there",
    )
