"""Error answers: RFC 9457 problem documents with a stable `code` and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException

from metering.keys import NotFoundError
from schemas.errors import LimitError, MeteringError, RequestError, UnavailableError

PROBLEM_JSON: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:metering:problem:"
RETRY_AFTER_S: Final = 2
KEY_SECURITY: Final = [{"key": list[str]()}]
"""What the OpenAPI document says of a route that needs a key."""

_log = structlog.get_logger(__name__)


class EventError(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with one event of a request. `index` counts from 0; `reason` is a word of docs/events.md."""

    index: int
    reason: str
    field: str
    detail: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error answer. `code` is stable, `detail` says what happened, `fix` what to do next.

    `setting` names the limit that was met. `errors` lists every bad event. After a failure on Kafka's side,
    `acknowledged`, `failed` and `unknown` say what became of each event by index.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str
    fix: str = ""
    setting: str = ""
    errors: list[EventError] | None = None
    acknowledged: list[int] | None = None
    failed: list[int] | None = None
    unknown: list[int] | None = None


def problem_of(status: HTTPStatus, code: str, detail: str, *, fix: str = "", **more: Any) -> Problem:
    """The document for an error answer."""
    return Problem(
        type=TYPE_PREFIX + code, title=status.phrase, status=status.value, code=code, detail=detail, fix=fix, **more
    )


class ProblemError(Exception):
    """Ends a request with a problem document."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        *,
        fix: str = "",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        self.problem = problem_of(status, code, detail, fix=fix, **more)
        self.headers = dict(headers or {})
        super().__init__(code, detail)


def not_found() -> ProblemError:
    """The answer for what is not there, and for what is another customer's: nobody can tell them apart."""
    return ProblemError(
        HTTPStatus.NOT_FOUND, "not_found", "there is nothing here", fix="See /openapi.json for what the gateway takes"
    )


def answer_problem(error: ProblemError) -> Response[bytes]:
    """The response for a ProblemError."""
    return Response(
        msgspec.json.encode(error.problem),
        status_code=error.problem.status,
        media_type=PROBLEM_JSON,
        headers=error.headers,
    )


def handle_problem(_: Request[Any, Any, Any], error: ProblemError) -> Response[bytes]:
    """A problem that a handler raised."""
    return answer_problem(error)


def handle_metering_error(_: Request[Any, Any, Any], error: MeteringError) -> Response[bytes]:
    """An error of the project's tree: asked wrongly is 400, a service that is away is 503, anything else is ours."""
    if isinstance(error, NotFoundError):
        return answer_problem(not_found())
    if isinstance(error, LimitError):
        return answer_problem(_from_tree(HTTPStatus.BAD_REQUEST, "question_too_large", error, setting=error.setting))
    if isinstance(error, RequestError):
        return answer_problem(_from_tree(HTTPStatus.BAD_REQUEST, "invalid_request", error))
    if isinstance(error, UnavailableError):
        return answer_problem(
            _from_tree(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", error, {"Retry-After": str(RETRY_AFTER_S)})
        )
    return handle_unexpected(_, error)


def handle_http_exception(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """What the framework refuses: unknown paths, wrong methods, parameters of another type."""
    status = HTTPStatus(error.status_code)
    detail = error.detail or status.phrase
    extra = error.extra if isinstance(error.extra, list) else []
    named = "; ".join(f"{one.get('key')}: {one.get('message')}" for one in extra if isinstance(one, dict))
    return answer_problem(
        ProblemError(
            status,
            status.name.lower(),
            f"{detail}: {named}" if named else detail,
            fix="See /openapi.json for what the gateway takes",
            headers=error.headers,
        )
    )


def handle_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A fault of ours: logged whole, told without its insides."""
    _log.error("request_failed", path=request.url.path, exc_info=error)
    return answer_problem(
        ProblemError(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "internal_error",
            "the gateway met an error of its own",
            fix="Look into the gateway's log; the events may be sent again",
        )
    )


def _from_tree(
    status: HTTPStatus, code: str, error: MeteringError, headers: Mapping[str, str] | None = None, *, setting: str = ""
) -> ProblemError:
    detail = f"{error.where}: {error.what}" if error.where else error.what
    return ProblemError(status, code, detail, fix=error.fix, headers=headers, setting=setting)


EXCEPTION_HANDLERS: Final[dict[int | type[Exception], Any]] = {
    ProblemError: handle_problem,
    MeteringError: handle_metering_error,
    HTTPException: handle_http_exception,
    Exception: handle_unexpected,
}
"""For Litestar, which picks the closest class."""

JSON: Final = MediaType.JSON
