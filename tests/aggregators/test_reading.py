"""What is read of a partition goes on where it ended: nothing that was dropped on the way is taken for missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aggregators.reading import Follows, Reading, Start

GOES_ON, READ_AGAIN, STALE = Follows.GOES_ON, Follows.READ_AGAIN, Follows.STALE


def test_a_fetch_that_begins_where_the_last_one_ended_goes_on() -> None:
    reading = Reading({0: 10, 1: 0})

    assert reading.follow(0, 10, 14) == Start(GOES_ON, 10)
    assert reading.follow(0, 15, 15) == Start(GOES_ON, 15)
    assert reading.follow(1, 0, 9) == Start(GOES_ON, 0)


def test_a_fetch_that_leaves_out_what_was_due_is_asked_for_again() -> None:
    reading = Reading({0: 10})

    assert reading.follow(0, 30, 39) == Start(READ_AGAIN, 10)
    assert reading.follow(0, 10, 39) == Start(GOES_ON, 10)
    assert reading.follow(0, 40, 41) == Start(GOES_ON, 40)


def test_offsets_that_are_missing_right_after_asking_for_them_are_missing_in_the_log() -> None:
    reading = Reading({0: 10})

    assert reading.follow(0, 12, 14) == Start(READ_AGAIN, 10)
    assert reading.follow(0, 12, 19) == Start(GOES_ON, 10)
    assert reading.follow(0, 22, 29) == Start(READ_AGAIN, 20), "the next gap is doubted anew"


def test_what_was_fetched_before_the_seek_is_stale() -> None:
    reading = Reading({0: 10})

    assert reading.follow(0, 3, 9) == Start(STALE, 10)
    assert reading.follow(0, 3, 12) == Start(GOES_ON, 10), "its end was not read yet"
    assert reading.follow(7, 0, 5).kind is STALE, "a partition that was not taken over"


@given(
    holes=st.sets(st.integers(0, 60)),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=60),
    lost=st.lists(st.booleans(), max_size=60),
)
def test_whatever_is_lost_on_the_way_every_record_is_handed_over_once(
    holes: set[int], sizes: list[int], lost: list[bool]
) -> None:
    log = [offset for offset in range(60) if offset not in holes]
    reading = Reading({0: 0})
    position, is_asked, handed = 0, False, list[int]()
    for turn in range(400):
        ahead = [offset for offset in log if offset >= position][: sizes[turn % len(sizes)]]
        if not ahead:
            break
        position = ahead[-1] + 1
        if turn < len(lost) and lost[turn] and not is_asked:
            continue
        start = reading.follow(0, ahead[0], ahead[-1])
        is_asked = start.kind is READ_AGAIN
        if is_asked:
            position = start.offset
        elif start.kind is GOES_ON:
            handed += [offset for offset in ahead if offset >= start.offset]

    assert handed == log[: len(handed)]
    assert any(lost) or handed == log
