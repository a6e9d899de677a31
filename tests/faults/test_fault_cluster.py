"""Faults of one broker of three, each with a copy of the log; two have to have what is acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from metering.config import Settings
from metering.testing import ClickHouseUnderTest
from tests.support.fault_numbers import EVENTS, IS_FULL, seeds
from tests.support.fault_proof import prove
from tests.support.fault_stack import FaultStack, Sender, fault_stack_of, made_events
from tests.support.invariants import wait_for
from tests.support.kafka_cluster import Cluster, kafka_cluster
from tests.support.worker_process import WAIT_S

wait_long = partial(wait_for, timeout_s=WAIT_S)

KILLS = 5 if IS_FULL else 1
CUT_BYTES = 64 * 1024


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with kafka_cluster(tmp_path_factory.mktemp("cluster")) as one:
        yield one


@pytest.fixture
def copied(cluster: Cluster, clickhouse: ClickHouseUnderTest, database: str, tmp_path: Path) -> Iterator[FaultStack]:
    settings = Settings(
        data_dir=tmp_path / "data",
        kafka_servers=cluster.bootstrap,
        kafka_replication_factor=3,
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=database,
    )
    with fault_stack_of(settings) as one:
        yield one


@pytest.mark.parametrize("seed", seeds())
def test_f3_one_broker_of_three_killed_under_load(copied: FaultStack, cluster: Cluster, seed: int) -> None:
    """F3. The leader of three brokers killed under load and started again: every acknowledged event counts once."""
    kill_leaders_under_load(copied, cluster, seed, cut_bytes=0)


@pytest.mark.parametrize("seed", seeds())
def test_f4_one_broker_of_three_loses_the_end_of_its_log(copied: FaultStack, cluster: Cluster, seed: int) -> None:
    """F4. A leader that comes back without the last 64 KiB of its log takes them from the others: nothing is lost."""
    kill_leaders_under_load(copied, cluster, seed, cut_bytes=CUT_BYTES)


def kill_leaders_under_load(stack: FaultStack, cluster: Cluster, seed: int, *, cut_bytes: int) -> None:
    """Kill who leads partition 0, cut its files, start it again, let it catch up."""
    log = made_events(seed, EVENTS, prefix=f"copies{cut_bytes}")
    wait_long("three copies", cluster.is_whole)
    stack.gateway()
    worker = stack.worker()
    sender = Sender(stack)
    sender.start(log)

    for _ in range(KILLS):
        seen = len(sender.accepted)
        wait_long("some acknowledged events", lambda seen=seen: len(sender.accepted) > seen)
        killed = cluster.leader_of(0)
        killed.kill()
        gone_bytes = killed.cut_log(cut_bytes)
        assert gone_bytes > 0 or not cut_bytes
        killed.start()
        wait_long("three copies", cluster.is_whole)
    sender.join()
    epoch = stack.epoch
    # A worker may end over a fault that lasts, with 70; whoever supervises it starts another.
    workers = [worker] if worker.returncode is None else [stack.worker()]
    stack.settle(*workers)

    assert set(sender.answers) <= {0, 200, 503}
    assert workers[0].terminate() in {0, 70, 75}, workers[0].said
    assert stack.epoch == epoch
    for partition in (0, 1):
        copies = cluster.copies(partition)
        assert len(copies[0]) > 0
        assert copies[1:] == copies[:-1]
    prove(stack, log, sender.accepted, overlaps=True)
