"""The ClickHouse engine inside this process (chdb): many connections, each with its own database and settings.

Connections are independent of each other: queries on two of them run at the same time, so a long INSERT does not keep
a SELECT waiting. Two queries on one connection run one after the other. Opening one takes a fraction of a millisecond.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from chdb import _chdb

from metering.clock import Clock
from metering.embedded.clickhouse_ask import Answer, Ask
from metering.embedded.clickhouse_statement import (
    READONLY,
    SESSION_IS_LOCKED,
    SESSION_NOT_FOUND,
    SYNTAX_ERROR,
    UNKNOWN_SETTING,
    InsertWithData,
    StatementError,
    insert_with_data,
    is_insert,
    quoted,
    quoted_name,
    refusal,
)
from metering.embedded.memory_file import memory_file

IDLE_MAX = 32
SESSIONS_MAX = 256
QUERIES_MAX = 64
SETTING_NAME = re.compile(r"\A[A-Za-z_][A-Za-z0-9_.]*\Z")
PARAMETER_NAME = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*\Z")


class Connection:
    """One chdb connection and what has been set on it."""

    def __init__(self, path: str) -> None:
        # The native module, not chdb's wrapper around it, which hides how many rows were written.
        self.native: Any = _chdb.connect(path)  # type: ignore[attr-defined]
        self.busy = threading.Lock()
        self.used_at_s = 0.0
        self.timeout_s = 0.0
        self._database = ""
        self._settings: dict[str, str | None] = {}

    def prepare(self, ask: Ask) -> None:
        """Bring database and settings to what the request asks for, saying only what differs."""
        if ask.database and ask.database != self._database:
            self.native.query(f"USE {quoted_name(ask.database)}", "TabSeparated")
            self._database = ask.database
        changes = [
            f"{_checked_name(name)} = {quoted(value)}"
            for name, value in ask.settings.items()
            if self._settings.get(name) != value
        ]
        changes += [f"{name} = DEFAULT" for name in self._settings if name not in ask.settings]
        if changes:
            # Should the engine refuse one of them, nobody knows which were set: then none counts as set.
            self._settings = {**self._settings, **dict.fromkeys(ask.settings)}
            self.native.query("SET " + ", ".join(changes), "TabSeparated")
            self._settings = dict(ask.settings)

    def close(self) -> None:
        self.native.close()


class Engine:
    """ClickHouse over the tables in `path`. One per process, and one process per path."""

    def __init__(self, path: str, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._idle: OrderedDict[tuple[str, frozenset[tuple[str, str]]], list[Connection]] = OrderedDict()
        self._idle_count = 0
        self._sessions: dict[str, Connection] = {}
        self._guard = threading.Lock()
        self._queries = threading.BoundedSemaphore(QUERIES_MAX)
        # The engine is shut down with its last connection, so one stays open.
        self._anchor = Connection(path)
        version = self._anchor.native.query("SELECT version()", "TabSeparated")
        self.version = version.bytes().decode().strip()

    def run(self, ask: Ask) -> Answer:
        """Run one statement. Raises StatementError with ClickHouse's code and message."""
        insert = insert_with_data(ask.query)
        with self._queries, _as_statement_error(), self._connection(ask) as use:
            if insert is not None:
                if ask.read_only:
                    raise refusal(READONLY, "READONLY", "INSERT needs the POST method")
                return _insert(use.connection, insert, ask)
            has_result = _check(use, ask)
            done = use.connection.native.query(_text(ask), ask.format, params=dict(ask.parameters))
            return Answer(
                body=done.bytes() or b"",
                has_result=has_result,
                rows_read=done.storage_rows_read(),
                bytes_read=done.storage_bytes_read(),
                rows_written=done.rows_written(),
                bytes_written=done.bytes_written(),
                result_rows=done.rows_read() if has_result else 0,
            )

    def stream(self, ask: Ask) -> Generator[bytes, None, None]:
        """Run a SELECT and give its answer block by block. The first block is awaited before anything is given."""
        with self._queries, _as_statement_error(), self._connection(ask) as use:
            use.keep = False
            _check(use, ask)
            native = use.connection.native
            running = native.send_query(_text(ask), ask.format, params=dict(ask.parameters))
            ended = False
            try:
                while True:
                    block = native.streaming_fetch_result(running)
                    if block is None or block.rows_read() == 0:
                        ended = True
                        return
                    yield block.bytes()
            finally:
                if not ended:
                    native.streaming_cancel_query(running)

    def close(self) -> None:
        """Close every connection; the engine ends with the last one."""
        with self._guard:
            connections = [each for group in self._idle.values() for each in group]
            connections += [*self._sessions.values(), self._anchor]
            self._idle.clear()
            self._sessions.clear()
        for connection in connections:
            connection.close()

    @contextmanager
    def _connection(self, ask: Ask) -> Iterator[_Use]:
        if ask.session_id:
            yield from self._session(ask)
            return
        key = (ask.database, frozenset(ask.settings.items()))
        use = _Use(self._take(key) or Connection(self._path))
        try:
            use.connection.prepare(ask)
            yield use
        except BaseException:
            use.keep = False
            raise
        finally:
            dropped = self._give_back(key, use.connection) if use.keep else use.connection
            if dropped is not None:
                dropped.close()

    def _session(self, ask: Ask) -> Iterator[_Use]:
        with self._guard:
            self._expire_sessions()
            connection = self._sessions.get(ask.session_id)
            if connection is None:
                if ask.session_check:
                    raise refusal(SESSION_NOT_FOUND, "SESSION_NOT_FOUND", "Session not found")
                connection = self._sessions[ask.session_id] = Connection(self._path)
            if not connection.busy.acquire(blocking=False):
                raise refusal(SESSION_IS_LOCKED, "SESSION_IS_LOCKED", "Session is locked by a concurrent client")
        try:
            connection.timeout_s = ask.session_timeout_s
            connection.prepare(ask)
            yield _Use(connection)
        finally:
            connection.used_at_s = self._clock.monotonic_s()
            connection.busy.release()

    def _expire_sessions(self) -> None:
        now_s = self._clock.monotonic_s()
        by_age = sorted(self._sessions.items(), key=lambda item: item[1].used_at_s)
        surplus = len(by_age) - SESSIONS_MAX
        for at, (name, connection) in enumerate(by_age):
            old = now_s - connection.used_at_s > connection.timeout_s
            if (old or at < surplus) and connection.busy.acquire(blocking=False):
                del self._sessions[name]
                connection.close()

    def _take(self, key: tuple[str, frozenset[tuple[str, str]]]) -> Connection | None:
        with self._guard:
            return self._pop(key)

    def _give_back(self, key: tuple[str, frozenset[tuple[str, str]]], connection: Connection) -> Connection | None:
        """Keep the connection for the next request like this one; gives the one that is to be closed instead."""
        with self._guard:
            self._idle.setdefault(key, []).append(connection)
            self._idle.move_to_end(key)
            self._idle_count += 1
            return self._pop(next(iter(self._idle))) if self._idle_count > IDLE_MAX else None

    def _pop(self, key: tuple[str, frozenset[tuple[str, str]]]) -> Connection | None:
        group = self._idle.get(key)
        if group is None:
            return None
        self._idle_count -= 1
        connection = group.pop()
        if not group:
            del self._idle[key]
        return connection


class _Use:
    """A connection in use by one request; `keep` says whether the next request may have it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.keep = True


@contextmanager
def _as_statement_error() -> Iterator[None]:
    """Give the engine's errors their code: chdb raises RuntimeError with ClickHouse's text."""
    try:
        yield
    except RuntimeError as error:
        raise StatementError(str(error)) from error
    except UnicodeDecodeError as error:
        # chdb cannot hand over a message that quotes bytes which are no UTF-8.
        raise refusal(SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error: the statement is not UTF-8") from error


def _check(use: _Use, ask: Ask) -> bool:
    """Whether the statement has an answer to give; refuses what one request may not do."""
    if is_insert(ask.query):
        if ask.read_only:
            raise refusal(READONLY, "READONLY", "INSERT needs the POST method")
        return False
    report: dict[str, Any] = use.connection.native.classify_query(_text(ask))
    if report["statement_count"] > 1:
        raise refusal(SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
    reads: bool = report["query_class"].name == "READ_ONLY"
    if ask.read_only and report["statement_count"] and not reads:
        raise refusal(READONLY, "READONLY", "Cannot run this statement with the GET method, use POST")
    # SET, USE, temporary tables: what they leave on the connection must not reach another request.
    use.keep = reads
    return reads


def _insert(connection: Connection, insert: InsertWithData, ask: Ask) -> Answer:
    """Have the engine read the rows as a file: chdb's own way to send them loses errors that come when they are stored.

    Rows that a full disk or a constraint refused were reported as written there.
    """
    with memory_file((memoryview(ask.query)[insert.data_start :], memoryview(ask.data))) as path:
        rows = f"FROM INFILE {quoted(path)} COMPRESSION 'none'\n{insert.settings}\nFORMAT {insert.format}"
        text = f"{insert.statement}\n{rows}"
        done = connection.native.query(text, "TabSeparated", params=dict(ask.parameters))
    return Answer(body=b"", has_result=False, rows_written=done.rows_written(), bytes_written=done.bytes_written())


def _text(ask: Ask) -> bytes | str:
    whole = ask.query + b"\n" + ask.data if ask.data else ask.query
    try:
        return whole.decode("utf-8")
    except UnicodeDecodeError:
        return whole


def _checked_name(name: str) -> str:
    if not SETTING_NAME.match(name):
        raise refusal(UNKNOWN_SETTING, "UNKNOWN_SETTING", f"Unknown setting {name!r}")
    return name


def _checked_parameter(name: str) -> str:
    if not PARAMETER_NAME.match(name):
        raise refusal(SYNTAX_ERROR, "SYNTAX_ERROR", f"{name!r} cannot be the name of a parameter")
    return name
