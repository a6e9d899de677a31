"""Who may see what: a link opens a session, and a session is for one customer. Nothing else opens anything.

No address, header or field says whose numbers are shown: the session alone does, so that there is nothing to change.
"""

from __future__ import annotations

from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.handlers import BaseRouteHandler

from metering.clock import Clock
from metering.config import Settings
from metering.keys import PUBLIC, NotFoundError, Principal, declared_scope
from metering.portal.links import PREFIX, portal_address, tokens_of
from metering.portal.tokens import Purpose
from metering.principal import give_principal

COOKIE: Final = "metering_portal"


class PortalGuard:
    """Stands before every route of the portal; what it does not let pass is not there."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._tokens = tokens_of(settings)
        self._clock = clock
        self._is_secure = bool(settings.gateway_tls_cert_file) or portal_address(settings).startswith("https:")

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        """Let the request pass, with its customer noted as the principal; raises NotFoundError."""
        if declared_scope(handler.opt) == PUBLIC:
            return
        claim = self._tokens.claim(connection.cookies.get(COOKIE, ""), Purpose.SESSION, self._clock.now())
        if claim is None:
            raise NotFoundError
        give_principal(connection, Principal(customer=claim.customer))

    def enter(self, token: str) -> Cookie:
        """The session of who shows this link, as long as the link. Raises NotFoundError for what is no link now."""
        now = self._clock.now()
        claim = self._tokens.claim(token, Purpose.LINK, now)
        if claim is None:
            raise NotFoundError
        return Cookie(
            key=COOKIE,
            value=self._tokens.sign(claim, Purpose.SESSION),
            max_age=int((claim.ends_at - now).total_seconds()),
            path=PREFIX,
            httponly=True,
            # Links are followed from mails and other sites; `strict` would leave the session out of that first look.
            samesite="lax",
            secure=self._is_secure,
        )
