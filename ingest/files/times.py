"""Times of files made into UTC, daylight saving and all.

A local time that happens twice (clocks go back) is taken as the first of the two. One that never happens (clocks go
forward) is moved forward by the length of the gap: 02:30 becomes 03:30. Both are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ingest.files.mapping import Mapping
from schemas.errors import RequestError

CACHE_TIMES_MAX: Final = 100_000
"""Local times remembered; rows of a file share most of theirs, and a zone look-up costs more than a dictionary's."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PLAIN, _AMBIGUOUS, _SKIPPED = range(3)


class RowError(ValueError):
    """A row cannot become an event."""


class TimeReader:
    """Makes the time of each row, as RFC 3339 text in UTC. Counts local times that needed the rule above."""

    def __init__(self, mapping: Mapping) -> None:
        """Raise RequestError for a zone or a template that cannot be used."""
        self._parts = mapping.time_parts
        self._format = mapping.time_format
        self._zone = _zone(mapping.time_zone)
        self._known: dict[Sequence[str | None], tuple[str, int]] = {}
        self.ambiguous = 0
        self.skipped = 0

    def time_of(self, cells: tuple[str | None, ...]) -> str:
        """The time of a row from the cells of the mapping's `time_columns`, in that order. Raises RowError."""
        known = self._known.get(cells)
        if known is None:
            if len(self._known) >= CACHE_TIMES_MAX:
                self._known.clear()
            rest = iter(cells)
            local = "".join([part if isinstance(part, str) else _formatted(part, next(rest)) for part in self._parts])
            known = self._known[cells] = self._utc_text(local)
        text, kind = known
        if kind == _AMBIGUOUS:
            self.ambiguous += 1
        elif kind == _SKIPPED:
            self.skipped += 1
        return text

    def _utc_text(self, text: str) -> tuple[str, int]:
        time = _parsed(text, self._format)
        kind = _PLAIN
        if time.tzinfo is None:
            if self._zone is None:
                raise RowError(f"time {text!r} names no zone; give --time-zone")
            kind = _kind(time, self._zone)
            time = time.replace(tzinfo=self._zone, fold=0)
        try:
            return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z", kind
        except OverflowError as error:
            raise RowError(f"time {text!r} is out of range") from error


def _zone(name: str) -> ZoneInfo | None:
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise RequestError(
            f"{name!r} is no time zone", where="--time-zone", fix="Use an IANA name such as America/New_York or UTC"
        ) from error


def _kind(local: datetime, zone: ZoneInfo) -> int:
    """Whether a local time happens once, twice or never."""
    first, second = local.replace(tzinfo=zone, fold=0), local.replace(tzinfo=zone, fold=1)
    if first.utcoffset() == second.utcoffset():
        return _PLAIN
    happens = first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == local
    return _AMBIGUOUS if happens else _SKIPPED


def _formatted(part: tuple[str, str], text: str | None) -> str:
    column, form = part
    if text is None:
        raise RowError(f"{column} is empty, and the time needs it")
    if not form:
        return text
    if not (text.isascii() and text.isdigit()):
        raise RowError(f"{column} is {text[:40]!r}, expected digits")
    if form != "hhmm":
        return text.zfill(int(form))
    digits = text.zfill(4)
    if len(digits) > 4:
        raise RowError(f"{column} is {text[:40]!r}, expected hours and minutes such as 515 or 2359")
    return f"{digits[:2]}:{digits[2:]}"


def _parsed(text: str, form: str) -> datetime:
    try:
        if not form:
            return datetime.fromisoformat(text)
        if form in ("epoch_s", "epoch_ms"):
            if not text.isascii():
                raise RowError(f"time {text[:40]!r} is no number")
            units = Decimal(text) * (1_000_000 if form == "epoch_s" else 1_000)
            return _EPOCH + timedelta(microseconds=int(units // 1))
        # The zone is added by the caller, which knows --time-zone; a %z in the pattern brings its own.
        return datetime.strptime(text, form)  # noqa: DTZ007
    except (ValueError, OverflowError, InvalidOperation) as error:
        expected = f"the format {form!r}" if form else "an ISO 8601 time"
        raise RowError(f"time {text[:60]!r} does not fit {expected}") from error
