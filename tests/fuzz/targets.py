"""What is fuzzed: each target takes any bytes, and raises when the code under it breaks a promise."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Final

import msgspec
import zstandard

from ingest.content import events_of
from ingest.inflate import ZSTD_WINDOW_BYTES_MAX, InflateError, gzip_steps, zstd_steps
from ingest.problems import ProblemError
from metering.config import Settings
from metering.usage.parameters import moment_of
from schemas.admission import Admission
from schemas.erasure import Receipts
from schemas.errors import EventRejectedError, RequestError
from schemas.event_text import parse_time
from schemas.meter import MeterVersion
from schemas.quantity import QuantityError, format_quantity, parse_quantity, parse_token, parse_tokens
from schemas.usage_event import REASONS, UsageEvent, columns_of, decode_event, decode_events
from schemas.zone import zone_of
from tests.support.plain_log import CATALOG

INFLATED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Where a bomb is left alone, as the gateway does at its own limit."""

_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_VERSIONS: Final = tuple(
    MeterVersion(meter=one, version=1, introduced_in=1, start=None, end=None) for one in CATALOG.meters
)
_ADMISSION: Final = Admission(_VERSIONS, CATALOG.event_types)
_RECEIPTS: Final = Receipts(b"k" * 32, _VERSIONS)
_SETTINGS: Final = Settings()
_TYPES: Final = (
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "application/json",
    "application/json; charset=latin-1",
)


class BrokenPromiseError(Exception):
    """The code gave an answer that it must not give."""


def expect(holds: bool, what: str) -> None:
    """Raise BrokenPromiseError unless it holds."""
    if not holds:
        raise BrokenPromiseError(what)


def decoders(data: bytes) -> None:
    """One record decodes as it does among others, or is rejected for a reason that is documented."""
    together = decode_events([data])
    try:
        event = decode_event(data)
    except EventRejectedError as error:
        expect(error.reason in REASONS, f"reason {error.reason}")
        expect(together is None, "accepted in a batch, rejected alone")
        return
    if together is not None:
        expect(_fields(together.at(0)) == _fields(event), "decoded in two ways")
        expect(columns_of([event]).identity(0) == together.identity(0), "two identities")
    _measured_alike(data, event)


def _measured_alike(data: bytes, event: UsageEvent) -> None:
    """What meters see of an event they see of its receipt; a receipt of a receipt is itself."""
    try:
        before = _ADMISSION.measurements(event)
    except EventRejectedError as error:
        expect(error.reason in REASONS, f"reason {error.reason}")
        return
    receipt = _RECEIPTS.receipt(data)
    expect(_RECEIPTS.receipt(receipt) == receipt, "a receipt of a receipt")
    after = _ADMISSION.measurements(decode_event(receipt))
    expect(
        [(version.meter.name, seen.dimensions, seen.value) for version, seen in before]
        == [(version.meter.name, seen.dimensions, seen.value) for version, seen in after],
        "a receipt is measured otherwise",
    )


def _fields(event: UsageEvent) -> tuple[object, ...]:
    return (event.id, event.source, event.type, event.subject, event.time, bytes(event.data), event.corrects)


def numbers(data: bytes) -> None:
    """A number is read exactly, within its limits, alike from text and token, or refused."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        number = parse_quantity(text)
    except QuantityError:
        number = None
    if number is not None:
        expect(_NUMBER.fullmatch(text) is not None, "taken although it is no number")
        expect(number == Decimal(text), "another number")
        expect(-(Decimal(10) ** 18) < number < Decimal(10) ** 18, "too large")
        expect(parse_quantity(format_quantity(number)) == number, "written and read again")
    if not text.isascii():
        return
    token = _or_none(lambda: parse_token(data))
    expect(token == number, "another number from a token")
    several = parse_tokens([data, b"1"])
    expect(several is None or (number is not None and several == [number, Decimal(1)]), "another number among others")


def _or_none(call: Callable[[], Decimal]) -> Decimal | None:
    try:
        return call()
    except QuantityError:
        return None


def times(data: bytes) -> None:
    """Times of events and of questions are read, or refused by an error of ours."""
    text = data.decode("utf-8", "replace")
    try:
        moment = parse_time(text)
    except EventRejectedError as error:
        expect(error.reason in REASONS, f"reason {error.reason}")
    else:
        expect(1970 <= moment.year <= 2099, "out of range")
    try:
        moment_of(text, zone_of("America/New_York"), "start")
    except RequestError as error:
        expect(bool(str(error)), "an error that says nothing")


def inflating(data: bytes) -> None:
    """What inflates is what the plain decoder says, step by step; all else is InflateError."""
    for steps, plainly in ((gzip_steps, _gunzip), (zstd_steps, _unzstd)):
        try:
            inflated = _bounded(steps(data))
        except InflateError:
            continue
        if inflated is not None:
            expect(plainly(data) in (inflated, None), f"{steps.__name__} inflates otherwise")


def _bounded(steps: Iterator[bytes]) -> bytes | None:
    found: list[bytes] = []
    size = 0
    for piece in steps:
        size += len(piece)
        if size > INFLATED_BYTES_MAX:
            return None
        found.append(piece)
    return b"".join(found)


def _gunzip(data: bytes) -> bytes | None:
    found = b""
    while data:
        member = zlib.decompressobj(31)
        found += member.decompress(data)
        data = member.unused_data
    return found


def _unzstd(data: bytes) -> bytes | None:
    try:
        decoder = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
        return decoder.stream_reader(data, read_across_frames=True).read(INFLATED_BYTES_MAX + 1)
    except zstandard.ZstdError:
        return None


def bodies(data: bytes) -> None:
    """A body is taken apart into events that are in it, or refused with an answer."""
    declared = _TYPES[data[0] % len(_TYPES)] if data else ""
    try:
        events = events_of([("content-type", declared)], data[1:], _SETTINGS)
    except ProblemError:
        return
    for one in events:
        expect(one in data, "an event that was not sent")
    if declared == "application/cloudevents-batch+json":
        expect(len(events) == len(msgspec.json.decode(data[1:], type=list[msgspec.Raw])), "another number of events")


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "decoders": decoders,
    "numbers": numbers,
    "times": times,
    "inflating": inflating,
    "bodies": bodies,
}
