"""A partition that does not move is noticed, and a worker that cannot move it says so and ends."""

from __future__ import annotations

import signal
import time

import httpx

from aggregators.standstill import Standstill
from metering.embedded.ports import free_ports
from tests.support.fault_stack import FaultStack
from tests.support.faulty_process import Faults
from tests.support.invariants import wait_for
from tests.support.plain_log import made_log


def test_only_a_partition_that_could_move_and_does_not_stands_still() -> None:
    watch = Standstill()

    assert watch.look({0: 5, 1: 7}, {0: 9, 1: 7}, 100.0) == 0
    assert watch.look({0: 5, 1: 7}, {0: 9, 1: 7}, 110.0) == 10
    assert watch.look({0: 6, 1: 7}, {0: 9, 1: 8}, 120.0) == 0
    assert watch.look({0: 9, 1: 7}, {0: 9, 1: 8}, 125.0) == 5
    assert watch.look({}, {0: 9, 1: 9}, 300.0) == 0
    assert watch.look({1: 7}, {1: 9}, 301.0) == 0
    assert watch.look({1: 7}, {1: 9}, 400.0, paused={1}) == 0
    assert watch.look({1: 7}, {1: 9}, 401.0) == 0


def test_a_worker_that_stands_still_is_not_ready_and_ends_itself(faulty: FaultStack) -> None:
    (port,) = free_ports(1)
    log = made_log(31, 400, prefix="still")
    stuck = faulty.worker(
        Faults(at="decide.before", times=1, how="sleep", sleep_s=3_600.0),
        worker_metrics_port=port,
        worker_stuck_s_max=3.0,
    )
    faulty.produce(log)
    wait_for("the end of a worker that stands still", lambda: stuck.returncode is not None)
    assert stuck.returncode == 70
    assert "has not moved" in stuck.said

    faulty.evict_dead_members()
    following = faulty.worker()
    faulty.settle(following)
    assert following.terminate() == 0


def test_a_worker_says_how_it_is(faulty: FaultStack) -> None:
    (port,) = free_ports(1)
    worker = faulty.worker(worker_metrics_port=port)
    wait_for("an assignment", lambda: "assigned" in worker.said)
    time.sleep(0.2)

    answer = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5.0)

    assert answer.status_code == 200
    assert answer.json()["standstill_s"] == 0
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait() == 0
