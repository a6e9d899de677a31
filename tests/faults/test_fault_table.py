"""docs/faults.md says of each fault what its tests say, and names every fault that no test here covers."""

from __future__ import annotations

import re

from tests.support.fault_numbers import LEFT_OUT_OF_SHORT
from tests.support.fault_table import PAGE, proofs, with_table

FAULTS = {f"F{number}" for number in range(1, 23)}


def test_the_table_of_faults_is_what_the_tests_say() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert page == with_table(page), "run `python -m tests.support.fault_table`"


def test_what_the_short_run_leaves_out_exists() -> None:
    names = {one.test.partition("::")[2] for one in proofs()}

    assert set(LEFT_OUT_OF_SHORT) <= names


def test_every_fault_is_either_in_the_table_or_named_as_not_covered() -> None:
    covered = {one.fault for one in proofs()}
    _, _, left = PAGE.read_text(encoding="utf-8").partition("## What is not covered here yet")
    named = set(re.findall(r"^- \*\*(F\d+)\b", left, re.MULTILINE))

    assert covered | named >= FAULTS
    assert left
