"""docs/scaling.md shows what benchmarks/scaling.py computes from the measurements that are kept beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.result import Result
from benchmarks.scaling import MEASURED, Costs, costs, read, scaling_markdown, size_text

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def test_the_table_is_computed_from_what_was_measured() -> None:
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- computed -->\n")
    shown, _, _ = rest.partition("<!-- end -->")
    assert shown.strip() == scaling_markdown(costs(read(MEASURED))).strip()


def test_a_process_is_given_half_of_what_it_was_measured_to_take() -> None:
    measured = Costs(gateway_rate=20_000, worker_rate=50_000, shard_rate=100_000, event_bytes=100, json_bytes=200)
    ten_thousand = scaling_markdown(measured).splitlines()[2]
    gateways, partitions, workers, shards = (cell.strip() for cell in ten_thousand.strip("| ").split("|")[1:5])
    assert (gateways, partitions, workers, shards) == ("1", "4", "1", "1")


def test_a_size_has_two_digits_and_its_unit() -> None:
    assert [size_text(size) for size in (99, 1_440, 1_420_000_000_000)] == ["99 B", "1.4 KB", "1.4 TB"]


def test_a_measurement_that_is_missing_is_named() -> None:
    row = Result(name="gateway", value=1.0, unit="events/s", spread=(1.0, 1.0), conditions="")
    with pytest.raises(LookupError, match="storage of an event"):
        costs([row])
