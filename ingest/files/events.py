"""Makes one CloudEvent of one row, with every digit as it stands in the file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, cast

import msgspec

from ingest.files.mapping import Mapping
from ingest.files.times import RowError, TimeReader
from schemas.errors import RequestError

_encode = msgspec.json.Encoder().encode
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_NUMBER_LENGTH_MAX: Final = 64


class FileEvent(msgspec.Struct, frozen=True, gc=False):
    """An event of a file: its JSON, and where it stands. `line` counts from 1 (a row's number in Parquet)."""

    event: bytes
    file: str
    line: int


class RowProblem(msgspec.Struct, frozen=True, gc=False):
    """A row that was not taken, and why. `reason` is `unreadable_row` or a word of docs/events.md."""

    file: str
    line: int
    reason: str
    field: str
    detail: str


UNREADABLE_ROW: Final = "unreadable_row"


class EventMaker:
    """Makes events by a Mapping, from the cells of `columns`. `times` counts the local times that needed a rule."""

    def __init__(self, mapping: Mapping) -> None:
        """Raise RequestError for a mapping that cannot make an event."""
        if not mapping.id_columns:
            raise RequestError(
                "no id columns are given",
                where="--id-columns",
                fix="Name the columns that make a row unique, so that loading a file twice counts it once",
            )
        if len(mapping.id_separator) != 1:
            raise RequestError("the id separator is not one character", where="--id-separator", fix="Use one such as |")
        self._mapping = mapping
        self._id_end = 1 + len(mapping.id_columns)
        self._head = b'{"specversion":"1.0","type":%b,"source":%b' % (
            _encode(mapping.event_type),
            _encode(mapping.source),
        )
        self.times = TimeReader(mapping)
        self.columns = (mapping.subject_column, *mapping.id_columns, *mapping.time_columns)

    def event_of(self, cells: tuple[str | None, ...], data: Iterable[bytes]) -> bytes:
        """The event's JSON, from the cells of `columns` (None: absent) and the JSON members of its data.

        Raises RowError.
        """
        subject = cells[0]
        if subject is None:
            raise RowError(f"{self.columns[0]} is empty, and it is the subject")
        id_ = self._id_of(cells[1 : self._id_end])
        time = self.times.time_of(cells[self._id_end :])
        return b'%b,"id":%b,"subject":%b,"time":"%b","data":{%b}}' % (
            self._head,
            string_json(id_),
            string_json(subject),
            time.encode(),
            b",".join(data),
        )

    def _id_of(self, cells: tuple[str | None, ...]) -> str:
        separator = self._mapping.id_separator
        if None not in cells:
            joined = separator.join(cast("tuple[str, ...]", cells))
            if len(cells) == 1 or joined.count(separator) == len(cells) - 1:
                return joined
        parts = [text for text in cells if text is not None]
        if len(parts) < len(cells):
            column = self._mapping.id_columns[cells.index(None)]
            raise RowError(f"{column} is empty, and the id needs it")
        # Joined text stays one-to-one only while no part holds the separator.
        column = next(name for name, part in zip(self._mapping.id_columns, parts, strict=True) if separator in part)
        raise RowError(f"{column} holds the id separator {separator!r}; choose another with --id-separator")


def string_json(text: str) -> bytes:
    """A cell as a JSON string. Raises RowError for bytes that were not UTF-8."""
    try:
        return _encode(text)
    except UnicodeEncodeError as error:
        raise RowError("the row is not valid UTF-8") from error


def number_json(column: str, text: str) -> bytes:
    """A cell's digits as a JSON number, untouched. Raises RowError for anything JSON would not read as a number."""
    if len(text) > _NUMBER_LENGTH_MAX or _JSON_NUMBER.fullmatch(text) is None:
        raise RowError(f"{column} is {text[:40]!r}, expected a decimal number such as 12 or 0.5")
    return text.encode()
