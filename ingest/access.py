"""Who may ask for what: the guard that stands before every route, and the check that every route says what it needs.

`Authorization: Bearer mk_…` names a key. A key that is not known, and one that has ended, is 401; one without the
route's scope is 403; one that goes too fast is 429.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPMethod, HTTPStatus
from ipaddress import ip_address
from typing import Any, Final

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.routes import HTTPRoute

from ingest.key_watch import KeyWatch
from ingest.problems import RETRY_AFTER_S, ProblemError
from ingest.rates import Rates
from metering.clock import Clock
from metering.config import Settings
from metering.keys import ANYBODY, PUBLIC, KeyRefusedError, Principal, Scope, declared_scope
from metering.principal import give_principal
from schemas.errors import InvariantViolationError, SettingError

SCHEME: Final = "bearer"
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="metering"'}


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_settings(settings: Settings, *, part: str = "gateway") -> None:
    """Raise SettingError for a part, the gateway or another, that would have to ask for keys and could check none."""
    host = getattr(settings, f"{part}_host")
    required = settings.keys_required == "always" or (settings.keys_required == "auto" and not is_local(host))
    if required and not settings.key_pepper:
        raise SettingError(
            f"is not set, and a {part} on {host} asks for API keys, which are hashed with it",
            where="METERING_KEY_PEPPER",
            fix=f"Make one with `openssl rand -hex 32`; or, where something else guards the {part}, set"
            " METERING_KEYS_REQUIRED=never",
        )


class Access:
    """The guard of an application."""

    def __init__(self, settings: Settings, keys: KeyWatch, clock: Clock) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._requests = Rates(settings.key_requests_per_s_max)
        self._events = Rates(settings.key_events_per_s_max)
        self._always = settings.keys_required != "never" and (
            settings.keys_required == "always" or bool(settings.key_pepper) or not is_local(settings.gateway_host)
        )

    @property
    def is_required(self) -> bool:
        """Whether a request needs a key now: always, or because somebody has made one."""
        return self._always or (self._settings.keys_required == "auto" and len(self._keys.ring) > 0)

    async def guard(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Let the request pass, with its Principal noted, or raise ProblemError."""
        scope = declared_scope(handler.opt)
        if scope == PUBLIC or connection.scope.get("method") == HTTPMethod.OPTIONS:
            return
        if not isinstance(scope, Scope):
            raise InvariantViolationError(f"the route {handler.handler_name} does not say which scope it needs")
        principal = self._principal(connection) if self.is_required else ANYBODY
        if scope not in principal.scopes:
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                "missing_scope",
                f"the API key may not {scope.value}",
                fix=f"Use a key with the scope {scope.value}",
            )
        self._slow_down(self._requests, principal, 1, "key_requests_per_s_max")
        give_principal(connection, principal)

    def count_events(self, principal: Principal, events: int) -> None:
        """Count events against the key's rate. Raises ProblemError (429)."""
        self._slow_down(self._events, principal, events, "key_events_per_s_max")

    def _principal(self, connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
        scheme, _, presented = connection.headers.get("authorization", "").partition(" ")
        presented = presented.strip()
        if scheme.lower() != SCHEME or not presented:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "key_missing",
                "the request has no API key",
                fix="Send the header `Authorization: Bearer mk_…`; `metering keys create` makes a key",
                headers=_CHALLENGE,
            )
        if not self._settings.key_pepper or not self._keys.is_known:
            why = "cannot be read" if self._settings.key_pepper else "cannot be checked without METERING_KEY_PEPPER"
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "keys_unavailable",
                f"API keys {why}; nothing was done",
                fix="Send the same request again after the pause that Retry-After names",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        now = self._clock.now()
        try:
            principal = self._keys.ring.principal(presented, now)
        except KeyRefusedError as error:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED, error.code, error.what, fix=error.fix, headers=_CHALLENGE
            ) from error
        self._keys.note_use(principal.key, now)
        return principal

    def _slow_down(self, rates: Rates, principal: Principal, units: int, setting: str) -> None:
        pause_s = rates.take(principal.key, units, self._clock.monotonic_s())
        if pause_s:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too_fast",
                "the API key goes faster than it may; nothing was accepted",
                fix="Send the same request again after the pause that Retry-After names",
                headers={"Retry-After": str(pause_s)},
                setting=setting,
            )


def undeclared_routes(app: Litestar) -> list[str]:
    """`METHOD path` of every route that declares neither a scope nor that it is public."""
    return [
        f"{method} {path}"
        for method, path, handler in http_routes(app)
        if declared_scope(handler.opt) is None and method != HTTPMethod.OPTIONS
    ]


def http_routes(app: Litestar) -> Iterator[tuple[str, str, BaseRouteHandler]]:
    """(method, path, handler) of every HTTP route. Raises InvariantViolationError for a route of another kind."""
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            raise InvariantViolationError(f"the guard does not know routes like {route.path}")
        for method, (handler, _) in route.route_handler_map.items():
            yield str(method), route.path, handler
