"""Runs somebody's SELECT: nothing can be written by it, and it may take so many rows and so long."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.errors import RequestError

ROWS_MAX: Final = 1_000
TIME_S_MAX: Final = 60

_FORMAT: Final = "JSONCompactEachRowWithNamesAndTypes"
_EXACT: Final = {"output_format_json_quote_decimals": 1, "output_format_json_quote_64bit_integers": 1}
"""Numbers that a reader of JSON could round are texts."""
_NOTHING_CHANGES: Final = 1
"""ClickHouse's `readonly`: 1 reads, and changes no setting; 2 reads, and may change settings but this one."""
_READONLY_CODE: Final = 164
_ACCESS_CODE: Final = 497
_TIME_CODE: Final = 159
_ROWS_CODES: Final = frozenset({158, 396})
_REASON_CHARACTERS_MAX: Final = 600


class ReadAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a query answers. Decimals and 64-bit integers are texts, NULL is None."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def read_query(client: Client, query: str, *, rows_max: int = ROWS_MAX, time_s_max: int = TIME_S_MAX) -> ReadAnswer:
    """The answer of a query that only reads. A user who is bound to reading anyway keeps the bounds it has.

    Raises RequestError for a query that writes, is wrong, or meets a limit; and whatever the driver raises when nothing
    answers.
    """
    text = query.strip().rstrip(";").strip()
    if not text:
        raise RequestError("there is no query", where="query", fix="""Try `metering sql "SHOW TABLES"`""")
    bound = int(client.query("SELECT getSetting('readonly')").result_rows[0][0])
    settings: dict[str, int] = {}
    if bound != _NOTHING_CHANGES:
        settings = {"max_result_rows": rows_max, "max_execution_time": time_s_max, **_EXACT}
        settings |= {} if bound else {"readonly": _NOTHING_CHANGES}
    try:
        answer = client.raw_query(text, settings=settings, fmt=_FORMAT)
    except DatabaseError as error:
        if error.code is None:
            raise
        raise _refused(error, rows_max, time_s_max) from error
    names, types, *rows = msgspec.json.decode(b"[" + answer.rstrip(b"\n").replace(b"\n", b",") + b"]")
    return ReadAnswer(columns=tuple(names), types=tuple(types), rows=tuple(tuple(row) for row in rows))


def _refused(error: DatabaseError, rows_max: int, time_s_max: int) -> RequestError:
    """The driver's error as what to do about it."""
    reason = " ".join(str(error).split())[:_REASON_CHARACTERS_MAX]
    if error.code in (_READONLY_CODE, _ACCESS_CODE):
        what, fix = "only reading is allowed here", "Ask with SELECT, and leave settings as they are"
        return RequestError(f"{what} ({reason})", where="query", fix=fix)
    if error.code in _ROWS_CODES:
        fix = "Ask for fewer with LIMIT or WHERE, or raise --rows-max"
        return RequestError(f"the answer has more than {rows_max:,} rows", where="query", fix=fix)
    if error.code == _TIME_CODE:
        fix = "Ask about a shorter time, or raise --timeout-s"
        return RequestError(f"the query takes longer than {time_s_max} s", where="query", fix=fix)
    fix = "docs/tables.md has every table and column, docs/sql.md queries to begin with"
    return RequestError(f"ClickHouse cannot answer this: {reason}", where="query", fix=fix)
