"""Which events corrections take out: by example, and against what is found by brute force."""

from __future__ import annotations

import random

import pytest

from aggregators.facts import Correction, Link, Place, take_out
from tests.support.made_corrections import taken_out


class Said:
    """An event named `name`; `corrects` is another's name."""

    def __init__(self, name: str, corrects: str | None, offset: int, partition: int = 0) -> None:
        self.name = name
        self.corrects = corrects
        self.place: Place = ("log", partition, offset)


def found(log: list[Said], batch_max: int = 1) -> set[tuple[str, str, bool]]:
    """(taken, by, whether by name), deciding the log in batches of one partition."""
    links: list[Link] = []
    corrections = [
        Correction(("s", "/app", one.name), ("s", "/app", one.corrects), one.place)
        for one in log
        if one.corrects is not None
    ]
    while corrections:
        size = 1
        while size < min(batch_max, len(corrections)) and corrections[size].place[1] == corrections[0].place[1]:
            size += 1
        links += take_out(corrections[:size], links)
        corrections = corrections[size:]
    return {(link.taken[2], link.by.identity[2], link.is_named) for link in links}


def log_of(*said: tuple[str, str | None]) -> list[Said]:
    return [Said(name, corrects, offset) for offset, (name, corrects) in enumerate(said)]


@pytest.mark.parametrize(
    ("log", "left"),
    [
        (log_of(("a", None), ("b", "a")), {"b"}),
        (log_of(("b", "a"), ("a", None)), {"b"}),
        (log_of(("a", None), ("b", "a"), ("c", "a")), {"c"}),
        (log_of(("a", None), ("b", "a"), ("c", "b")), {"c"}),
        (log_of(("a", None), ("b", "a"), ("c", "b"), ("d", "a")), {"d"}),
        (log_of(("a", None), ("b", "a"), ("c", "a"), ("d", "b")), {"d"}),
        (log_of(("a", None), ("c", "b"), ("b", "a")), {"c"}),
        (log_of(("c", "b"), ("d", "a"), ("b", "a"), ("a", None)), {"c"}),
        (log_of(("b", "c"), ("c", "b")), set()),
        (log_of(("b", "nobody")), {"b"}),
    ],
)
def test_the_last_word_about_a_fact_is_left(log: list[Said], left: set[str]) -> None:
    for batch_max in (1, 10):
        assert {one.name for one in log} - {taken for taken, _, _ in found(log, batch_max)} == left


@pytest.mark.parametrize("seed", range(200))
def test_batches_find_what_brute_force_finds(seed: int) -> None:
    chance = random.Random(seed)
    ends = [0, 0]
    log: list[Said] = []
    count = chance.randint(2, 14)
    for number in range(count):
        partition = 0 if chance.random() < 0.8 else 1
        others = [f"e{other}" for other in range(count) if other != number]
        log.append(Said(f"e{number}", chance.choice([None, *others]), ends[partition], partition))
        ends[partition] += 1

    expected = {(one.name, one.by.name, one.is_named) for one in taken_out(log)}

    assert found(log, chance.randint(1, 5)) == expected


def test_a_log_that_is_read_again_takes_out_the_same_again() -> None:
    said = log_of(("a", None), ("b", "a"), ("c", "a"), ("d", "c"), ("e", "a"))
    corrections = [
        Correction(("s", "/app", one.name), ("s", "/app", one.corrects or ""), one.place) for one in said[1:]
    ]
    links = take_out(corrections, ())

    for first in range(len(corrections)):
        before = [link for link in links if link.by.place < corrections[first].place]
        assert take_out(corrections[first:], links) == [link for link in links if link not in before]
