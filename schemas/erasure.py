"""What stays of an event whose customer was erased: a receipt under pseudonyms, with what meters read and nothing else.

Pure. A receipt depends on the record, the key and the fields that are kept, so that whoever makes it again, from the
table or from the log, gets the same; and a receipt of a receipt is itself.
"""

from __future__ import annotations

import hmac
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from schemas.catalog import Catalog
from schemas.corrections import CORRECTIONS, REPLACED
from schemas.errors import EventRejectedError
from schemas.event_fields import EventReader, decode_text, scalar_text
from schemas.meter import Aggregation, MeterVersion, read_number
from schemas.quantity import QuantityError

PSEUDONYM_PREFIX: Final = "erased:"
ERASED: Final = "its customer was erased, and with it what was found"
"""What a dead letter says instead of its detail."""
_CURRENCY: Final = re.compile(rb'"[A-Z]{3}"')

FACT_NUMBERS: Final = ("amount", "score")
FACT_MEMBERS: Final = ("invitation",)
FACT_CURRENCY: Final = "currency"
FACT_TYPES: Final = frozenset(
    {"sales.cost", "marketing.cost", "site.visit", "signup", "invitation.sent", "nps.response", "support.contact"}
)
"""Business facts, and the fields that the view `business_facts` reads of them."""

_encode = msgspec.json.Encoder().encode
_members_of = msgspec.json.Decoder(dict[str, Raw]).decode


def pseudonym(key: bytes, kind: str, text: str) -> str:
    """What stands for a text of this kind. A pseudonym stands for itself."""
    if text.startswith(PSEUDONYM_PREFIX):
        return text
    return PSEUDONYM_PREFIX + hmac.digest(key, f"{kind}\0{text}".encode(), "sha256")[:16].hex()


class Erasures(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Who was erased: `subjects` are pseudonyms, made with `key`. `unfinished` is the customer being erased, or ''."""

    key: bytes
    subjects: frozenset[str]
    unfinished: str = ""

    def of(self, subject: str) -> str | None:
        """The pseudonym of an erased subject, None for anybody else."""
        if not self.subjects:
            return None
        found = pseudonym(self.key, "subject", subject)
        return found if found in self.subjects else None

    def without_names(self, catalog: Catalog) -> Catalog:
        """The catalog with pseudonyms in the place of erased subjects; the same object where there are none."""
        customers = tuple(
            msgspec.structs.replace(one, subjects=tuple(self.of(subject) or subject for subject in one.subjects))
            for one in catalog.customers
        )
        return catalog if customers == catalog.customers else msgspec.structs.replace(catalog, customers=customers)


NOBODY: Final = Erasures(key=b"", subjects=frozenset())


class _Kept:
    """The fields of one event type that meters and views read, by what may stay of each."""

    def __init__(self) -> None:
        self.numbers: set[str] = set()
        self.dimensions: set[str] = set()
        self.texts: dict[str, set[str]] = defaultdict(set)
        self.members: set[str] = set()
        self.currency = ""
        self.reader = EventReader(frozenset())

    def finish(self) -> None:
        paths = {*self.numbers, *self.dimensions, *self.texts, *self.members}
        self.reader = EventReader(frozenset([*paths, self.currency] if self.currency else paths))


class Receipts:
    """Makes receipts with a key, for a catalog with these meter versions: all there ever were, in force or not."""

    def __init__(self, key: bytes, versions: Iterable[MeterVersion]) -> None:
        self._key = key
        self._kept: dict[str, _Kept] = defaultdict(_Kept)
        for one in versions:
            self._keep(one)
        for type_ in FACT_TYPES:
            fact = self._kept[type_]
            fact.numbers.update(FACT_NUMBERS)
            fact.members.update(FACT_MEMBERS)
            fact.currency = FACT_CURRENCY
        for kept in self._kept.values():
            kept.finish()

    def _keep(self, version: MeterVersion) -> None:
        meter = version.meter
        kept = self._kept[meter.event_type]
        kept.dimensions.update(meter.group_by.values())
        for one in meter.filters:
            kept.texts[one.field].update(one.any_of, one.none_of)
        if meter.value and meter.aggregation in {Aggregation.UNIQUE_COUNT, Aggregation.COUNT}:
            kept.members.add(meter.value)
        elif meter.value:
            kept.numbers.add(meter.value)

    def member(self, version: MeterVersion, member: str) -> str:
        """What stands for a counted member in the receipts of its events."""
        kept, path = self._kept[version.meter.event_type], version.meter.value
        if path is None or path in kept.dimensions or member in kept.texts.get(path, ()):
            return member
        if path in kept.numbers and _is_number(path, _encode(member)):
            return member
        return pseudonym(self._key, "member", member)

    def name(self, kind: str, text: str) -> str:
        """The pseudonym of a `subject`, a `source` or an `id`."""
        return pseudonym(self._key, kind, text)

    def receipt(self, record: bytes) -> bytes:
        """The receipt of a record that is a valid event."""
        envelope = _members_of(record)
        type_ = decode_text(envelope["type"])
        data = envelope.get("data", Raw(b"null"))
        return _encode(
            {
                "specversion": "1.0",
                **self._names(envelope),
                "type": type_,
                "subject": self.name("subject", decode_text(envelope["subject"])),
                "time": envelope["time"],
                "data": self._correction(type_, data) if type_ in CORRECTIONS else self._data(type_, data),
            }
        )

    def _names(self, said: Mapping[str, Raw]) -> dict[str, str]:
        return {kind: self.name(kind, decode_text(said[kind])) for kind in ("id", "source")}

    def _correction(self, type_: str, data: Raw) -> dict[str, Any]:
        said = _members_of(data)
        kept: dict[str, Any] = self._names(said)
        if type_ == REPLACED:
            inner = decode_text(said["type"])
            kept |= {"type": inner, "time": said["time"], "data": self._data(inner, said.get("data", Raw(b"null")))}
        return kept

    def _data(self, type_: str, data: Raw) -> dict[str, Any]:
        kept = self._kept.get(type_)
        found: dict[str, Any] = {}
        if kept is None:
            return found
        # A longer path first: where one leads through another, the object stays, and the shorter says nothing.
        fields = kept.reader.read_data(data)
        for path in sorted(fields, key=lambda one: one.count("."), reverse=True):
            raw = fields[path]
            if raw is not None:
                _put(found, path.split("."), self._value(kept, path, raw))
        return found

    def _value(self, kept: _Kept, path: str, raw: bytes) -> Any:
        """What may stay of a field: {} in the place of what no meter can read, which is as unreadable as before."""
        if path in kept.numbers and _is_number(path, raw):
            return Raw(raw)
        if path == kept.currency and _CURRENCY.fullmatch(raw):
            return Raw(raw)
        try:
            text = scalar_text(path, raw)
        except EventRejectedError:
            return {}
        if path in kept.dimensions or text in kept.texts.get(path, ()):
            return Raw(raw)
        if path in kept.members or path in kept.texts:
            return pseudonym(self._key, "member", text)
        return {}


def _is_number(path: str, raw: bytes) -> bool:
    try:
        read_number(path, raw)
    except (EventRejectedError, QuantityError):
        return False
    return True


def _put(found: dict[str, Any], steps: list[str], value: Any) -> None:
    for step in steps[:-1]:
        found = found.setdefault(step, {})
    if value != {} or steps[-1] not in found:
        found.setdefault(steps[-1], value)
