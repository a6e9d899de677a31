"""What changes between two catalogs, entry by entry and field by field. Pure."""

from __future__ import annotations

import enum
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import msgspec

from schemas.catalog import Catalog
from schemas.health import USUAL, Health
from schemas.kpi import LeadRule
from schemas.meter import Meter
from schemas.plan import Plan
from schemas.subscription import Migration

_SECTIONS: Final = (
    "event_types",
    "meters",
    "customers",
    "plans",
    "subscriptions",
    "migrations",
    "goals",
    "qualified_leads",
    "quotas",
    "alerts",
    "health",
)
_KEYS: Final = ("id", "at", "start")
"""What tells the records of a list apart, where they have it: a charge's id, the day of a change or a pause."""

_SAID: Final[dict[type, tuple[str, ...]]] = {Meter: ("name",), Plan: ("id", "version"), LeadRule: ("meter",)}
"""The fields that an entry's name says, where they are not its id."""


class Change(enum.Enum):
    """What happened to an entry."""

    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"


class FieldChange(msgspec.Struct, frozen=True, kw_only=True):
    """A field with its text before and after; None where it was not there."""

    field: str
    before: str | None
    after: str | None


class EntryChange(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a section that was added, changed or removed. Fields that hold their default are left out."""

    change: Change
    section: str
    name: str
    fields: tuple[FieldChange, ...]


def catalog_changes(before: Catalog | None, after: Catalog, *, detailed_max: int | None = None) -> list[EntryChange]:
    """Every entry that differs, in the order of the sections and then of the names; empty when nothing does.

    Of more than `detailed_max` entries of a section that were added (or changed, or removed), the rest has no fields.
    """
    changes: list[EntryChange] = []
    for section in _SECTIONS:
        old, new = _entries(before, section), _entries(after, section)
        seen: Counter[Change] = Counter()
        for name in sorted({*old, *new}):
            was, now = old.get(name), new.get(name)
            if was == now:
                continue
            change = Change.ADDED if name not in old else Change.REMOVED if name not in new else Change.CHANGED
            seen[change] += 1
            fields: tuple[FieldChange, ...] = ()
            if detailed_max is None or seen[change] <= detailed_max:
                fields = _field_changes(_entry_leaves(was), _entry_leaves(now), _defaults(was, now))
            changes.append(EntryChange(change=change, section=section, name=name, fields=fields))
    return changes


def _entries(catalog: Catalog | None, section: str) -> dict[str, Any]:
    """The entries of a section by the names that people know them by."""
    if catalog is None:
        return {}
    held = getattr(catalog, section)
    if isinstance(held, Health):
        # Every catalog has all parts of it: what it says are those that are not as usual.
        return {name: part for name, part in held.parts().items() if part != USUAL[type(part)]}
    found: dict[str, Any] = {}
    for entry in held:
        name = _name(entry)
        count = 2
        while name in found:
            name, count = f"{_name(entry)} ({count})", count + 1
        found[name] = entry
    return found


def _name(entry: Any) -> str:
    if isinstance(entry, Meter):
        return entry.name
    if isinstance(entry, Plan):
        return entry.id if entry.version == 1 else f"{entry.id} version {entry.version}"
    if isinstance(entry, Migration):
        return f"{entry.plan} version {entry.from_version} to {entry.to_version} on {entry.at}"
    if isinstance(entry, LeadRule):
        return entry.meter
    return entry if isinstance(entry, str) else str(entry.id)


def _entry_leaves(entry: Any) -> dict[str, str]:
    """The fields of an entry with their texts; those its name says, and those left at their default, are not there."""
    if not isinstance(entry, msgspec.Struct):
        return {}
    if isinstance(entry, Migration):
        said: tuple[str, ...] = ("plan", "from_version", "to_version", "at")
    else:
        said = _SAID.get(type(entry), ("id",))
    return dict(_record_leaves("", entry, said))


def _defaults(was: Any, now: Any) -> dict[str, str]:
    """What an entry that was there before and after has in fields that it does not mention."""
    if not (isinstance(was, msgspec.Struct) and isinstance(now, msgspec.Struct)):
        return {}
    plain = ((name, default) for _, name, default in _fields(type(now)) if default is not msgspec.NODEFAULT)
    return {name: _text(one) for name, one in plain if isinstance(one, str | int | enum.Enum | Decimal) and one != ""}


def _field_changes(
    old: Mapping[str, str], new: Mapping[str, str], defaults: Mapping[str, str]
) -> tuple[FieldChange, ...]:
    names = [*old, *(name for name in new if name not in old)]
    return tuple(
        FieldChange(field=name, before=old.get(name, defaults.get(name)), after=new.get(name, defaults.get(name)))
        for name in names
        if old.get(name) != new.get(name)
    )


def _record_leaves(path: str, record: msgspec.Struct, named: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Every scalar below a record with its path."""
    dot = f"{path}." if path else ""
    tag = record.__struct_config__.tag
    if tag is not None:
        yield f"{dot}{record.__struct_config__.tag_field}", str(tag)
    for name, encoded, default in _fields(type(record)):
        value = getattr(record, name)
        if encoded not in named and value != default:
            yield from _leaves(f"{dot}{encoded}", value)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Records in a list go by their id or day, others by their place; a list of texts is one text."""
    if isinstance(value, msgspec.Struct):
        yield from _record_leaves(path, value)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _leaves(f"{path}.{name}", one)
    elif isinstance(value, tuple) and any(isinstance(one, msgspec.Struct) for one in value):
        for place, one in enumerate(value):
            key = next((key for key in _KEYS if hasattr(one, key)), "")
            at = f"{path}[{getattr(one, key) if key else place}]"
            found = list(_record_leaves(at, one, (key,)))
            yield from found or [(at, "nothing else")]
    else:
        yield path, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, tuple | bool):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


@lru_cache(maxsize=128)
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str, Any], ...]:
    """Each field's name, its name in a file, and its default; a required one has none that equals anything."""
    return tuple(
        (
            field.name,
            field.encode_name,
            field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default,
        )
        for field in msgspec.structs.fields(kind)
    )
