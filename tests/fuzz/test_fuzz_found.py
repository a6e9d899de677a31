"""Bytes that once broke something keep being tried; so do a few that every target must take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, BrokenPromiseError, expect

FOUND = Path(__file__).parent / "found"
PLAIN = [
    b"",
    b"0",
    b"\xff\x00",
    b'{"specversion":"1.0","id":"1","source":"/a","type":"used","subject":"s","time":"2013-01-01T00:00:00Z"}',
    b"\x1f\x8b",
    b"(\xb5/\xfd",
]


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_takes_any_bytes_and_those_that_broke_something_once(name: str) -> None:
    for data in (*PLAIN, *(one.read_bytes() for one in FOUND.glob(f"{name}-*"))):
        TARGETS[name](data)


def test_whatever_was_found_belongs_to_a_target() -> None:
    names = {one.name.partition("-")[0] for one in FOUND.iterdir()}

    assert names - {"README.md"} <= TARGETS.keys()


def test_a_broken_promise_is_an_error() -> None:
    with pytest.raises(BrokenPromiseError, match="two and two"):
        expect(2 + 2 == 5, "two and two")
