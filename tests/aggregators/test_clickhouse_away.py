"""ClickHouse goes away in the middle of a flush, or does what it was told and cannot say so."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec
import pytest
from clickhouse_connect.driver.client import Client

from metering.config import Settings
from tests.support.broken_wire import BrokenWire
from tests.support.pipeline_rig import check, life
from tests.support.plain_log import expected, made_log

MODES = ("refuse", "drop_answer")
SPOILED_AFTER = ("events", "members", "dead_letters_topic", "dead_letters")


@pytest.fixture
def wire(folded_settings: Settings) -> Iterator[BrokenWire]:
    address = urlsplit(folded_settings.clickhouse_address)
    with BrokenWire(address.hostname or "", address.port or 0) as one:
        yield one


@pytest.mark.parametrize("fault", [f"{mode} after {step}" for mode in MODES for step in SPOILED_AFTER])
def test_a_flush_goes_on_where_it_was_once_clickhouse_is_back(
    folded_settings: Settings, folded: Client, epoch: str, wire: BrokenWire, fault: str
) -> None:
    """The exchange right after the step is spoiled, and the three tries after it."""
    mode, _, step = fault.partition(" after ")
    log = made_log(51, 120, prefix=epoch)
    steps: list[str] = []

    def reached(now: str) -> None:
        steps.append(now)
        if now == step and steps.count(now) == 2:
            wire.break_next(mode, 4)

    through = msgspec.structs.replace(folded_settings, clickhouse_url=f"http://127.0.0.1:{wire.port}")
    with life(through, epoch, reached=reached, flush_events_max=30) as worker:
        worker.run(log)

    assert wire.broken == 4
    check(folded, epoch, expected(log))


@pytest.mark.parametrize("mode", MODES)
def test_a_take_over_waits_for_clickhouse(
    folded_settings: Settings, folded: Client, epoch: str, wire: BrokenWire, mode: str
) -> None:
    log = made_log(52, 60, prefix=epoch)
    through = msgspec.structs.replace(folded_settings, clickhouse_url=f"http://127.0.0.1:{wire.port}")
    wire.break_next(mode, 3)

    with life(through, epoch) as worker:
        worker.run(log)

    assert wire.broken == 3
    check(folded, epoch, expected(log))


def test_a_worker_told_to_stop_does_not_wait_for_clickhouse(
    folded_settings: Settings, folded: Client, epoch: str, wire: BrokenWire
) -> None:
    log = made_log(53, 60, prefix=epoch, partitions=1)
    through = msgspec.structs.replace(folded_settings, clickhouse_url=f"http://127.0.0.1:{wire.port}")

    with life(through, epoch, flush_events_max=10) as worker:
        worker.take_over(0)
        wire.break_next("refuse", 1_000_000)
        worker.put(log[:30])
    with life(folded_settings, epoch) as following:
        following.run(log)

    check(folded, epoch, expected(log))
