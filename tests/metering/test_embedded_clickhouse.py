"""The embedded ClickHouse as its clients see it: clickhouse-connect, curl-like requests, and after a crash."""

# ruff: noqa: S608 - the names of this file's tables are made in this file

from __future__ import annotations

import gzip
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import clickhouse_connect
import lz4.frame  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
import zstandard
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.query import arrow_buffer

from metering.clickhouse import is_passing
from metering.embedded.clickhouse import EmbeddedClickHouse
from metering.embedded.process import python_env
from schemas.errors import AlreadyRunningError, PortTakenError
from tests.support.small_disk import small_disk


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    """Always the embedded one, whatever the other tests run against, in a folder with an awkward name."""
    with EmbeddedClickHouse(tmp_path_factory.mktemp("ch") / "it's 100% a ?b&c=é") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: EmbeddedClickHouse) -> Iterator[Client]:
    client = client_of(server)
    client.command("CREATE DATABASE d")
    yield client
    client.close()


def client_of(server: EmbeddedClickHouse, **options: Any) -> Client:
    options.setdefault("autogenerate_session_id", False)
    return clickhouse_connect.get_client(host="127.0.0.1", port=server.port, **options)


def ask(
    server: EmbeddedClickHouse,
    query: str = "",
    *,
    method: str = "POST",
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    **parameters: str,
) -> tuple[int, dict[str, str], bytes]:
    """What any HTTP client would send: status, headers with small letters, body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    given = {**({"query": query} if query else {}), **parameters}
    connection.request(method, f"/?{urlencode(given)}", body=body or None, headers=headers or {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content


def table(client: Client, columns: str, engine: str = "MergeTree ORDER BY tuple()") -> str:
    name = f"d.t_{uuid.uuid4().hex[:8]}"
    client.command(f"CREATE TABLE {name} ({columns}) ENGINE = {engine}")
    return name


HUGE = Decimal("12345678901234567890123456789012345678901234567890.123456789012")
LARGE_128 = 2**128 - 5


@pytest.mark.parametrize(
    ("column", "arrow_type", "values"),
    [
        ("Decimal(76, 12)", pa.decimal256(76, 12), [HUGE, Decimal("-0.000000000001")]),
        ("Decimal(38, 12)", pa.decimal128(38, 12), [Decimal("12345678901234567890123456.123456789012"), Decimal(-1)]),
        ("UInt128", pa.decimal256(76, 0), [LARGE_128, 0]),
        ("Map(LowCardinality(String), String)", pa.map_(pa.string(), pa.string()), [{"origin": "JFK", "": "ü"}, {}]),
        ("LowCardinality(String)", pa.dictionary(pa.int32(), pa.string()), ["UA", "UA"]),
        ("Array(String)", pa.list_(pa.string()), [["a", ""], []]),
        ("Nullable(String)", pa.string(), ["a", None]),
        ("Nullable(Decimal(38, 12))", pa.decimal128(38, 12), [Decimal("1.5"), None]),
    ],
)
def test_a_column_comes_back_as_it_went_in_by_arrow_and_by_native(
    client: Client, column: str, arrow_type: pa.DataType, values: list[object]
) -> None:
    name = table(client, f"k UInt8, v {column}", "MergeTree ORDER BY k")

    client.insert_arrow(name, pa.table({"k": pa.array([0, 1], pa.uint8()), "v": pa.array(values, arrow_type)}))
    client.insert(name, [[2, values[0]], [3, values[1]]], column_names=["k", "v"])

    assert [row[0] for row in client.query(f"SELECT v FROM {name} ORDER BY k").result_rows] == values + values


def test_a_128_bit_number_goes_in_by_arrow_as_16_little_endian_bytes(client: Client) -> None:
    name = table(client, "v UInt128")

    sent = pa.array([LARGE_128.to_bytes(16, "little")], pa.binary(16))
    client.insert_arrow(name, pa.table({"v": sent}))

    assert client.query(f"SELECT v FROM {name}").result_rows == [(LARGE_128,)]
    assert client.query_arrow(f"SELECT v FROM {name}").column("v").to_pylist() == sent.to_pylist()


def test_microseconds_in_utc_survive(client: Client) -> None:
    name = table(client, "v DateTime64(6, 'UTC')")
    moment = datetime(2013, 3, 10, 6, 59, 59, 999_999, UTC)

    client.insert_arrow(name, pa.table({"v": pa.array([moment], pa.timestamp("us", tz="UTC"))}))

    assert client.query_arrow(f"SELECT v FROM {name}").column("v").to_pylist() == [moment]


def test_parameters_are_bound_by_the_server_whatever_they_hold(client: Client) -> None:
    awkward = "a'; DROP TABLE t; --\\ \t\n{x:String} 漢"

    row = client.query(
        "SELECT {s:String}, {n:UInt64}, {d:Decimal(38, 12)}, {l:Array(String)}",
        parameters={"s": awkward, "n": 2**64 - 1, "d": Decimal("1.000000000001"), "l": ["x'y", ""]},
    ).result_rows[0]

    assert row == (awkward, 2**64 - 1, Decimal("1.000000000001"), ["x'y", ""])


def test_parameters_too_long_for_a_url_come_as_form_fields(client: Client) -> None:
    many = [f"id-{number}" for number in range(20_000)]

    assert client.query("SELECT length({ids:Array(String)})", parameters={"ids": many}).result_rows == [(20_000,)]


def test_an_insert_takes_the_name_of_its_table_as_a_parameter(server: EmbeddedClickHouse, client: Client) -> None:
    name = table(client, "a UInt8").removeprefix("d.")

    status, _, body = ask(server, "INSERT INTO d.{t:Identifier} FORMAT CSV", body=b"1\n2\n", param_t=name)

    assert (status, body) == (200, b"")
    assert client.command(f"SELECT sum(a) FROM d.{name}") == 3


def test_settings_hold_for_their_query_only(client: Client) -> None:
    query = "SELECT toTypeName(b) FROM (SELECT 1 AS a) x LEFT JOIN (SELECT 2 AS a, 'y' AS b) y USING a"

    assert client.command(query, settings={"join_use_nulls": 1}) == "Nullable(String)"
    assert client.command(query) == "String"


def test_a_statement_that_sets_something_does_not_reach_another_request(server: EmbeddedClickHouse) -> None:
    assert ask(server, "SET join_use_nulls = 1")[0] == 200

    assert ask(server, "SELECT getSetting('join_use_nulls')")[2] == b"false\n"


def test_a_session_keeps_what_was_set_in_it(server: EmbeddedClickHouse) -> None:
    first = client_of(server, session_id="s1")
    first.command("CREATE TEMPORARY TABLE kept (a UInt8)")
    first.command("INSERT INTO kept VALUES (7)")

    assert first.command("SELECT a FROM kept") == 7
    assert first.command("EXISTS TEMPORARY TABLE kept") == 1
    assert client_of(server, session_id="s2").command("EXISTS TEMPORARY TABLE kept") == 0


def test_final_and_deduplication_tokens_work(client: Client) -> None:
    name = table(
        client,
        "k UInt8, v UInt8",
        "ReplacingMergeTree(v) ORDER BY k SETTINGS non_replicated_deduplication_window = 100",
    )
    for token, value in (("one", 1), ("one", 1), ("two", 2)):
        client.insert(name, [[0, value]], column_names=["k", "v"], settings={"insert_deduplication_token": token})

    assert client.command(f"SELECT count() FROM {name}") == 2
    assert client.query(f"SELECT v FROM {name}", settings={"final": 1}).result_rows == [(2,)]


def test_a_query_over_its_time_is_ended_with_clickhouse_s_error(client: Client) -> None:
    with pytest.raises(DatabaseError, match="TIMEOUT_EXCEEDED"):
        client.query("SELECT count() FROM numbers(1000000000000)", settings={"max_execution_time": 1})


@pytest.mark.parametrize(
    ("query", "code", "status"),
    [
        ("SELECT * FROM d.nowhere", "60", 404),
        ("SELECT * FROM nowhere.t", "81", 404),
        ("SELECT nowhere", "47", 404),
        ("SELECT FROM WHERE", "62", 400),
        ("SELECT 1; SELECT 2", "62", 400),
        ("SELECT 1 SETTINGS nowhere = 1", "115", 404),
        ("SELECT {x:UInt8}", "456", 500),
    ],
)
def test_an_error_has_clickhouse_s_code_and_words(
    server: EmbeddedClickHouse, client: Client, query: str, code: str, status: int
) -> None:
    answered, headers, body = ask(server, query)

    assert (answered, headers["x-clickhouse-exception-code"]) == (status, code)
    assert body.startswith(f"Code: {code}. DB::Exception: ".encode())
    with pytest.raises(DatabaseError, match=f"code: {code}"):
        client.query(query)


def test_rows_that_cannot_be_read_insert_nothing_and_the_next_insert_works(
    server: EmbeddedClickHouse, client: Client
) -> None:
    name = table(client, "a UInt8")
    for data_format, rubbish in (("Arrow", b"rubbish"), ("Native", b"rubbish"), ("CSV", b"1\n2\nx\n")):
        status, headers, _ = ask(server, f"INSERT INTO {name} FORMAT {data_format}", body=rubbish)
        assert status >= 400
        assert "x-clickhouse-exception-code" in headers

    assert client.command(f"SELECT count() FROM {name}") == 0
    assert ask(server, f"INSERT INTO {name} FORMAT CSV", body=b"5\n")[0] == 200
    assert client.command(f"SELECT sum(a) FROM {name}") == 5


def test_rows_that_a_constraint_refuses_are_an_error_and_not_said_to_be_written(
    server: EmbeddedClickHouse, client: Client
) -> None:
    name = table(client, "a UInt8, CONSTRAINT small CHECK a < 5")

    status, headers, _ = ask(server, f"INSERT INTO {name} SETTINGS max_threads = 1 FORMAT CSV", body=b"1\n7\n")

    assert (status, headers["x-clickhouse-exception-code"]) == (500, "469")
    assert ask(server, f"INSERT INTO {name} SETTINGS max_threads = 1 FORMAT CSV", body=b"1\n")[0] == 200
    assert client.command(f"SELECT count() FROM {name}") == 1


def test_an_insert_on_a_full_disk_is_an_error_and_works_once_there_is_room(tmp_path: Path) -> None:
    rows = pa.table({"a": pa.array(range(1_000), pa.uint32())})
    with (
        small_disk(tmp_path / "disk", 96 * 1024 * 1024) as disk,
        EmbeddedClickHouse(disk.folder / "ch") as server,
    ):
        client = client_of(server)
        client.command("CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a")
        with disk.full(server.pid), pytest.raises(DatabaseError) as caught:
            client.insert_arrow("t", rows)
        client.insert_arrow("t", rows)

        assert is_passing(caught.value), caught.value
        assert client.command("SELECT count(), sum(a) FROM t") == ["1000", "499500"]
        client.close()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("zstd", zstandard.compress), ("lz4", lz4.frame.compress), ("identity", bytes)],
)
def test_a_compressed_insert_is_read(client: Client, encoding: str, pack: Any) -> None:
    name = table(client, "a UInt8")
    names, buffer = arrow_buffer(pa.table({"a": pa.array([1, 2, 3], pa.uint8())}))

    summary = client.raw_insert(name, names, pack(pa.py_buffer(buffer).to_pybytes()), fmt="Arrow", compression=encoding)

    assert summary.written_rows == 3
    assert client.command(f"SELECT sum(a) FROM {name}") == 6


def test_a_client_that_compresses_everything_is_understood(server: EmbeddedClickHouse, client: Client) -> None:
    name = table(client, "a UInt64")
    compressing = client_of(server, compress=True)

    compressing.insert(name, [[number] for number in range(1_000)], column_names=["a"])

    assert compressing.query(f"SELECT sum(a) FROM {name}").result_rows == [(499_500,)]


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "lz4", "deflate", "br"])
def test_a_body_that_is_not_what_its_encoding_says_is_refused(server: EmbeddedClickHouse, encoding: str) -> None:
    status, headers, _ = ask(server, "INSERT INTO d.t FORMAT CSV", body=b"no", headers={"Content-Encoding": encoding})

    assert status in (400, 501)
    assert headers["x-clickhouse-exception-code"] in ("6", "48")


def test_a_statement_may_come_in_the_url_or_in_the_body_or_in_both(server: EmbeddedClickHouse, client: Client) -> None:
    name = table(client, "a UInt8, b String")

    assert ask(server, f"INSERT INTO {name} FORMAT CSV", body=b"1,x\n")[0] == 200
    assert ask(server, body=f"INSERT INTO {name} (b, a) FORMAT CSV\ny,2\n".encode())[0] == 200
    assert ask(server, f"INSERT INTO {name} VALUES", body=b"(3, 'FORMAT CSV')")[0] == 200
    assert ask(server, body=f"/* c */ INSERT INTO {name} SELECT 4, 'z'".encode())[0] == 200

    assert ask(server, f"SELECT * FROM {name} ORDER BY a", default_format="CSV")[2] == (
        b'1,"x"\n2,"y"\n3,"FORMAT CSV"\n4,"z"\n'
    )


def test_get_reads_and_never_writes(server: EmbeddedClickHouse, client: Client) -> None:
    name = table(client, "a UInt8")

    assert ask(server, f"SELECT count() FROM {name}", method="GET")[2] == b"0\n"
    for statement in (f"INSERT INTO {name} VALUES (1)", f"INSERT INTO {name} FORMAT CSV 1", f"DROP TABLE {name}"):
        status, headers, _ = ask(server, statement, method="GET")
        assert (status, headers["x-clickhouse-exception-code"]) == (403, "164")

    assert client.command(f"SELECT count() FROM {name}") == 0


@pytest.mark.usefixtures("client")
def test_the_database_is_chosen_per_request(server: EmbeddedClickHouse) -> None:
    assert ask(server, "SELECT currentDatabase()", database="d")[2] == b"d\n"
    assert ask(server, "SELECT currentDatabase()")[2] == b"default\n"
    assert ask(server, "SELECT 1", database="nowhere")[1]["x-clickhouse-exception-code"] == "81"


def test_answers_say_their_format_and_what_was_done(server: EmbeddedClickHouse, client: Client) -> None:
    name = table(client, "a UInt8")

    _, written, _ = ask(server, f"INSERT INTO {name} FORMAT CSV", body=b"1\n2\n", query_id="my-id")
    _, read, body = ask(server, f"SELECT a FROM {name} ORDER BY a FORMAT JSONEachRow", wait_end_of_query="1")

    assert json.loads(written["x-clickhouse-summary"])["written_rows"] == "2"
    assert written["x-clickhouse-query-id"] == "my-id"
    assert "x-clickhouse-format" not in written
    assert (read["x-clickhouse-format"], body) == ("JSONEachRow", b'{"a":1}\n{"a":2}\n')
    assert read["x-clickhouse-timezone"] == "UTC"


def test_a_long_answer_comes_block_by_block_and_whole(client: Client) -> None:
    total = rows = 0
    with client.query_row_block_stream("SELECT number FROM numbers(1000000)") as blocks:
        for block in blocks:
            rows += len(block)
            total += sum(row[0] for row in block)

    assert (rows, total) == (1_000_000, 499_999_500_000)


def test_a_long_answer_that_fails_on_the_way_is_an_error_and_not_a_short_answer(client: Client) -> None:
    query = "SELECT throwIf(number = 900000, 'too far') FROM numbers(1000000) SETTINGS max_block_size = 1000"

    def read() -> int:
        with client.query_row_block_stream(query) as blocks:
            return sum(len(block) for block in blocks)

    with pytest.raises(DatabaseError):
        read()


def test_a_request_whose_body_breaks_off_inserts_nothing(server: EmbeddedClickHouse, client: Client) -> None:
    name = table(client, "a UInt8")
    target = f"/?{urlencode({'query': f'INSERT INTO {name} FORMAT CSV'})}"
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\n"
    broken_length = f"{head}Content-Length: 100\r\n\r\n1\n2\n"
    broken_chunk = f"{head}Transfer-Encoding: chunked\r\n\r\n4\r\n1\n2\n\r\n"

    for request in (broken_length, broken_chunk):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(request.encode())
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as answer:
                assert b"nothing was run" in answer.read()

    assert client.command(f"SELECT count() FROM {name}") == 0


def test_a_statement_that_is_no_utf_8_is_a_syntax_error(server: EmbeddedClickHouse) -> None:
    for wait_end_of_query in ("0", "1"):
        status, headers, _ = ask(server, body=b"SELECT \xff\xfe", wait_end_of_query=wait_end_of_query)
        assert (status, headers["x-clickhouse-exception-code"]) == (400, "62")


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://example.org"}, {"Host": "rebound.example.org"}, {"Host": "[::1"}, {"Origin": "null"}],
)
def test_a_web_page_of_another_site_is_refused(server: EmbeddedClickHouse, headers: dict[str, str]) -> None:
    assert ask(server, "SELECT 1", headers=headers)[0] == 403


def test_a_wrong_user_or_password_is_refused(server: EmbeddedClickHouse) -> None:
    for login in ({"username": "eve"}, {"password": "guess"}):
        with pytest.raises(DatabaseError, match="AUTHENTICATION_FAILED"):
            client_of(server, **login)


def test_the_password_of_the_settings_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERING_CLICKHOUSE_USERNAME", "meter")
    monkeypatch.setenv("METERING_CLICKHOUSE_PASSWORD", "s3cret 'ü")
    with EmbeddedClickHouse(tmp_path) as server:
        client = client_of(server, username="meter", password="s3cret 'ü")
        assert client.command("SELECT 1") == 1
        client.close()
        assert ask(server, "SELECT 1")[0] == 403


def test_a_select_is_answered_while_another_query_runs(server: EmbeddedClickHouse) -> None:
    done: list[str] = []

    def slow() -> None:
        ask(server, "SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_block_size = 1")
        done.append("slow")

    running = threading.Thread(target=slow)
    running.start()
    assert ask(server, "SELECT 1")[2] == b"1\n"
    done.append("quick")
    running.join()

    assert done == ["quick", "slow"]


def test_many_threads_insert_and_read_at_once(server: EmbeddedClickHouse, client: Client) -> None:
    name = table(client, "writer UInt8, n UInt32", "MergeTree ORDER BY (writer, n)")
    errors: list[DatabaseError] = []
    seen_after_own_insert: list[bool] = []

    def work(writer: int) -> None:
        try:
            own = client_of(server)
            for batch in range(10):
                own.insert(name, [[writer, batch * 100 + n] for n in range(100)], column_names=["writer", "n"])
                seen = own.command(f"SELECT count() FROM {name} WHERE writer = {writer}")
                seen_after_own_insert.append(seen == (batch + 1) * 100)
            own.close()
        except DatabaseError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert seen_after_own_insert == [True] * 80
    assert client.query(f"SELECT count(), uniqExact(writer, n) FROM {name}").result_rows == [(8_000, 8_000)]


def test_merges_run_in_the_background(client: Client) -> None:
    name = table(client, "a UInt32", "MergeTree ORDER BY a")
    for number in range(60):
        client.insert(name, [[number]], column_names=["a"])

    def parts() -> int:
        query = "SELECT count() FROM system.parts WHERE active AND database || '.' || table = {t:String}"
        return int(str(client.command(query, parameters={"t": name})))

    deadline = time.monotonic() + 30
    while parts() >= 60:
        assert time.monotonic() < deadline, "60 parts and no merge"
        time.sleep(0.1)
    assert client.command(f"SELECT sum(a) FROM {name}") == sum(range(60))


ROWS_OF_AN_INSERT = 50_000


def test_a_killed_engine_keeps_every_insert_it_answered_and_no_half_of_one(tmp_path: Path) -> None:
    server = EmbeddedClickHouse(tmp_path)
    server.start()
    client = client_of(server)
    client.command("CREATE DATABASE d")
    client.command("CREATE TABLE d.t (batch UInt32, n UInt32) ENGINE = MergeTree ORDER BY (batch, n)")
    answered: list[int] = []

    def insert_for_ever() -> None:
        own = client_of(server, connect_timeout=2)
        numbers = pa.array(range(ROWS_OF_AN_INSERT), pa.uint32())
        batch = 0
        try:
            while True:
                own.insert_arrow(
                    "d.t", pa.table({"batch": pa.array([batch] * ROWS_OF_AN_INSERT, pa.uint32()), "n": numbers})
                )
                answered.append(batch)
                batch += 1
        except DatabaseError:
            own.close()

    try:
        for _ in range(3):
            answered.clear()
            client.command("TRUNCATE TABLE d.t")
            inserting = threading.Thread(target=insert_for_ever)
            inserting.start()
            while len(answered) < 5:
                time.sleep(0.001)
            server.kill()
            inserting.join()
            server.start()
            rows = client.query("SELECT batch, count() FROM d.t GROUP BY batch").result_rows
            found = {row[0]: row[1] for row in rows}
            assert set(answered) <= set(found)
            assert set(found.values()) == {ROWS_OF_AN_INSERT}
            assert len(found) <= len(answered) + 1
    finally:
        client.close()
        server.kill()


def test_a_second_engine_on_the_same_folder_is_refused(server: EmbeddedClickHouse) -> None:
    second = EmbeddedClickHouse(server.log_path.parent)

    with pytest.raises(AlreadyRunningError, match=rf"process {server.pid}\b"):
        second.start()

    assert ask(server, "SELECT 1")[2] == b"1\n"


def test_a_taken_port_is_named_with_its_setting(server: EmbeddedClickHouse, tmp_path: Path) -> None:
    with pytest.raises(PortTakenError, match=rf"{server.port}.*METERING_CLICKHOUSE_PORT"):
        EmbeddedClickHouse(tmp_path, port=server.port).start()


def test_the_engine_ends_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from metering.embedded.clickhouse import EmbeddedClickHouse\n"
        "server = EmbeddedClickHouse(Path(sys.argv[1])); server.start(); print(server.pid, flush=True)\n"
        "time.sleep(600)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, env=python_env(), text=True
    )
    assert starter.stdout is not None
    engine = Path(f"/proc/{int(starter.stdout.readline())}")
    assert engine.exists()

    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()

    deadline = time.monotonic() + 30
    while engine.exists():
        assert time.monotonic() < deadline, "the engine lives on"
        time.sleep(0.05)
    with EmbeddedClickHouse(tmp_path) as again:
        assert ask(again, "SELECT 1")[2] == b"1\n"
