"""The README shows the speeds that are kept in benchmarks/measured.json, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.result import Result
from benchmarks.scaling import MEASURED, read
from benchmarks.speed import speed_markdown

README = Path(__file__).parents[2] / "README.md"


def test_the_table_in_the_readme_is_made_from_what_was_measured() -> None:
    _, _, rest = README.read_text(encoding="utf-8").partition("<!-- measured -->\n")
    shown, _, _ = rest.partition("<!-- end -->")

    assert shown.strip() == speed_markdown(read(MEASURED)).strip()


def test_a_measure_that_is_missing_is_named() -> None:
    row = Result(name="gateway", value=1.0, unit="events/s", spread=(1.0, 1.0), conditions="")

    with pytest.raises(LookupError, match="not measured: worker, worker beside a raw table with a view, rebuild"):
        speed_markdown([row])
