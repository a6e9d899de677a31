"""What goes with every answer of the portal, and the one page for everything that is not there."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from metering.dashboard.answers import HEADERS as OF_DASHBOARD
from metering.keys import NotFoundError
from metering.portal.site import PortalSite
from schemas.errors import MeteringError, RequestError, UnavailableError

HEADERS: Final = {**OF_DASHBOARD, "Referrer-Policy": "no-referrer"}

_log = structlog.get_logger(__name__)


def with_headers(response: Response[Any]) -> Response[Any]:
    """The answer with what tells a browser to run nothing foreign, to keep no page and to name none to other sites."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def exception_handlers(site: PortalSite) -> dict[int | type[Exception], Any]:
    """Pages for whatever a handler raises. They say nothing of what went wrong: a customer cannot mend it.

    Everything that is wrong with a request gets the same page, byte for byte: a link that is none, that is over or
    was changed, an address that is none, and what is somebody else's.
    """

    def absent(request: Request[Any, Any, Any], _: Exception) -> Response[str]:
        return with_headers(site.page(request, "absent.html", customer=None, status=HTTPStatus.NOT_FOUND))

    def away(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
        _log.warning("portal_unavailable", detail=str(error))
        return with_headers(site.page(request, "away.html", customer=None, status=HTTPStatus.SERVICE_UNAVAILABLE))

    def ours(request: Request[Any, Any, Any], error: MeteringError) -> Response[str]:
        if isinstance(error, UnavailableError):
            return away(request, error)
        return (
            absent(request, error) if isinstance(error, (NotFoundError, RequestError)) else unexpected(request, error)
        )

    def http(request: Request[Any, Any, Any], error: HTTPException) -> Response[str]:
        if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return absent(request, error)
        return unexpected(request, error)

    def unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
        # The path is left out: it may hold a link, which whoever reads a log could follow.
        handler = getattr(request.scope.get("route_handler"), "handler_name", "")
        _log.error("portal_page_failed", page=handler, exc_info=error)
        return with_headers(site.page(request, "away.html", customer=None, status=HTTPStatus.INTERNAL_SERVER_ERROR))

    return {MeteringError: ours, HTTPException: http, Exception: unexpected}
