"""How the columns of a file become CloudEvents."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from schemas.errors import RequestError

_FIELD = re.compile(r"\{([^{}:]+)(?::([0-9]{1,2}|hhmm))?\}", re.ASCII)


class Mapping(msgspec.Struct, frozen=True, kw_only=True):
    """Which columns make which attribute.

    `time` is a column's name or a template of columns: `{year:04}-{month:02}-{day:02}T{departure:hhmm}`.
    `time_format` is empty (ISO 8601), `epoch_s`, `epoch_ms`, or a strptime pattern; `time_zone` is the IANA zone of
    times that name none. The values of `id_columns` are joined with `id_separator`, which none of them may hold.
    `data_columns` None takes every column that subject, time and id leave over. `number_columns` are copied digit by
    digit as JSON numbers; `absent` are the cell texts that mean "no value".
    """

    event_type: str
    source: str
    subject_column: str
    time: str
    id_columns: tuple[str, ...]
    time_zone: str = ""
    time_format: str = ""
    id_separator: str = "|"
    data_columns: tuple[str, ...] | None = None
    number_columns: tuple[str, ...] = ()
    absent: tuple[str, ...] = ("",)

    @property
    def time_parts(self) -> tuple[str | tuple[str, str], ...]:
        """The template taken apart: plain text, and (column, format) pairs; a column's name alone is one pair."""
        if "{" not in self.time:
            return ((self.time, ""),)
        parts: list[str | tuple[str, str]] = []
        end = 0
        for found in _FIELD.finditer(self.time):
            parts.append(self.time[end : found.start()])
            parts.append((found.group(1), found.group(2) or ""))
            end = found.end()
        parts.append(self.time[end:])
        if any(isinstance(part, str) and set(part) & {"{", "}"} for part in parts):
            raise RequestError(
                f"{self.time!r} is no time template",
                where="--time",
                fix="Write columns as {name}, {name:04} (padded with zeros) or {name:hhmm} (515 is 05:15)",
            )
        return tuple(part for part in parts if part)

    @property
    def time_columns(self) -> tuple[str, ...]:
        """The columns the time is made of."""
        return tuple(part[0] for part in self.time_parts if isinstance(part, tuple))

    def data_columns_of(self, columns: Iterable[str]) -> tuple[str, ...]:
        """The columns that go into `data`, for a file with these columns."""
        if self.data_columns is not None:
            return self.data_columns
        used = {self.subject_column, *self.time_columns, *self.id_columns}
        return tuple(column for column in columns if column not in used)

    def check_columns(self, columns: list[str], *, where: str) -> None:
        """Raise RequestError when the file lacks a column that the mapping names, or has one twice."""
        doubles = sorted({column for column in columns if columns.count(column) > 1})
        if doubles:
            raise RequestError(
                f"the header has {', '.join(doubles)} more than once", where=where, fix="Give every column its own name"
            )
        named = [
            self.subject_column,
            *self.time_columns,
            *self.id_columns,
            *(self.data_columns or ()),
            *self.number_columns,
        ]
        missing = sorted(set(named) - set(columns))
        if missing:
            raise RequestError(
                f"there is no column {', '.join(missing)}", where=where, fix=f"The columns are: {', '.join(columns)}"
            )
