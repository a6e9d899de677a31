"""What goes with every answer, and the pages for what went wrong."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.response import Redirect

from ingest.problems import ProblemError
from metering.dashboard.guard import SignInError, sign_in_address
from metering.dashboard.site import Site
from metering.keys import NotFoundError
from schemas.errors import MeteringError, RequestError, RunError, UnavailableError

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_BACK: Final = "Go back to the page that you came from"
_STATUS: Final[tuple[tuple[type[MeteringError], HTTPStatus], ...]] = (
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (RequestError, HTTPStatus.BAD_REQUEST),
    (RunError, HTTPStatus.CONFLICT),
    (UnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
)

_log = structlog.get_logger(__name__)


def with_headers(response: Response[Any]) -> Response[Any]:
    """The answer with what tells a browser to run nothing foreign, to be in no frame, and to keep no page."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def exception_handlers(site: Site) -> dict[int | type[Exception], Any]:
    """Pages for whatever a handler raises; Litestar picks the closest class."""

    def page(request: Request[Any, Any, Any], status: HTTPStatus, what: str, fix: str) -> Response[str]:
        # Who asks may be what went wrong, so the frame has no links.
        return with_headers(
            site.pages.page(
                request, "error.html", principal=None, status=status, what=what, fix=fix, title=status.phrase
            )
        )

    def sign_in(_: Request[Any, Any, Any], error: SignInError) -> Response[Any]:
        return with_headers(Redirect(sign_in_address(error.after)))

    def problem(request: Request[Any, Any, Any], error: ProblemError) -> Response[str]:
        return page(request, HTTPStatus(error.problem.status), error.problem.detail, error.problem.fix)

    def http(request: Request[Any, Any, Any], error: HTTPException) -> Response[str]:
        status = HTTPStatus(error.status_code)
        if status is HTTPStatus.NOT_FOUND:
            return ours(request, NotFoundError())
        return page(request, status, error.detail or status.phrase, _BACK)

    def ours(request: Request[Any, Any, Any], error: MeteringError) -> Response[str]:
        status = next((one for kind, one in _STATUS if isinstance(error, kind)), None)
        if status is None:
            return unexpected(request, error)
        return page(request, status, f"{error.where}: {error.what}" if error.where else error.what, error.fix or _BACK)

    def unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
        _log.error("page_failed", path=request.url.path, exc_info=error)
        what, fix = "the dashboard met an error of its own", "Look into the dashboard's log"
        return page(request, HTTPStatus.INTERNAL_SERVER_ERROR, what, fix)

    return {
        SignInError: sign_in,
        ProblemError: problem,
        MeteringError: ours,
        HTTPException: http,
        Exception: unexpected,
    }
