"""The currencies that can be billed in: the codes of ISO 4217 that are in force and have a minor unit."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from babel.core import get_global

_NO_MINOR_UNIT: Final = frozenset(
    ("XAG", "XAU", "XBA", "XBB", "XBC", "XBD", "XDR", "XPD", "XPT", "XSU", "XTS", "XUA", "XXX")
)
"""Metals, units of account and codes for tests: nothing could be rounded."""

_NOT_IN_ISO: Final = frozenset(("CNH",))


@lru_cache(maxsize=1)
def billing_currencies() -> frozenset[str]:
    """The codes, such as USD."""
    listed = {
        code
        for rows in get_global("territory_currencies").values()
        for code, _start, end, _tender in rows
        if end is None
    }
    return frozenset(listed - _NO_MINOR_UNIT - _NOT_IN_ISO)
