"""Each limit has its own error, which names the setting; a bomb is noticed after one step."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard

from ingest.content import BATCH, EVENT
from ingest.inflate import STEP_BYTES, InflateError, gzip_steps, zstd_steps


def bomb(coding: str, size_bytes: int) -> bytes:
    plain = b"[" + b" " * size_bytes
    return gzip.compress(plain) if coding == "gzip" else zstandard.ZstdCompressor(level=19).compress(plain)


def test_a_body_over_its_limit_is_a_413(gateway: Any) -> None:
    answer = gateway.post(b" " * 64_001, EVENT)

    assert (answer.status_code, answer.json()["code"], answer.json()["setting"]) == (
        413,
        "body_too_large",
        "body_bytes_max",
    )


def test_a_body_that_does_not_say_its_length_is_counted_as_it_comes(gateway: Any) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1_000

    answer = gateway.post(pieces(), EVENT)

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_is_a_413(gateway: Any, coding: str) -> None:
    answer = gateway.post(bomb(coding, 20_000_000), BATCH, headers={"Content-Encoding": coding})

    assert (answer.status_code, answer.json()["code"], answer.json()["setting"]) == (
        413,
        "inflated_body_too_large",
        "body_inflated_bytes_max",
    )


@pytest.mark.parametrize(("coding", "steps"), [("gzip", gzip_steps), ("zstd", zstd_steps)])
def test_a_step_of_inflating_takes_little_memory_however_large_the_bomb(coding: str, steps: Any) -> None:
    body = bomb(coding, 500_000_000)
    tracemalloc.start()
    try:
        largest = max(len(piece) for piece, _ in zip(steps(body), range(40), strict=False))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(body) < 1_000_000
    assert largest <= 8 * 1024 * 1024
    assert peak_bytes < 64 * 1024 * 1024


def test_gzip_gives_at_most_one_step_at_a_time() -> None:
    assert max(len(piece) for piece in gzip_steps(bomb("gzip", 5_000_000))) <= STEP_BYTES


def test_several_compressed_parts_in_a_row_are_one_body() -> None:
    compress = zstandard.ZstdCompressor().compress

    assert b"".join(gzip_steps(gzip.compress(b"ab") + gzip.compress(b"cd"))) == b"abcd"
    assert b"".join(zstd_steps(compress(b"ab") + compress(b"cd"))) == b"abcd"


@pytest.mark.parametrize("size_bytes", [0, 1, 255, 256, 257, 100_000])
def test_what_was_compressed_comes_back(size_bytes: int) -> None:
    plain = bytes(number * 7 % 251 for number in range(size_bytes))

    assert b"".join(gzip_steps(gzip.compress(plain))) == plain
    assert b"".join(zstd_steps(zstandard.ZstdCompressor().compress(plain))) == plain


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_broken_coding_is_a_400(gateway: Any, coding: str, damage: str) -> None:
    whole = bomb(coding, 1_000)
    body = {"cut": whole[:-4], "garbage": b"[]", "empty": b""}[damage]

    answer = gateway.post(body, BATCH, headers={"Content-Encoding": coding})

    assert (answer.status_code, answer.json()["code"]) == (400, "body_not_inflatable")
    with pytest.raises(InflateError):
        list((gzip_steps if coding == "gzip" else zstd_steps)(body))


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "deflate"])
def test_another_coding_is_a_415_that_names_those_taken(gateway: Any, coding: str) -> None:
    answer = gateway.post(b"[]", BATCH, headers={"Content-Encoding": coding})

    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, zstd")


def test_a_batch_that_is_too_long_is_a_413(gateway: Any, event: Any, log: Any) -> None:
    answer = gateway.post(json.dumps([event()] * 101).encode(), BATCH)

    assert (answer.status_code, answer.json()["code"], answer.json()["setting"]) == (
        413,
        "batch_too_long",
        "batch_events_max",
    )
    assert log.records() == []


def test_an_array_of_millions_is_refused_before_it_is_split() -> None:
    from ingest.content import events_of
    from ingest.problems import ProblemError
    from metering.config import Settings

    body = b"[" + b'",[",' * 10 + b"1," * 2_000_000 + b"1]"
    tracemalloc.start()
    try:
        with pytest.raises(ProblemError) as caught:
            events_of([("content-type", BATCH)], body, Settings())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert caught.value.problem.code == "batch_too_long"
    assert peak_bytes < 10_000_000


def test_a_long_batch_with_many_commas_inside_its_events_is_split_all_the_same() -> None:
    from ingest.content import events_of
    from metering.config import Settings

    one = b'{"a":"],[","b":[' + b"1," * 300_000 + b"1]}"

    assert events_of([("content-type", BATCH)], b"[" + one + b"," + one + b"]", Settings()) == [one, one]


@pytest.mark.parametrize("tail", [b'"' + b'\\"' * 2_000_000, b'"' + b'\\"' * 2_000_000 + b"\\", b'"' * 2_000_001])
def test_a_string_without_an_end_is_searched_once(tail: bytes) -> None:
    from ingest.content import COMMAS_MAX, events_of
    from ingest.problems import ProblemError
    from metering.config import Settings

    body = b"[[" + b"," * (COMMAS_MAX + 1) + tail

    with pytest.raises(ProblemError) as caught:
        events_of([("content-type", BATCH)], body, Settings())

    assert caught.value.problem.code == "not_json"


def test_a_content_type_with_a_million_parameters_is_refused_at_once() -> None:
    from ingest.content import events_of
    from ingest.problems import ProblemError
    from metering.config import Settings

    with pytest.raises(ProblemError) as caught:
        events_of([("content-type", 'text/plain; a="' + ";" * 1_000_000)], b"{}", Settings())

    assert caught.value.problem.code == "unsupported_content_type"


@pytest.mark.parametrize(("levels", "is_taken"), [(5, True), (6, False), (127, False), (100_000, False)])
def test_an_event_that_nests_deeper_than_the_setting_is_told_so(
    kafka_settings: Any, running_gateway_of: Any, event: Any, levels: int, is_taken: bool
) -> None:
    import msgspec

    settings = msgspec.structs.replace(kafka_settings, event_nesting_max=5, event_bytes_max=1_000_000)
    settings = msgspec.structs.replace(settings, body_bytes_max=1_000_000, body_inflated_bytes_max=1_000_000)
    # The event's own braces are one level, and brackets in a string are none.
    deep = "[" * (levels - 1) + '"[[[[[[[["' + "]" * (levels - 1)
    body = json.dumps(event(type="ping", data="DEEP")).replace('"DEEP"', deep)

    with running_gateway_of(settings) as gateway:
        answer = gateway.post(body.encode(), EVENT)

    if is_taken:
        assert answer.status_code == 200
    else:
        assert (answer.status_code, [one["reason"] for one in answer.json()["errors"]]) == (422, ["too_deep"])
        assert levels > 128 or "event_nesting_max" in answer.json()["errors"][0]["detail"]


def test_a_batch_that_nests_without_end_is_a_400(gateway: Any) -> None:
    answer = gateway.post(b"[" * 60_000, BATCH)

    assert (answer.status_code, answer.json()["code"]) == (400, "not_json")
