"""A close waits until everything that is in the log was folded."""

from __future__ import annotations

import msgspec
import pytest
from confluent_kafka import Producer

from billing_export.log_wait import unfolded, wait_for_ledger
from metering.clock import SystemClock
from metering.config import Settings
from metering.kafka import client_config, ensure_topics, log_ends, log_epoch
from metering.testing import KafkaUnderTest
from schemas.errors import RunError
from schemas.topics import USAGE_EVENTS
from schemas.usage_query import Cut, Position
from tests.support.made_usage import UsageTables


@pytest.mark.parametrize(
    ("positions", "ends", "behind"),
    [
        ({}, {0: (0, 0)}, {}),
        ({}, {0: (0, 3), 1: (5, 5), 2: (5, 9)}, {0: 3, 2: 4}),
        ({0: 1}, {0: (0, 3)}, {0: 1}),
        ({0: 2}, {0: (0, 3)}, {}),
        ({0: 5}, {0: (0, 3)}, {}),
        ({0: 1}, {0: (3, 3)}, {}),
    ],
)
def test_a_partition_is_behind_by_the_kept_records_that_the_cut_does_not_reach(
    positions: dict[int, int], ends: dict[int, tuple[int, int]], behind: dict[int, int]
) -> None:
    cut = Cut(positions=tuple(Position(epoch="log", partition=p, offset=o) for p, o in positions.items()))

    assert unfolded(cut, "log", ends) == behind


def test_positions_of_another_log_reach_nothing_in_this_one() -> None:
    cut = Cut(positions=(Position(epoch="old log", partition=0, offset=99),))

    assert unfolded(cut, "log", {0: (0, 3)}) == {0: 3}


def test_the_wait_ends_when_the_ledger_has_every_offset_and_fails_while_it_has_not(
    world: UsageTables, kafka: KafkaUnderTest
) -> None:
    settings: Settings = msgspec.structs.replace(world.settings, kafka_servers=kafka.bootstrap)
    ensure_topics(settings)
    producer = Producer(client_config(settings))
    for _ in range(3):
        producer.produce(USAGE_EVENTS, b"{}", key=b"s1")
    assert producer.flush(30) == 0

    with pytest.raises(RunError, match="records of the log are not folded yet"):
        wait_for_ledger(world.client, settings, clock=SystemClock(), timeout_s=0)

    epoch = log_epoch(settings, USAGE_EVENTS)
    rows = [
        (epoch, USAGE_EVENTS, partition, first, end - 1)
        for partition, (first, end) in log_ends(settings, USAGE_EVENTS).items()
        if end > first
    ]
    world.client.insert("positions", rows, column_names=["epoch", "topic", "partition", "first", "last"])
    wait_for_ledger(world.client, settings, clock=SystemClock(), timeout_s=0)
