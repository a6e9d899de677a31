"""Reading a statement as ClickHouse's HTTP interface does: where its data begins, which format, what went wrong."""

from __future__ import annotations

import re

import msgspec

TOKEN = re.compile(
    rb"--[^\n]*|#![^\n]*|/\*.*?\*/"
    rb"|'(?:\\.|''|[^'\\])*'|`(?:\\.|``|[^`\\])*`|\"(?:\\.|\"\"|[^\"\\])*\""
    rb"|[A-Za-z_][A-Za-z0-9_]*|\s+|.",
    re.DOTALL,
)
BEFORE_DATA = re.compile(rb"[ \t\f]*;?[ \t\f]*(?:\r?\n)?")
FORMAT_AT_END = re.compile(rb"\bFORMAT\s+([A-Za-z_][A-Za-z0-9_]*)\s*(?:SETTINGS\b[^;]*)?;?\s*\Z", re.IGNORECASE)
ERROR_CODE = re.compile(r"Code: (\d+)\.")

DEFAULT_FORMAT = "TabSeparated"
# Each block of these stands for itself, so blocks sent one after another are one valid answer.
STREAMABLE_FORMATS = frozenset({"native", "rowbinary", "tabseparated", "tsv", "csv", "jsoneachrow"})

SYNTAX_ERROR = 62
NOT_IMPLEMENTED = 48
READONLY = 164
UNKNOWN_SETTING = 115
SESSION_NOT_FOUND = 372
SESSION_IS_LOCKED = 373
AUTHENTICATION_FAILED = 516
UNKNOWN_EXCEPTION = 1002

HTTP_STATUS_OF_CODE = {
    **dict.fromkeys((AUTHENTICATION_FAILED, 192, 193, 194, READONLY, 291, 497), 403),
    **dict.fromkeys((46, 47, 50, 52, 60, 63, 81, 82, 111, 115, 218, 636, SESSION_NOT_FOUND), 404),
    **dict.fromkeys((6, 26, 27, 36, 38, 41, 42, 43, 53, 62, 69, 70, 72, 117, 190, 321, 386, 457), 400),
    159: 408,
    NOT_IMPLEMENTED: 501,
}


class InsertWithData(msgspec.Struct, frozen=True, kw_only=True):
    """An INSERT whose rows follow as data: `statement` and `settings` come before FORMAT; data from `data_start`."""

    statement: str
    settings: str = ""
    format: str
    data_start: int


class StatementError(Exception):
    """What the interface answers as ClickHouse would: `code` and, as its text, the whole message."""

    def __init__(self, message: str) -> None:
        self.code = error_code(message)
        coded = self.code != UNKNOWN_EXCEPTION
        super().__init__(message if coded else f"Code: {UNKNOWN_EXCEPTION}. DB::Exception: {message}")


def refusal(code: int, name: str, message: str) -> StatementError:
    """An error of the interface itself, in ClickHouse's words: code, its name, and what happened."""
    return StatementError(f"Code: {code}. DB::Exception: {message}. ({name})")


def insert_with_data(query: bytes) -> InsertWithData | None:
    """Take `INSERT INTO t … FORMAT f <data>` apart; None for everything else, INSERT … SELECT and VALUES included."""
    depth = 0
    words: list[bytes] = []
    format_at = settings_at = -1
    for token in TOKEN.finditer(query):
        text = token.group()
        first = text[:1]
        if first.isspace() or text.startswith((b"--", b"#!", b"/*")):
            continue
        depth += (text == b"(") - (text == b")")
        if format_at >= 0:
            return _insert(query, settings_at if settings_at >= 0 else format_at, format_at, token)
        word = text.upper() if first.isalpha() or first == b"_" else text
        if not words and word != b"INSERT":
            return None
        if depth == 0 and word in (b"SELECT", b"WITH", b"VALUES", b"INFILE", b"WATCH"):
            return None
        if depth == 0 and words and words[-1] not in (b"INTO", b"TABLE", b"."):
            if word == b"FORMAT":
                format_at = token.start()
            elif word == b"SETTINGS" and settings_at < 0:
                settings_at = token.start()
        words.append(word)
    return None


def _insert(query: bytes, statement_end: int, format_at: int, token: re.Match[bytes]) -> InsertWithData | None:
    name = token.group().decode("utf-8", "replace")
    if not name.isidentifier() or name.upper() == "VALUES":
        return None
    gap = BEFORE_DATA.match(query, token.end())
    return InsertWithData(
        statement=query[:statement_end].decode("utf-8").strip(),
        settings=query[statement_end:format_at].decode("utf-8").strip(),
        format=name,
        data_start=gap.end() if gap else token.end(),
    )


def is_insert(query: bytes) -> bool:
    """Whether the first word is INSERT, comments aside."""
    for token in TOKEN.finditer(query):
        text = token.group()
        if not text.isspace() and not text.startswith((b"--", b"#!", b"/*")):
            return text.upper() == b"INSERT"
    return False


def result_format(query: bytes, default: str) -> str:
    """The format the answer comes in: the statement's own FORMAT clause, or the default."""
    named = FORMAT_AT_END.search(query[-4_096:])
    return named.group(1).decode("ascii") if named else default


def error_code(message: str) -> int:
    """ClickHouse's error code out of its message; 1002 (unknown exception) when there is none."""
    found = ERROR_CODE.search(message)
    return int(found.group(1)) if found else UNKNOWN_EXCEPTION


def http_status(code: int) -> int:
    """The HTTP status that goes with an error code; 500 for all that is not the question's fault."""
    return HTTP_STATUS_OF_CODE.get(code, 500)


def quoted(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quoted_name(name: str) -> str:
    """An identifier, whatever it is made of."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
