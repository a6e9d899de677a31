"""The bugs that `make planted` plants can be planted: the code still has their places, and their tests exist."""

from __future__ import annotations

import pytest

from tests.planted.bugs import BUGS, Bug
from tests.planted.plant import ROOT


@pytest.mark.parametrize("one", BUGS, ids=[one.name for one in BUGS])
def test_the_place_of_a_planted_bug_is_there_once(one: Bug) -> None:
    assert (ROOT / one.file).read_text(encoding="utf-8").count(one.old) == 1
    assert one.old != one.new


def test_there_are_at_least_twenty_bugs_with_names_of_their_own() -> None:
    assert len({one.name for one in BUGS}) == len(BUGS) >= 20


@pytest.mark.parametrize("test", sorted({test for one in BUGS for test in one.tests}))
def test_the_tests_that_should_catch_a_bug_exist(test: str) -> None:
    file, _, name = test.partition("::")

    assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8")
