"""The limit of dead letters depends on the log alone."""

from __future__ import annotations

import itertools
import random

import pytest

from aggregators.dead_letter_limit import DeadLetterLimit, Rejections

LIMIT = DeadLetterLimit(letters_max=3, percent_max=50, window_records=10)


@pytest.mark.parametrize(
    ("following", "rejected", "is_too_many"),
    [
        (3, [0, 1, 2], False),  # all of them, but not more than 3
        (4, [0, 1, 2, 3], True),
        (8, [0, 1, 2, 3], False),  # more than 3, but just half of them
        (9, [0, 1, 2, 3, 4], True),
        (20, [0, 1, 2, 3, 4, 5], False),  # too long ago
        (20, [10, 11, 12, 13, 14, 15], True),
    ],
)
def test_more_than_a_number_and_more_than_a_share_of_the_last_records_is_too_many(
    following: int, rejected: list[int], is_too_many: bool
) -> None:
    assert Rejections(LIMIT, since=0, following=following, rejected=rejected).is_too_many is is_too_many


def test_what_was_before_a_resumption_counts_no_more() -> None:
    found = Rejections(LIMIT, since=100, following=100)

    found.take(103, [100, 101, 102])
    assert (found.records, found.rejected, found.is_too_many) == (3, 3, False)

    found.take(104, [103])
    assert (found.records, found.rejected, found.is_too_many) == (4, 4, True)


def test_a_limit_of_nothing_is_none() -> None:
    limit = DeadLetterLimit(letters_max=0, percent_max=0, window_records=10)

    assert not Rejections(limit, since=0, following=9, rejected=range(9)).is_too_many


def test_however_a_log_is_cut_and_wherever_it_is_taken_up_again_the_answer_is_the_same() -> None:
    chance = random.Random(21)
    for _ in range(200):
        size = chance.randrange(1, 60)
        share = chance.random()
        bad = [offset for offset in range(size) if chance.random() < share]
        cuts = sorted({0, size, *chance.sample(range(size), k=min(size, 5))})
        found = Rejections(LIMIT, since=0, following=0)
        for first, following in itertools.pairwise(cuts):
            found.take(following, [offset for offset in bad if first <= offset < following])
            last = [offset for offset in bad if following - 10 <= offset < following]
            again = Rejections(LIMIT, since=0, following=following, rejected=last)
            records = min(following, 10)

            assert found.records == again.records == records
            assert found.rejected == again.rejected == len(last)
            assert found.is_too_many is again.is_too_many is (len(last) > 3 and len(last) * 2 > records)
