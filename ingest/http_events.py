"""`POST /v1/events`: take a request apart, judge every event, write to Kafka, answer once Kafka has them all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, post
from litestar.params import Parameter

from ingest.access import Access
from ingest.body import BodyBudget, read_body
from ingest.catalog_watch import CatalogWatch
from ingest.content import events_of
from ingest.foreign import FOREIGN_SUBJECT, refuse_foreign
from ingest.http_events_openapi import EventsOperation
from ingest.kafka_watch import KafkaWatch
from ingest.metrics import GatewayMetrics
from ingest.problems import JSON, KEY_SECURITY, RETRY_AFTER_S, EventError, ProblemError
from ingest.producer import Delivery, EventProducer, Outcome, ProducerBusyError
from ingest.validate import UNKNOWN_TYPE, Verdict, judge
from metering.clock import Clock
from metering.config import Settings
from metering.keys import Principal, Scope, needs
from metering.principal import principal_of

JUDGE_SLICE_EVENTS: Final = 250
"""Events judged between two looks at other requests."""

_CURABLE: Final = frozenset({UNKNOWN_TYPE, FOREIGN_SUBJECT})
"""Reasons that a newer catalog may take back."""

_PARAMETERS: Final = frozenset({"partial", "positions"})
_RETRY: Final = {"Retry-After": str(RETRY_AFTER_S)}


class EventsAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many events Kafka has acknowledged, and with `positions=true` where.

    `epoch` names the log; `positions` has [partition, offset] for each event of the request, null for a rejected one.
    """

    accepted: int
    rejected: int = 0
    errors: list[EventError] = []
    epoch: str = ""
    positions: list[tuple[int, int] | None] | None = None


class EventsService:
    """What the route needs, made once for a gateway."""

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        metrics: GatewayMetrics,
        producer: EventProducer,
        kafka: KafkaWatch,
        catalog: CatalogWatch,
        access: Access,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._producer = producer
        self._kafka = kafka
        self._catalog = catalog
        self._access = access
        self.budget = BodyBudget()

    async def accept(
        self, request: Request[Any, Any, Any], *, partial: bool, positions: bool
    ) -> tuple[HTTPStatus, EventsAnswer]:
        """Handle one request; raises ProblemError for everything but success."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]]
        async with read_body(request, self._settings, self.budget) as body:
            events = events_of(headers, body, self._settings)
            del body
            principal = principal_of(request)
            self._access.count_events(principal, len(events))
            begun_at_s = self._clock.monotonic_s()
            self._metrics.request_events.observe(len(events))
            verdict = await self._judge_all(events, principal)
            self._refuse_bad(verdict, partial=partial)
            deliveries = await self._write(verdict)
            self._metrics.acknowledge_seconds.observe(self._clock.monotonic_s() - begun_at_s)
            self._refuse_undelivered(verdict, deliveries)
        return self._answer(len(events), verdict, deliveries, positions=positions)

    async def _judge_all(self, events: Sequence[bytes], principal: Principal) -> Verdict:
        """Judge in slices. What the catalog does not know is looked up once more in the newest one."""
        verdict = await self._judge(events, range(len(events)), principal)
        doubtful = [error.index for error in verdict.errors if error.reason in _CURABLE]
        if not doubtful:
            return verdict
        admission_before = self._catalog.admission
        await self._catalog.refresh()
        if self._catalog.admission is admission_before:
            return verdict
        again = await self._judge(events, doubtful, principal)
        settled = [error for error in verdict.errors if error.reason not in _CURABLE]
        records = {**verdict.records, **again.records}
        return Verdict(
            {index: records[index] for index in sorted(records)},
            sorted([*settled, *again.errors], key=lambda error: error.index),
        )

    async def _judge(self, events: Sequence[bytes], indexes: Sequence[int], principal: Principal) -> Verdict:
        now, admission, catalog = self._clock.now(), self._catalog.admission, self._catalog.catalog
        verdict = Verdict({}, [])
        for start in range(0, len(indexes), JUDGE_SLICE_EVENTS):
            if start:
                await asyncio.sleep(0)
            part = judge(
                events,
                indexes[start : start + JUDGE_SLICE_EVENTS],
                admission=admission,
                now=now,
                settings=self._settings,
            )
            if principal.customer:
                part = refuse_foreign(part, principal.customer, catalog)
            verdict.records.update(part.records)
            verdict.errors.extend(part.errors)
        return verdict

    def _refuse_bad(self, verdict: Verdict, *, partial: bool) -> None:
        for error in verdict.errors:
            self._metrics.events_rejected.labels(error.reason).inc()
        if verdict.errors and not (partial and verdict.records):
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "invalid_events",
                f"{len(verdict.errors)} of {len(verdict.errors) + len(verdict.records)} events cannot be billed on; "
                "nothing was accepted",
                fix="Correct the listed events and send the request again, or add ?partial=true to accept the others",
                errors=verdict.errors,
            )

    async def _write(self, verdict: Verdict) -> list[Delivery]:
        state = self._kafka.state
        if state.problem:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "kafka_unavailable",
                f"{state.problem}; nothing was accepted",
                fix="Send the same request again after the pause that Retry-After names",
                headers=_RETRY,
            )
        try:
            return await self._producer.send_all(list(verdict.records.values()))
        except ProducerBusyError as error:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "overloaded",
                f"{error.what}; nothing was accepted",
                fix=error.fix,
                headers=_RETRY,
            ) from error

    def _refuse_undelivered(self, verdict: Verdict, deliveries: Sequence[Delivery]) -> None:
        """Say what became of each event when Kafka did not take them all."""
        by_outcome: dict[Outcome, list[int]] = {outcome: [] for outcome in Outcome}
        for index, delivery in zip(verdict.records, deliveries, strict=True):
            by_outcome[delivery.outcome].append(index)
        acknowledged = by_outcome[Outcome.ACKNOWLEDGED]
        self._metrics.events_accepted.inc(len(acknowledged))
        if len(acknowledged) == len(deliveries):
            return
        for outcome in (Outcome.FAILED, Outcome.UNKNOWN):
            self._metrics.events_undelivered.labels(outcome.value).inc(len(by_outcome[outcome]))
        first = next(delivery.error for delivery in deliveries if delivery.outcome is not Outcome.ACKNOWLEDGED)
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "partly_acknowledged" if acknowledged else "not_acknowledged",
            f"Kafka acknowledged {len(acknowledged)} of {len(deliveries)} events ({first})",
            fix="Send the same request again: events that are in already are recognised by their ids and count once",
            headers=_RETRY,
            errors=verdict.errors or None,
            acknowledged=acknowledged,
            failed=by_outcome[Outcome.FAILED],
            unknown=by_outcome[Outcome.UNKNOWN],
        )

    def _answer(
        self, count: int, verdict: Verdict, deliveries: Sequence[Delivery], *, positions: bool
    ) -> tuple[HTTPStatus, EventsAnswer]:
        places: list[tuple[int, int] | None] | None = None
        if positions:
            places = [None] * count
            for index, delivery in zip(verdict.records, deliveries, strict=True):
                places[index] = (delivery.partition, delivery.offset)
        answer = EventsAnswer(
            accepted=len(deliveries),
            rejected=len(verdict.errors),
            errors=verdict.errors,
            epoch=self._kafka.state.epoch if positions else "",
            positions=places,
        )
        return (HTTPStatus.MULTI_STATUS if verdict.errors else HTTPStatus.OK), answer


def events_route(service: EventsService, metrics: GatewayMetrics) -> Any:
    """The route, bound to a service."""

    @post(
        "/v1/events",
        operation_class=EventsOperation,
        operation_id="sendEvents",
        summary="Send usage events",
        tags=["events"],
        opt=needs(Scope.INGEST),
        security=KEY_SECURITY,
        status_code=HTTPStatus.OK,
        request_max_body_size=None,
    )
    async def send_events(
        request: Request[Any, Any, Any],
        *,
        partial: Annotated[
            bool, Parameter(description="Accept the good events of a batch and list the others, with status 207.")
        ] = False,
        positions: Annotated[
            bool, Parameter(description="Answer with the log's epoch and [partition, offset] of every event.")
        ] = False,
    ) -> Response[bytes]:
        try:
            _check_names(request)
            status, answer = await service.accept(request, partial=partial, positions=positions)
        except ProblemError as error:
            metrics.requests.labels(str(error.problem.status)).inc()
            raise
        metrics.requests.labels(str(status.value)).inc()
        return Response(msgspec.json.encode(answer), status_code=status.value, media_type=JSON)

    return send_events


def _check_names(request: Request[Any, Any, Any]) -> None:
    """Refuse a parameter that does not exist: a misspelt `partial` would change what is accepted."""
    unknown = sorted(set(request.query_params) - _PARAMETERS)
    if unknown:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "unknown_parameter",
            f"there is no parameter {unknown[0][:80]!r}; nothing was accepted",
            fix="Known are partial and positions",
        )
