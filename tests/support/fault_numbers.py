"""How much a fault run is to do: short numbers unless the variables say otherwise (`make faults` says so).

FAULTS_EVENTS: events a test. FAULTS_SEEDS: how many seeds. FAULTS_SEED: only this one, to replay a failure.
"""

from __future__ import annotations

import os
from typing import Final

EVENTS: Final = int(os.environ.get("FAULTS_EVENTS", "1200"))
SEEDS: Final = int(os.environ.get("FAULTS_SEEDS", "1"))
IS_FULL: Final = EVENTS >= 20_000
FLUSH_EVENTS: Final = max(100, EVENTS // 200)
"""Events of a flush: few, so that there are many flushes to hit, and never more than some hundred flushes."""
IS_SHORT: Final = not any(name.startswith("FAULTS_") for name in os.environ)
"""Nobody asked for numbers: the run is part of the whole suite, and leaves out what LEFT_OUT_OF_SHORT names."""

LEFT_OUT_OF_SHORT: Final = (
    "test_f1_a_killed_workers_backlog_is_taken_over",
    "test_f2_a_worker_told_to_stop_while_clickhouse_answers_nothing",
    "test_f2_a_worker_told_to_stop_while_it_joins",
    "test_f2_a_worker_told_to_stop_while_kafka_answers_nothing",
    "test_f3_one_broker_of_three_killed_under_load",
    "test_f4_one_broker_of_three_loses_the_end_of_its_log",
    "test_f7_a_network_that_swallows_holds_resets_and_splits",
    "test_f10_workers_that_come_and_go_at_random",
    "test_f12_workers_whose_clocks_are_wrong",
    "test_f15_a_broker_with_a_full_disk",
    "test_f16_a_worker_that_ends_every_few_seconds",
    "test_f17_partitions_added_in_mid_stream",
    "test_f19_an_export_killed_at_any_step",
    "test_f20_a_customer_erased_during_ingest_and_export",
    "test_f22_two_closers_at_once_one_of_them_asleep",
)
"""Tests that mostly wait for timeouts of others, or need many processes.

Any FAULTS_ variable, and `make faults`, runs them.
"""


def seeds() -> list[int]:
    """The seeds of this run."""
    one = os.environ.get("FAULTS_SEED")
    return [int(one)] if one else list(range(1, SEEDS + 1))


def replay_command(nodeid: str, seed: int) -> str:
    """What runs one test again just as it was."""
    return f"FAULTS_EVENTS={EVENTS} FAULTS_SEED={seed} pytest '{nodeid}'"
