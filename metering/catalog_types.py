"""What the types of the catalog's records say to somebody who writes the file."""

from __future__ import annotations

import enum
import types
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from schemas.charges import CHARGE_MODELS

_EXPECTED: Final[dict[Any, str]] = {
    datetime: "a time such as 2013-01-31T00:00:00Z",
    date: "a date such as 2013-01-31",
    Decimal: "a decimal number such as 12 or 0.5",
    bool: "true or false",
    int: "a whole number",
}


def unwrap(kind: Any) -> tuple[Any, str]:
    """The type inside Annotated, looked for through `| None` too, and what is expected of it where that is said."""
    if get_origin(kind) is Annotated:
        base, *extras = get_args(kind)
        metas = [one for one in extras if isinstance(one, Meta)]
        described = [text for text in (_description(base, one) for one in metas) if text]
        return base, described[-1] if described else ""
    if takes_null(kind):
        inner, description = unwrap(without_null(kind))
        return inner | None, description
    return kind, ""


def _description(base: Any, meta: Meta) -> str:
    """The text a Meta carries, or what its bounds say of a whole number."""
    if meta.description:
        return meta.description
    if base is int and meta.ge is not None:
        return f"a whole number of {meta.ge} or more" if meta.le is None else f"a whole number, {meta.ge} to {meta.le}"
    return ""


def takes_null(kind: Any) -> bool:
    """Whether None is one of the type's values."""
    return get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)


def without_null(kind: Any) -> Any:
    """The type without None."""
    if not takes_null(kind):
        return kind
    members = [one for one in get_args(kind) if one is not type(None)]
    return members[0] if len(members) == 1 else Union[tuple(members)]  # noqa: UP007 - members are known at run time only


def is_charge(kind: Any) -> bool:
    """Whether it is the union of all charge models."""
    return get_origin(kind) in (Union, types.UnionType) and set(get_args(kind)) == set(CHARGE_MODELS.values())


def words(kind: Any) -> list[str]:
    """The words an enum takes; empty for any other type."""
    is_enum = isinstance(kind, type) and issubclass(kind, enum.Enum)
    return [str(member.value) for member in kind] if is_enum else []


def expected(base: Any, description: str) -> str:
    """What is expected, for the end of a sentence."""
    if description:
        return description[0].lower() + description[1:].rstrip(".")
    base = without_null(base)
    if known := words(base):
        return f"one of {', '.join(known)}"
    if get_origin(base) is tuple:
        return "a list"
    if get_origin(base) is dict or (isinstance(base, type) and issubclass(base, msgspec.Struct)):
        return "a mapping"
    return _EXPECTED.get(base, "a text")
