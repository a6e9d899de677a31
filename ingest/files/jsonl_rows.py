"""JSON lines as events: CloudEvents as they stand, or flat objects by a Mapping."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

import msgspec

from ingest.files.events import UNREADABLE_ROW, EventMaker, FileEvent, RowProblem, string_json
from ingest.files.mapping import Mapping
from ingest.files.times import RowError

LINE_BYTES_MAX: Final = 16 * 1024 * 1024

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


def jsonl_events(
    stream: io.BufferedIOBase, mapping: Mapping | None, maker: EventMaker | None, *, file: str
) -> Iterator[FileEvent | RowProblem]:
    """The events of a file with one JSON object a line; blank lines are passed over.

    Without a mapping a line is a CloudEvent and its bytes go through untouched; with one it is a flat object.
    """
    line = 0
    while True:
        text = stream.readline(LINE_BYTES_MAX + 1)
        if not text:
            return
        line += 1
        if len(text) > LINE_BYTES_MAX and not text.endswith(b"\n"):
            _skip_line(stream)
            yield RowProblem(file, line, UNREADABLE_ROW, "", f"the line has more than {LINE_BYTES_MAX} bytes")
            continue
        record = text.strip(b" \t\r\n")
        if line == 1:
            record = record.removeprefix(b"\xef\xbb\xbf")
        if not record:
            continue
        try:
            yield FileEvent(_event_of(record, mapping, maker), file, line)
        except RowError as error:
            yield RowProblem(file, line, UNREADABLE_ROW, "", str(error))


def _skip_line(stream: io.BufferedIOBase) -> None:
    while True:
        text = stream.readline(LINE_BYTES_MAX)
        if not text or text.endswith(b"\n"):
            return


def _event_of(record: bytes, mapping: Mapping | None, maker: EventMaker | None) -> bytes:
    try:
        record.decode("utf-8")
        members = _decode_object(record)
    except msgspec.ValidationError as error:
        raise RowError("the line is no JSON object") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RowError(f"the line is not one JSON document in UTF-8 ({error})") from error
    if mapping is None or maker is None:
        return record
    absent = frozenset(mapping.absent)
    cells = tuple([_cell_text(column, members.get(column), absent) for column in maker.columns])
    data = [
        string_json(column) + b":" + bytes(members[column])
        for column in mapping.data_columns_of(members)
        if column in members and bytes(members[column]) != b"null"
    ]
    return maker.event_of(cells, data)


def _cell_text(column: str, member: msgspec.Raw | None, absent: frozenset[str]) -> str | None:
    """A scalar's text: a string's content, a number's digits; None for null and for what means absent."""
    raw = b"null" if member is None else bytes(member)
    if raw == b"null":
        return None
    if raw[:1] in (b"{", b"["):
        raise RowError(f"{column} is an object or a list, expected text or a number")
    text = _decode_text(raw) if raw[:1] == b'"' else raw.decode()
    return None if text in absent else text
