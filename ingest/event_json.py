"""Makes the JSON of an event from Python values, exactly: a Decimal keeps its digits, NaN is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from schemas.errors import EventRejectedError, RequestError
from schemas.usage_event import decode_event

_encode = msgspec.json.Encoder(decimal_format="number").encode


def event_json(*, id_: str, source: str, type_: str, subject: str, time: datetime, data: Mapping[str, Any]) -> bytes:
    """The event as CloudEvents JSON, checked as the gateway would.

    Raises EventRejectedError for an event that could not be billed on, RequestError for data that is no JSON.
    """
    text = _time_text(time)
    try:
        _check_numbers(data)
        event = _encode(
            {
                "specversion": "1.0",
                "id": id_,
                "source": source,
                "type": type_,
                "subject": subject,
                "time": text,
                "data": dict(data),
            }
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"the data is no JSON ({error})", where="data") from error
    decode_event(event)
    return event


def replacement_data(*, source: str, id_: str, type_: str, time: datetime, data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of an event that puts another in the place of the one named. Raises EventRejectedError for its time."""
    return {"source": source, "id": id_, "type": type_, "time": _time_text(time), "data": dict(data)}


def _time_text(time: datetime) -> str:
    if time.tzinfo is None:
        raise EventRejectedError("invalid_time", "time", "time has no zone; give datetime.now(UTC), for example")
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _check_numbers(value: Any) -> None:
    """Refuse what JSON cannot say: a NaN would silently become null."""
    if isinstance(value, Mapping):
        for member in value.values():
            _check_numbers(member)
    elif isinstance(value, (list, tuple)):
        for member in value:
            _check_numbers(member)
    elif isinstance(value, (float, Decimal)) and not math.isfinite(value):
        raise RequestError(f"{value} is no number that JSON knows", where="data", fix="Leave it out")
