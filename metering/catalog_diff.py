"""What changes between two catalogs, entry by entry and field by field. Pure."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.catalog import Catalog
from schemas.catalog_check import KEY_OF


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


def catalog_changes(before: Catalog | None, after: Catalog) -> list[EntryChange]:
    """Every entry that differs, in the order of the sections and then of the names; empty when nothing does."""
    changes: list[EntryChange] = []
    for section in ("event_types", *KEY_OF):
        old, new = _entries(before, section), _entries(after, section)
        for name in sorted({*old, *new}):
            fields = _field_changes(old.get(name, {}), new.get(name, {}))
            if name not in old:
                changes.append(EntryChange(change=Change.ADDED, section=section, name=name, fields=fields))
            elif name not in new:
                changes.append(EntryChange(change=Change.REMOVED, section=section, name=name, fields=fields))
            elif fields:
                changes.append(EntryChange(change=Change.CHANGED, section=section, name=name, fields=fields))
    return changes


def _entries(catalog: Catalog | None, section: str) -> dict[str, dict[str, str]]:
    """The entries of a section by name, each as its fields' texts."""
    if catalog is None:
        return {}
    if section == "event_types":
        return {name: {} for name in catalog.event_types}
    key = KEY_OF[section]
    entries = {}
    for entry in getattr(catalog, section):
        values: Mapping[str, Any] = msgspec.to_builtins(entry)
        entries[str(values[key])] = dict(_leaves("", {name: value for name, value in values.items() if name != key}))
    return entries


def _field_changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[FieldChange, ...]:
    names = [*old, *(name for name in new if name not in old)]
    return tuple(
        FieldChange(field=name, before=old.get(name), after=new.get(name))
        for name in names
        if old.get(name) != new.get(name)
    )


def _leaves(path: str, value: Any) -> list[tuple[str, str]]:
    """Every scalar with its path; records in a list by their id, others by their place, and lists of texts whole."""
    if isinstance(value, dict):
        dot = "." if path else ""
        return [leaf for name, one in value.items() for leaf in _leaves(f"{path}{dot}{name}", one)]
    if isinstance(value, (list, tuple)) and any(isinstance(one, dict) for one in value):
        return [
            leaf
            for place, one in enumerate(value)
            for leaf in _leaves(f"{path}[{one.get('id', place)}]", {k: v for k, v in one.items() if k != "id"})
        ]
    if value is None or value in ("", [], ()):
        return []
    return [(path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]
