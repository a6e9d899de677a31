"""What the engine is asked and what it answers, whoever carries it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request to the engine. `query` holds the statement and, for an INSERT … FORMAT, the data after it."""

    query: bytes
    data: bytes = b""
    database: str = ""
    settings: Mapping[str, str] = {}
    parameters: Mapping[str, str] = {}
    format: str = "TabSeparated"
    read_only: bool = False
    session_id: str = ""
    session_check: bool = False
    session_timeout_s: float = 60.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `rows_written` counts what an INSERT brought, before the engine dropped repeated blocks."""

    body: bytes
    has_result: bool
    rows_read: int = 0
    bytes_read: int = 0
    rows_written: int = 0
    bytes_written: int = 0
    result_rows: int = 0
