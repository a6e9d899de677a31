"""Statements as text that can be run elsewhere: the server-side parameters written into them as literals. Pure.

For people who want to see and repeat what an answer was read with. Nothing in the pipeline runs these texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from metering.usage.question import Question
from metering.usage.statements import (
    Statement,
    events_statement,
    members_statement,
    rollups_statement,
)
from schemas.errors import InvariantViolationError

_PARAMETER: Final = re.compile(r"\{(\w+):([A-Za-z0-9(), ']+)\}")
_ESCAPED: Final = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}


def statements_of(question: Question) -> list[Statement]:
    """What an answer without a cut is read with: rollups, members of unique counts, events around split windows."""
    found = [rollups_statement(question)]
    if question.counts_members:
        found.append(members_statement(question, any_gone=True))
    if question.plan.split_quarters_s:
        found.append(events_statement(question, everything=False))
    return found


def sql_text(statement: Statement) -> str:
    """The statement with its parameters as literals of their types.

    Without its settings: they make it quicker and change no number, and who may only read may not set any.
    """

    def literal_of(found: re.Match[str]) -> str:
        name, kind = found.groups()
        return f"CAST({literal(statement.parameters[name])}, {literal(kind)})"

    sql, _, _ = statement.sql.rpartition("\nSETTINGS ")
    return _PARAMETER.sub(literal_of, sql).strip()


def literal(value: Any) -> str:
    """A value as ClickHouse writes it. Raises InvariantViolationError for one that no parameter can be."""
    if isinstance(value, str):
        return "'" + "".join(_ESCAPED.get(one, one) for one in value) + "'"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, list):
        return f"[{_listed(value)}]"
    if isinstance(value, tuple):
        return f"({_listed(value)})"
    raise InvariantViolationError(f"{type(value).__name__} is no kind of parameter", where="usage statement")


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(literal, values))
