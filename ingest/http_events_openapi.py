"""What the OpenAPI document says about `POST /v1/events`, whose body Litestar cannot read off a signature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from litestar.openapi.spec import (
    Example,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)
from litestar.openapi.spec.enums import OpenAPIFormat

from ingest.content import BATCH, EVENT, PLAIN
from ingest.problems import PROBLEM_JSON, TYPE_PREFIX
from schemas.usage_event import IDENTITY_BYTES_MAX, REASONS

_EXAMPLE: Final[dict[str, Any]] = {
    "specversion": "1.0",
    "id": "2013-01-01/UA/1545/EWR",
    "source": "urn:example:flights",
    "type": "flight",
    "subject": "UA",
    "time": "2013-01-01T05:15:00-05:00",
    "data": {"origin": "EWR", "dest": "IAH", "distance": 1400, "air_time": 227},
}


def _text(description: str) -> Schema:
    return Schema(type=OpenAPIType.STRING, min_length=1, max_length=IDENTITY_BYTES_MAX, description=description)


_EVENT_SCHEMA: Final = Schema(
    title="UsageEvent",
    description="A CloudEvents 1.0 event in JSON format. Other context attributes are kept.",
    type=OpenAPIType.OBJECT,
    required=["specversion", "id", "source", "type", "subject", "time"],
    properties={
        "specversion": Schema(type=OpenAPIType.STRING, const="1.0"),
        "id": _text("Unique within subject and source: the same three again are the same event."),
        "source": _text("Who gave the id."),
        "type": _text("What happened; meters select on it."),
        "subject": _text("Who used it; the Kafka record's key."),
        "time": Schema(
            type=OpenAPIType.STRING,
            format=OpenAPIFormat.DATE_TIME,
            description="When it was used, RFC 3339 with a zone.",
        ),
        "data": Schema(
            description="What meters read: any JSON, usually an object. Numbers are taken as exact decimals."
        ),
    },
)
_BATCH_SCHEMA: Final = Schema(title="UsageEvents", type=OpenAPIType.ARRAY, items=_EVENT_SCHEMA)

_ERRORS_SCHEMA: Final = Schema(
    type=OpenAPIType.ARRAY,
    description="Every bad event.",
    items=Schema(
        type=OpenAPIType.OBJECT,
        required=["index", "reason", "field", "detail"],
        properties={
            "index": Schema(type=OpenAPIType.INTEGER, minimum=0, description="Which event, from 0."),
            "reason": Schema(type=OpenAPIType.STRING, enum=sorted(REASONS)),
            "field": Schema(type=OpenAPIType.STRING, description="Dotted path, or empty for the whole event."),
            "detail": Schema(type=OpenAPIType.STRING, description="What was found and what was expected."),
        },
    ),
)
_INDEXES: Final = Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.INTEGER, minimum=0))

PROBLEM_SCHEMA: Final = Schema(
    title="Problem",
    description="RFC 9457 problem details.",
    type=OpenAPIType.OBJECT,
    required=["type", "title", "status", "code", "detail"],
    properties={
        "type": Schema(type=OpenAPIType.STRING, description=f"{TYPE_PREFIX} and the code."),
        "title": Schema(type=OpenAPIType.STRING),
        "status": Schema(type=OpenAPIType.INTEGER),
        "code": Schema(type=OpenAPIType.STRING, description="Stable word for programs."),
        "detail": Schema(type=OpenAPIType.STRING, description="What happened."),
        "fix": Schema(type=OpenAPIType.STRING, description="What to do next."),
        "setting": Schema(type=OpenAPIType.STRING, description="The setting whose limit was met."),
        "errors": _ERRORS_SCHEMA,
        "acknowledged": _INDEXES,
        "failed": _INDEXES,
        "unknown": _INDEXES,
    },
)

_ANSWER_SCHEMA: Final = Schema(
    title="EventsAnswer",
    type=OpenAPIType.OBJECT,
    required=["accepted"],
    properties={
        "accepted": Schema(type=OpenAPIType.INTEGER, description="Events that Kafka has acknowledged."),
        "rejected": Schema(type=OpenAPIType.INTEGER),
        "errors": _ERRORS_SCHEMA,
        "epoch": Schema(type=OpenAPIType.STRING, description="Which log: Kafka cluster id and topic id."),
        "positions": Schema(
            type=OpenAPIType.ARRAY,
            description="[partition, offset] of every event of the request; null for a rejected one.",
            items=Schema(type=[OpenAPIType.ARRAY, OpenAPIType.NULL], items=Schema(type=OpenAPIType.INTEGER)),
        ),
    },
)

_REQUEST_BODY: Final = RequestBody(
    required=True,
    description=(
        "One event, a batch, or JSON data with the attributes in `ce-` headers (CloudEvents binary mode). "
        "Content-Encoding may be gzip or zstd."
    ),
    content={
        EVENT: OpenAPIMediaType(schema=_EVENT_SCHEMA, examples={"one": Example(value=_EXAMPLE)}),
        BATCH: OpenAPIMediaType(schema=_BATCH_SCHEMA, examples={"batch": Example(value=[_EXAMPLE])}),
        PLAIN: OpenAPIMediaType(
            schema=Schema(any_of=[_EVENT_SCHEMA, _BATCH_SCHEMA, Schema(description="With ce- headers: the data.")])
        ),
    },
)

_RETRY_AFTER: Final = OpenAPIHeader(
    schema=Schema(type=OpenAPIType.INTEGER), description="Seconds to wait before the same request is sent again."
)

_PROBLEMS: Final = {
    "400": "The body, its coding or a parameter cannot be read.",
    "401": "The request has no API key that is known and has not ended.",
    "403": "The API key may not send events.",
    "408": "The body arrived too slowly.",
    "413": "The body, the inflated body or the batch is over its limit; `setting` names it.",
    "415": "Another content type or content coding.",
    "422": "At least one event cannot be billed on; nothing was accepted.",
    "429": "The API key goes faster than it may; nothing was accepted.",
    "503": "Kafka is away or the gateway full. `acknowledged`, `failed` and `unknown` say what became of each event.",
}


def _problem_response(status: str, description: str) -> OpenAPIResponse:
    return OpenAPIResponse(
        description=description,
        headers={"Retry-After": _RETRY_AFTER} if status in ("429", "503") else None,
        content={PROBLEM_JSON: OpenAPIMediaType(schema=PROBLEM_SCHEMA)},
    )


@dataclass
class EventsOperation(Operation):
    """The operation with its body and every answer it can give."""

    def __post_init__(self) -> None:
        answer = {"application/json": OpenAPIMediaType(schema=_ANSWER_SCHEMA)}
        self.request_body = _REQUEST_BODY
        self.responses = {
            "200": OpenAPIResponse(description="Kafka has acknowledged every event.", content=answer),
            "207": OpenAPIResponse(
                description="With partial=true: the good events are acknowledged, the others listed.", content=answer
            ),
            **{status: _problem_response(status, text) for status, text in _PROBLEMS.items()},
        }
