"""Rows become events with every digit as it stands; a bad row is named by file and line and the others go on."""

from __future__ import annotations

import gzip
import json
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from examples.flights.flights import FLIGHTS, flights_file
from ingest.files.events import EventMaker, FileEvent, RowProblem
from ingest.files.mapping import Mapping
from ingest.files.reading import FileReader
from ingest.files.times import RowError
from schemas.errors import RequestError
from schemas.usage_event import decode_event

CALLS = Mapping(
    event_type="call",
    source="urn:pbx",
    subject_column="account",
    time="at",
    id_columns=("id",),
    number_columns=("seconds",),
)

CALLS_CSV = """\
id,account,at,seconds,note
1,ada,2013-01-01T00:00:00Z,12.500,"a, ""b""
c"
2,bob,2013-01-01T01:00:00+01:00,,
"""


def read(path: Path, mapping: Mapping | None, **options: Any) -> list[FileEvent | RowProblem]:
    return list(FileReader(mapping, **options).read(path))


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def events(rows: list[FileEvent | RowProblem]) -> list[str]:
    return [row.event.decode() for row in rows if isinstance(row, FileEvent)]


def problems(rows: list[FileEvent | RowProblem]) -> list[tuple[int, str]]:
    return [(row.line, row.detail) for row in rows if isinstance(row, RowProblem)]


def test_csv_cells_keep_their_digits_and_empty_cells_are_absent(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "calls.csv", CALLS_CSV), CALLS)

    assert events(rows) == [
        (
            '{"specversion":"1.0","type":"call","source":"urn:pbx","id":"1","subject":"ada",'
            '"time":"2013-01-01T00:00:00Z","data":{"seconds":12.500,"note":"a, \\"b\\"\\nc"}}'
        ),
        (
            '{"specversion":"1.0","type":"call","source":"urn:pbx","id":"2","subject":"bob",'
            '"time":"2013-01-01T00:00:00Z","data":{}}'
        ),
    ]
    assert [row.line for row in rows] == [3, 4]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".zip"])
def test_a_compressed_file_reads_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"calls.csv{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("calls.csv", CALLS_CSV)
    else:
        text = CALLS_CSV.encode()
        write(path, {"": text, ".gz": gzip.compress(text), ".zst": zstandard.ZstdCompressor().compress(text)}[suffix])
    told: list[int] = []

    rows = list(FileReader(CALLS).read(path, told.append))

    assert len(events(rows)) == 2
    assert sum(told) >= path.stat().st_size


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ("3,ada,2013-01-01T00:00:00Z", "has 3 cells, the header has 5"),
        ("3,,2013-01-01T00:00:00Z,1,", "account is empty, and it is the subject"),
        (",ada,2013-01-01T00:00:00Z,1,", "id is empty, and the id needs it"),
        ("3,ada,,1,", "at is empty, and the time needs it"),
        ("3,ada,yesterday,1,", "time 'yesterday' does not fit an ISO 8601 time"),
        ("3,ada,2013-01-01T00:00:00,1,", "time '2013-01-01T00:00:00' names no zone; give --time-zone"),
        ("3,ada,2013-01-01T00:00:00Z,1_000,", "seconds is '1_000', expected a decimal number such as 12 or 0.5"),
        ("3,ada,2013-01-01T00:00:00Z,NaN,", "seconds is 'NaN', expected a decimal number such as 12 or 0.5"),
        ("3,ada,2013-01-01T00:00:00Z,٣,", "seconds is '٣', expected a decimal number such as 12 or 0.5"),
    ],
)
def test_a_bad_row_is_named_and_the_next_still_loads(tmp_path: Path, row: str, detail: str) -> None:
    text = f"id,account,at,seconds,note\n{row}\n4,eve,2013-01-01T00:00:00Z,1,\n"

    rows = read(write(tmp_path / "calls.csv", text), CALLS)

    assert problems(rows) == [(2, detail)]
    assert len(events(rows)) == 1


def test_a_row_with_broken_utf8_is_named_and_the_next_still_loads(tmp_path: Path) -> None:
    text = b"id,account,at,seconds,note\n3,\xff,2013-01-01T00:00:00Z,1,\n4,eve,2013-01-01T00:00:00Z,1,\n"

    rows = read(write(tmp_path / "calls.csv", text), CALLS)

    assert problems(rows) == [(2, "the row is not valid UTF-8")]
    assert len(events(rows)) == 1


@pytest.mark.parametrize(
    ("header", "words"),
    [("id,account,at\n", "no column seconds"), ("id,id,account,at,seconds\n", "id more than once"), ("", "is empty")],
)
def test_a_header_that_does_not_fit_is_an_error(tmp_path: Path, header: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        read(write(tmp_path / "calls.csv", header), CALLS)


def test_an_id_of_several_columns_stays_one_to_one(tmp_path: Path) -> None:
    mapping = msgspec.structs.replace(CALLS, id_columns=("a", "b"), number_columns=())
    rows_text = ["x|y,z", "x,y|z", "x,yz"]
    text = "a,b,account,at\n" + "".join(f"{row},ada,2013-01-01T00:00:00Z\n" for row in rows_text)

    rows = read(write(tmp_path / "calls.csv", text), mapping)

    assert [json.loads(event)["id"] for event in events(rows)] == ["x|yz"]
    assert problems(rows) == [
        (2, "a holds the id separator '|'; choose another with --id-separator"),
        (3, "b holds the id separator '|'; choose another with --id-separator"),
    ]


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), min_size=2, max_size=2, unique=True))
def test_two_rows_never_get_one_id(pairs: list[tuple[str, str]]) -> None:
    maker = EventMaker(msgspec.structs.replace(CALLS, id_columns=("a", "b"), number_columns=()))
    ids = []
    for pair in pairs:
        try:
            event = maker.event_of(("ada", *pair, "2013-01-01T00:00:00Z"), [])
        except RowError:
            continue
        ids.append(json.loads(event)["id"])

    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("local", "utc", "ambiguous", "skipped"),
    [
        ("2013-01-01T05:15", "2013-01-01T10:15:00Z", 0, 0),
        ("2013-07-01T05:15", "2013-07-01T09:15:00Z", 0, 0),
        ("2013-03-10T01:59", "2013-03-10T06:59:00Z", 0, 0),
        ("2013-03-10T02:30", "2013-03-10T07:30:00Z", 0, 1),
        ("2013-03-10T03:00", "2013-03-10T07:00:00Z", 0, 0),
        ("2013-11-03T00:59", "2013-11-03T04:59:00Z", 0, 0),
        ("2013-11-03T01:30", "2013-11-03T05:30:00Z", 1, 0),
        ("2013-11-03T02:00", "2013-11-03T07:00:00Z", 0, 0),
        ("2013-11-03T01:30-05:00", "2013-11-03T06:30:00Z", 0, 0),
    ],
)
def test_a_local_time_that_happens_twice_or_never_has_a_rule_and_is_counted(
    tmp_path: Path, local: str, utc: str, ambiguous: int, skipped: int
) -> None:
    mapping = msgspec.structs.replace(CALLS, time_zone="America/New_York", number_columns=())
    reader = FileReader(mapping)

    [row] = reader.read(write(tmp_path / "calls.csv", f"id,account,at\n1,ada,{local}\n"))

    assert isinstance(row, FileEvent)
    assert json.loads(row.event)["time"] == utc
    assert (reader.times_ambiguous, reader.times_skipped) == (ambiguous, skipped)


@pytest.mark.parametrize(
    ("form", "text", "utc"),
    [
        ("epoch_s", "1357035300", "2013-01-01T10:15:00Z"),
        ("epoch_s", "1357035300.9999999", "2013-01-01T10:15:00.999999Z"),
        ("epoch_ms", "1357035300123", "2013-01-01T10:15:00.123000Z"),
        ("%d.%m.%Y %H:%M", "01.01.2013 10:15", "2013-01-01T10:15:00Z"),
        ("%d.%m.%Y %H:%M %z", "01.01.2013 10:15 +0100", "2013-01-01T09:15:00Z"),
    ],
)
def test_times_of_other_formats(tmp_path: Path, form: str, text: str, utc: str) -> None:
    mapping = msgspec.structs.replace(CALLS, time_zone="UTC", time_format=form, number_columns=())

    [row] = read(write(tmp_path / "calls.csv", f"id,account,at\n1,ada,{text}\n"), mapping)

    assert isinstance(row, FileEvent), row
    assert json.loads(row.event)["time"] == utc


@pytest.mark.parametrize(
    ("departure", "utc"),
    [("515", "T10:15:00Z"), ("2359", "T04:59:00Z"), ("5", "T05:05:00Z"), ("2400", None), ("12345", None), ("5a", None)],
)
def test_a_time_is_put_together_from_columns(tmp_path: Path, departure: str, utc: str | None) -> None:
    mapping = Mapping(
        event_type="flight",
        source="s",
        subject_column="carrier",
        time="{year:04}-{month:02}-{day:02}T{departure:hhmm}",
        time_zone="America/New_York",
        id_columns=("carrier",),
    )

    [row] = read(write(tmp_path / "f.csv", f"carrier,year,month,day,departure\nUA,2013,1,1,{departure}\n"), mapping)

    if utc is None:
        assert isinstance(row, RowProblem)
    else:
        assert isinstance(row, FileEvent)
        assert json.loads(row.event)["time"].endswith(utc)
        assert json.loads(row.event)["data"] == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time": "{at:3h}"}, "no time template"),
        ({"time": "{at"}, "no time template"),
        ({"time_zone": "Mars/Olympus"}, "no time zone"),
        ({"time_zone": "../etc/passwd"}, "no time zone"),
        ({"id_columns": ()}, "no id columns"),
        ({"id_separator": ""}, "not one character"),
    ],
)
def test_a_mapping_that_cannot_work_is_an_error(change: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        FileReader(msgspec.structs.replace(CALLS, **change))


def test_cloudevents_in_json_lines_go_through_untouched(tmp_path: Path) -> None:
    text = (
        b'\xef\xbb\xbf{"specversion": "1.0" , "x":1.50}\r\n\n{"a":"\\u20ac"}\nnot json\n[1]\n{"a":"\xff"}\n{"last":1}'
    )

    rows = read(write(tmp_path / "e.jsonl", text), None)

    assert events(rows) == ['{"specversion": "1.0" , "x":1.50}', '{"a":"\\u20ac"}', '{"last":1}']
    assert [line for line, _ in problems(rows)] == [4, 5, 6]
    assert [row.line for row in rows if isinstance(row, FileEvent)] == [1, 3, 7]


def test_flat_json_objects_are_mapped_with_their_values_as_they_stand(tmp_path: Path) -> None:
    text = '{"id":7,"account":"ada","at":"2013-01-01T00:00:00Z","seconds":12.50,"deep":{"x":[1.0]},"none":null}\n'

    [row] = read(write(tmp_path / "e.jsonl", text), msgspec.structs.replace(CALLS, number_columns=()))

    assert isinstance(row, FileEvent)
    assert row.event.endswith(
        b'"id":"7","subject":"ada","time":"2013-01-01T00:00:00Z","data":{"seconds":12.50,"deep":{"x":[1.0]}}}'
    )


def test_parquet_values_are_exact(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.int64()),
            "account": pa.array(["ada", None]),
            "at": pa.array(
                [datetime(2013, 1, 1, 5, 15, 0, 1, tzinfo=UTC)] * 2, pa.timestamp("us", tz="America/New_York")
            ),
            "cost": pa.array([Decimal("1.500000000000000000"), None], pa.decimal128(38, 18)),
            "big": pa.array([2**63 - 1, 0], pa.int64()),
            "ratio": pa.array([0.1, None], pa.float64()),
            "small": pa.array([0.1, None], pa.float32()),
            "flag": pa.array([True, None]),
            "day": pa.array([date(2013, 1, 1), None]),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
        }
    )
    path = tmp_path / "u.parquet"
    pq.write_table(table, path)

    rows = read(path, msgspec.structs.replace(CALLS, number_columns=()))

    assert events(rows) == [
        (
            '{"specversion":"1.0","type":"call","source":"urn:pbx","id":"1","subject":"ada",'
            '"time":"2013-01-01T05:15:00.000001Z","data":{"cost":1.5,"big":9223372036854775807,"ratio":0.1,"small":0.1,'
            '"flag":true,"day":"2013-01-01","kind":"x"}}'
        )
    ]
    assert problems(rows) == [(2, "account is empty, and it is the subject")]


def test_parquet_numbers_that_json_has_not_are_bad_rows(tmp_path: Path) -> None:
    table = pa.table(
        {"id": [1, 2], "account": ["a", "b"], "at": ["2013-01-01T00:00:00Z"] * 2, "x": [float("nan"), 1.0]}
    )
    path = tmp_path / "u.parquet"
    pq.write_table(table, path)

    rows = read(path, msgspec.structs.replace(CALLS, number_columns=()))

    assert problems(rows) == [(1, "x is 'nan', expected a decimal number such as 12 or 0.5")]


def test_a_parquet_column_that_no_event_can_hold_is_an_error_that_says_how_to_leave_it_out(tmp_path: Path) -> None:
    table = pa.table({"id": [1], "account": ["a"], "at": ["2013-01-01T00:00:00Z"], "x": [[1, 2]]})
    path = tmp_path / "u.parquet"
    pq.write_table(table, path)

    with pytest.raises(RequestError, match="--data-columns"):
        read(path, msgspec.structs.replace(CALLS, number_columns=()))


@pytest.mark.parametrize("name", ["calls.parquet", "calls.csv.zip", "calls.csv.gz", "calls.csv.zst"])
def test_a_file_that_is_not_what_its_name_says_is_a_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match=name):
        read(write(tmp_path / name, b"this is something else"), CALLS)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_was_cut_off_is_an_error_and_not_a_short_file(tmp_path: Path, suffix: str) -> None:
    compress = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    whole = compress((CALLS_CSV + "".join(f"{n},ada,2013-01-01T00:00:00Z,{n},\n" for n in range(9_000))).encode())
    path = write(tmp_path / f"calls.csv{suffix}", whole[: len(whole) // 2])

    with pytest.raises(RequestError, match="damaged"):
        read(path, CALLS)


@pytest.mark.parametrize(("name", "words"), [("a.txt", "suffix"), ("a.csv", "needs a mapping"), ("none.jsonl", "read")])
def test_a_file_that_cannot_be_read_says_what_to_do(tmp_path: Path, name: str, words: str) -> None:
    if name != "none.jsonl":
        write(tmp_path / name, "x")

    with pytest.raises(RequestError, match=words):
        read(tmp_path / name, None)


def test_the_flights_are_unique_by_date_carrier_number_and_origin() -> None:
    path = flights_file()
    reader = FileReader(FLIGHTS)

    identities = set()
    for row in reader.read(path):
        assert isinstance(row, FileEvent), row
        event = decode_event(row.event)
        identities.add((event.subject, event.id))

    assert len(identities) == 336_776
    assert (reader.times_ambiguous, reader.times_skipped) == (0, 0)
