"""What to do about a name that is none: the likely one, or else where to look. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.problem import did_you_mean


def fix_for(name: str, known: Iterable[str], otherwise: str) -> str:
    """`Did you mean 'x'?`, or `otherwise` where no name is like it."""
    hint = did_you_mean(name, known).removeprefix("; ")
    return f"{hint[0].upper()}{hint[1:]}" if hint else otherwise
