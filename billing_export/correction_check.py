"""Holds the table of corrections against the correcting events themselves: what verify takes out, an event must say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.event_store import WITHIN_CUT, cut_places
from schemas.corrections import VOIDED
from schemas.errors import EventRejectedError
from schemas.usage_event import UsageEvent, decode_event
from schemas.usage_query import Cut


class Correction(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A correcting event, and the (source, id) of the event of the same subject that it names."""

    subject: str
    source: str
    id: str
    names: tuple[str, str]

    def __str__(self) -> str:
        return f"correction {self.subject} / {self.source} / {self.id} of {' / '.join(self.names)}"


class CorrectionCheck:
    """The corrections up to a cut, as the table has them."""

    def __init__(self, client: Client, cut: Cut) -> None:
        self._client = client
        self._parameters = {"cut": cut_places(cut)}
        self._listed = {
            Correction(subject=row[0], source=row[1], id=row[2], names=(row[3], row[4]))
            for row in self._rows(
                "SELECT subject, correction_source, correction_id, source, id FROM corrections FINAL "  # noqa: S608 - constants
                f"WHERE is_named AND {WITHIN_CUT}"
            )
        }

    def differences(self) -> Iterator[str]:
        """What the table says and no event does, and voids that the table does not have."""
        said = {one for raw in self._correcting() if (one := correction_of(decoded(raw))) is not None}
        for one in sorted(self._listed - said):
            yield f"{one}: no event up to the cut says so"
        for one in sorted(said - self._listed):
            yield f"{one}: it is not in the table of corrections"

    def missing(self, event: UsageEvent) -> str | None:
        """What to say of an event that replaces another, when the table does not know of it."""
        one = correction_of(event)
        return None if one is None or one in self._listed else f"{one}: it is not in the table of corrections"

    def _correcting(self) -> Iterator[bytes]:
        """The bytes of all voids, and of the events that the table says are corrections."""
        for row in self._rows(
            f"SELECT raw FROM events FINAL PREWHERE type = '{VOIDED}' OR (subject, source, id) IN ("  # noqa: S608 - constants
            f"SELECT subject, correction_source, correction_id FROM corrections FINAL WHERE is_named AND {WITHIN_CUT}) "
            f"WHERE {WITHIN_CUT}"
        ):
            yield row[0]

    def _rows(self, query: str) -> Sequence[Sequence[Any]]:
        return self._client.query(query, self._parameters, column_formats={"raw": "bytes"}).result_rows


def correction_of(event: UsageEvent | None) -> Correction | None:
    """What an event corrects, or None."""
    if event is None or event.corrects is None:
        return None
    return Correction(subject=event.subject, source=event.source, id=event.id, names=event.corrects)


def decoded(raw: bytes) -> UsageEvent | None:
    """The event, or None for bytes that are none; whoever counts them says so."""
    try:
        return decode_event(raw)
    except EventRejectedError:
        return None
