"""`GET /v1/usage`: answers about usage over HTTP, for the gateway to mount."""

from __future__ import annotations

import difflib
import enum
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError
from litestar import MediaType, Request, Response, get
from litestar.params import QueryParameter

from metering import catalog_store
from metering.clickhouse import connect as connect_to
from metering.clickhouse import unavailable
from metering.clock import Clock
from metering.config import Settings
from metering.keys import Scope, needs
from metering.principal import principal_of
from metering.query_limits import query_limits, within_limits
from metering.usage.answer import answer
from metering.usage.parameters import UsageParameters, query_of
from metering.usage.present import to_csv, to_json
from metering.usage.restricted import restricted
from schemas.catalog import AppliedCatalog
from schemas.errors import ClickHouseUnavailableError, RequestError
from schemas.usage_query import By, UsageQuery, UsageRow, Window

_ABSENT_CODES: Final = frozenset({60, 81})
_NAMES: Final = ("meter", "customer", "subject", "from", "to", "window", "timezone", "by", "group_by", "format")


class AnswerFormat(enum.Enum):
    """How an answer is written."""

    JSON = "json"
    CSV = "csv"


class UsageService:
    """Answers questions from any thread; each thread has a connection of its own and keeps it."""

    def __init__(self, settings: Settings, clock: Clock, connect: Callable[[], Client] | None = None) -> None:
        """`connect` makes a client on the settings' database; `metering.clickhouse.connect` unless given."""
        self._settings = settings
        self._clock = clock
        self._connect = connect or (lambda: connect_to(settings, limits=query_limits(settings)))
        self._threads = threading.local()
        self._catalog: AppliedCatalog | None = None

    def answer(
        self, parameters: UsageParameters, customer: str = ""
    ) -> tuple[AppliedCatalog, UsageQuery, list[UsageRow]]:
        """The answer, with the newest catalog and the question as it was understood.

        With a `customer` the answer has nothing but that customer's usage, whatever was asked for.
        Raises RequestError, NotFoundError, or ClickHouseUnavailableError when ClickHouse is away or has no tables yet.
        """
        with self._client() as client:
            catalog = self._newest(client)
            if customer:
                parameters = restricted(parameters, customer, catalog)
            query = query_of(parameters, catalog, self._clock.now())
            return catalog, query, answer(client, catalog, query, rows_max=self._settings.query_rows_max)

    @contextmanager
    def _client(self) -> Iterator[Client]:
        try:
            with unavailable(self._settings), within_limits(self._settings):
                if not hasattr(self._threads, "client"):
                    self._threads.client = self._connect()
                yield self._threads.client
        except DatabaseError as error:
            if error.code not in _ABSENT_CODES:
                raise
            raise ClickHouseUnavailableError(
                "ClickHouse has no tables yet", where=self._settings.clickhouse_address, fix="Run `metering migrate`"
            ) from error
        except (ClickHouseError, ClickHouseUnavailableError):
            client = self._threads.__dict__.pop("client", None)
            if client is not None:
                client.close()
            raise

    def _newest(self, client: Client) -> AppliedCatalog:
        version = catalog_store.latest_version(client)
        if not version:
            raise RequestError("no catalog was applied yet", where="meter", fix="Run `metering apply catalog.yaml`")
        held = self._catalog
        if held is None or held.version != version:
            held = self._catalog = catalog_store.load(client, version)
        return held


def usage_routes(settings: Settings, *, clock: Clock, connect: Callable[[], Client] | None = None) -> list[Any]:
    """The route handlers, for an application that renders MeteringError (`ingest.problems.EXCEPTION_HANDLERS`).

    Questions run in threads, so that the event loop goes on taking events meanwhile.
    """
    service = UsageService(settings, clock, connect)

    @get(
        "/v1/usage",
        operation_id="getUsage",
        summary="Ask for usage",
        tags=["usage"],
        opt=needs(Scope.QUERY),
        security=[{"key": []}],
        sync_to_thread=True,
        media_type=MediaType.JSON,
    )
    def get_usage(
        request: Request[Any, Any, Any],
        *,
        meter: Annotated[str, QueryParameter(description="Name of the meter.")],
        customer: Annotated[
            list[str] | None, QueryParameter(description="Only this customer; may be repeated.")
        ] = None,
        subject: Annotated[list[str] | None, QueryParameter(description="Only this subject; may be repeated.")] = None,
        start: Annotated[
            str | None,
            QueryParameter(
                name="from",
                description="First instant that counts: a day (midnight in `timezone`), a month, or an RFC 3339 time. "
                "Absent: the start of the month that `to` is in.",
            ),
        ] = None,
        end: Annotated[
            str | None, QueryParameter(name="to", description="First instant that no longer counts. Absent: now.")
        ] = None,
        window: Annotated[Window, QueryParameter(description="Length of a row's window.")] = Window.TOTAL,
        timezone: Annotated[
            str | None,
            QueryParameter(
                description="IANA zone of days and months. Absent: that of the customers asked about, else UTC."
            ),
        ] = None,
        by: Annotated[By | None, QueryParameter(description="What a row stands for. Absent: the customer.")] = None,
        group_by: Annotated[
            list[str] | None, QueryParameter(description="A dimension of the meter to split by; may be repeated.")
        ] = None,
        answer_format: Annotated[
            AnswerFormat | None,
            QueryParameter(name="format", description="Absent: as the header Accept asks, else JSON."),
        ] = None,
    ) -> Response[bytes]:
        _check_names(request)
        catalog, query, rows = service.answer(
            UsageParameters(
                meter=meter,
                customers=customer or (),
                subjects=subject or (),
                start=start,
                end=end,
                window=window,
                timezone=timezone,
                by=by,
                group_by=group_by or (),
            ),
            principal_of(request).customer,
        )
        if (answer_format or _accepted(request)) is AnswerFormat.CSV:
            return Response(
                to_csv(catalog, query, rows).encode(),
                media_type="text/csv",
                headers={"Content-Disposition": f'attachment; filename="usage-{query.meter}.csv"', **_FRESH},
            )
        return Response(to_json(catalog, query, rows), media_type=MediaType.JSON, headers=_FRESH)

    return [get_usage]


_FRESH: Final = {"Cache-Control": "no-store", "Vary": "Accept"}


def _check_names(request: Request[Any, Any, Any]) -> None:
    """Refuse a parameter that does not exist: ignoring a misspelt one would answer another question."""
    for name in request.query_params:
        if name not in _NAMES:
            close = difflib.get_close_matches(name, _NAMES, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known are {', '.join(_NAMES)}"
            raise RequestError(f"unknown parameter {name[:100]!r}", where="query", fix=hint)


def _accepted(request: Request[Any, Any, Any]) -> AnswerFormat:
    best = request.accept.best_match(["application/json", "text/csv"], default="application/json")
    return AnswerFormat.CSV if best == "text/csv" else AnswerFormat.JSON
