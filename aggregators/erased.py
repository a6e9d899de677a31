"""Erased customers in the log: of their records a worker keeps receipts, whenever they come. Pure.

What is decided of a record is not touched by it: a repeat is recognised by the pseudonyms of its identity and by the
digest of the record itself, so that a log that is read again gives the same decisions before and after an erasure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from aggregators.decode import Decoded
from aggregators.dedupe import identity_keys
from aggregators.record_batch import RecordBatch
from schemas.erasure import NOBODY, Erasures, Receipts
from schemas.meter import MeterVersion
from schemas.usage_event import UsageEvent, columns_of, decode_event, event_digest

SUBJECTS_REMEMBERED_MAX: Final = 100_000


class Eraser:
    """Puts receipts in the place of the records of erased subjects.

    An erasure keeps every worker out until it is done: who was erased stays the same from one assignment to the next.
    """

    def __init__(self, erasures: Erasures = NOBODY) -> None:
        self._erasures = erasures
        self._receipts = Receipts(erasures.key, ())
        self._versions: Sequence[MeterVersion] = ()
        self._known: dict[str, str | None] = {}

    def without_names(self, decoded: Decoded, versions: Sequence[MeterVersion]) -> Decoded:
        """The batch with receipts of what these meters read; itself when no record of it is an erased subject's."""
        if not self._erasures.subjects:
            return decoded
        if versions is not self._versions:
            self._versions, self._receipts = versions, Receipts(self._erasures.key, versions)
        events = decoded.events
        rows = [row for row, subject in enumerate(events.subjects) if self._is_erased(subject)]
        erased = {decoded.records[row] for row in rows}
        erased.update(one for one in decoded.rejections if any(map(self._is_erased, _subjects(decoded.batch, one))))
        if not erased:
            return decoded
        values, keys = list(decoded.batch.values), list(decoded.batch.keys)
        digests = [event_digest(values[record] or b"") for record in decoded.records]
        changed: list[UsageEvent] = [events.at(row) for row in range(len(events.ids))]
        for row in rows:
            record = decoded.records[row]
            receipt = self._receipts.receipt(values[record] or b"")
            changed[row] = decode_event(receipt)
            values[record], keys[record] = receipt, changed[row].subject.encode()
        columns = columns_of(changed)
        return msgspec.structs.replace(
            decoded,
            batch=msgspec.structs.replace(decoded.batch, values=values, keys=keys),
            events=columns,
            keys=identity_keys(columns.subjects, columns.sources, columns.ids),
            digests=digests,
            erased=frozenset(erased),
        )

    def _is_erased(self, subject: str) -> bool:
        if subject not in self._known:
            if len(self._known) >= SUBJECTS_REMEMBERED_MAX:
                self._known.clear()
            self._known[subject] = self._erasures.of(subject)
        return self._known[subject] is not None


class _Said(msgspec.Struct, gc=False):
    subject: str


_decode_said = msgspec.json.Decoder(_Said).decode


def _subjects(batch: RecordBatch, record: int) -> list[str]:
    """Whose a record may be that is no good event: its key says so, and what can be read of it."""
    said = [(batch.keys[record] or b"").decode("utf-8", "replace")]
    try:
        said.append(_decode_said(batch.values[record] or b"").subject)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return said
    return said
