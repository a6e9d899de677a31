"""Taking an INSERT apart: where its data begins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.embedded.clickhouse_statement import InsertWithData, insert_with_data, is_insert, result_format


@pytest.mark.parametrize(
    ("query", "statement", "data_format", "data"),
    [
        (b"INSERT INTO t FORMAT Native\n\x01\x02", "INSERT INTO t", "Native", b"\x01\x02"),
        (b"insert into t format CSV 1,2", "insert into t", "CSV", b"1,2"),
        (b"INSERT INTO t (a, `format`) FORMAT TSV\n\n1", "INSERT INTO t (a, `format`)", "TSV", b"\n1"),
        (b"INSERT INTO format FORMAT CSV\n1", "INSERT INTO format", "CSV", b"1"),
        (b"INSERT INTO d.format (x) FORMAT CSV\r\n1", "INSERT INTO d.format (x)", "CSV", b"1"),
        (b"/* SELECT */ INSERT INTO t --VALUES\n FORMAT CSV\nA", "/* SELECT */ INSERT INTO t --VALUES", "CSV", b"A"),
        (b"INSERT INTO settings FORMAT CSV\n1", "INSERT INTO settings", "CSV", b"1"),
        (b"INSERT INTO `a FORMAT b` FORMAT CSV;\n1", "INSERT INTO `a FORMAT b`", "CSV", b"1"),
        (b"INSERT INTO FUNCTION file('x', 'CSV') FORMAT CSV\n1", "INSERT INTO FUNCTION file('x', 'CSV')", "CSV", b"1"),
        (b"INSERT INTO t FORMAT JSONEachRow", "INSERT INTO t", "JSONEachRow", b""),
    ],
)
def test_the_data_of_an_insert_begins_after_its_format(
    query: bytes, statement: str, data_format: str, data: bytes
) -> None:
    found = insert_with_data(query)

    assert found == InsertWithData(statement=statement, format=data_format, data_start=len(query) - len(data))


def test_the_settings_of_an_insert_are_told_from_its_statement() -> None:
    found = insert_with_data(b"INSERT INTO t (a) SETTINGS x = 'FORMAT', y = 1 FORMAT CSV\n1")

    assert found == InsertWithData(
        statement="INSERT INTO t (a)", settings="SETTINGS x = 'FORMAT', y = 1", format="CSV", data_start=58
    )


@pytest.mark.parametrize(
    "query",
    [
        b"INSERT INTO t VALUES (1, 'FORMAT CSV')",
        b"INSERT INTO t FORMAT Values (1)",
        b"INSERT INTO t SELECT 1 FORMAT CSV",
        b"INSERT INTO t WITH 1 AS a SELECT a FORMAT CSV",
        b"INSERT INTO t FROM INFILE 'x' FORMAT CSV",
        b"SELECT 'INSERT INTO t FORMAT CSV'",
        b"-- INSERT INTO t FORMAT CSV\nSELECT 1",
        b"INSERT INTO t FORMAT",
        b"INSERT INTO t FORMAT 'x'",
        b"",
        b"'",
    ],
)
def test_every_other_statement_is_left_whole(query: bytes) -> None:
    assert insert_with_data(query) is None


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail(rubbish: bytes) -> None:
    insert_with_data(rubbish)
    is_insert(rubbish)
    found = insert_with_data(b"INSERT INTO t FORMAT Native\n" + rubbish)

    assert found is not None
    assert found.data_start == len(b"INSERT INTO t FORMAT Native\n")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"SELECT 1", "TSV"),
        (b"SELECT 1 FORMAT JSON", "JSON"),
        (b"SELECT 1\n FORMAT Native\n;\n", "Native"),
        (b"SELECT 1 FORMAT CSV SETTINGS max_threads = 1", "CSV"),
        (b"SELECT 'FORMAT CSV'", "TSV"),
    ],
)
def test_the_format_of_an_answer_is_the_statement_s_own_or_the_default(query: bytes, expected: str) -> None:
    assert result_format(query, "TSV") == expected
