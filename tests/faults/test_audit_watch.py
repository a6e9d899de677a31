"""The worker audits itself: it says when what is stored does not agree, until it is mended."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from aggregators.audit_watch import look
from metering import catalog_store
from metering.embedded.ports import free_ports
from tests.support.fault_stack import FaultStack
from tests.support.invariants import wait_for
from tests.support.pipeline_rig import life
from tests.support.plain_log import made_log

EPOCH = "cluster/watched"
DAMAGES = [
    ("ledger", "DELETE FROM positions WHERE partition = 0 AND first = 200"),
    ("accounting", "DELETE FROM events WHERE partition = 0 AND offset > 200"),
    ("rollups", "DELETE FROM rollups WHERE partition = 0 AND meter = 'total'"),
]


@pytest.mark.parametrize(("check", "damage"), DAMAGES)
def test_a_look_finds_what_was_damaged_since_the_last_one(faulty: FaultStack, check: str, damage: str) -> None:
    log = made_log(5, 300, prefix="look", partitions=1, days=1, share_bad=0.0)
    catalog = catalog_store.latest(faulty.client)
    with life(faulty.settings, EPOCH) as worker:
        worker.take_over(0)
        for first in (0, 200, 250):
            worker.put([one for one in log if first <= one.offset < {0: 200, 200: 250, 250: 300}[first]])
            worker.drain()
            if first == 0:
                before, looked = look(faulty.client, catalog, EPOCH, [0], {}, days=100, seed=1)
    clean, ends = look(faulty.client, catalog, EPOCH, [0], looked, days=100, seed=1)

    faulty.client.command(damage)
    found, _ = look(faulty.client, catalog, EPOCH, [0], looked, days=100, seed=1)

    assert (before, looked) == ([], {0: 200})
    assert (clean, ends) == ([], {0: 300})
    assert check in {one.check for one in found}


def test_a_worker_alarms_until_what_differs_is_mended(faulty: FaultStack) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    log = made_log(6, 200, prefix="alarm", days=1)
    worker = faulty.worker(worker_metrics_port=port, audit_interval_s=0.5)
    faulty.produce(log)
    faulty.settle(worker)

    def found() -> Any:
        return httpx.get(f"{url}/readyz", timeout=5.0).json()["audit_differences"]

    wait_for("a clean audit", lambda: found() == {"ledger": 0, "accounting": 0, "rollups": 0})
    faulty.client.command("CREATE TABLE kept AS rollups")
    faulty.client.command("INSERT INTO kept SELECT * FROM rollups WHERE meter = 'total'")
    faulty.client.command("DELETE FROM rollups WHERE meter = 'total'")
    wait_for("an alarm", lambda: sum(found().values()) > 0)
    answer = httpx.get(f"{url}/readyz", timeout=5.0)
    metrics = httpx.get(f"{url}/metrics", timeout=5.0).text
    faulty.client.command("INSERT INTO rollups SELECT * FROM kept")
    wait_for("the end of the alarm", lambda: sum(found().values()) == 0)

    assert answer.status_code == 200
    assert 'metering_worker_audit_differences{check="rollups"} 0.0' not in metrics
    assert "metering repair" in worker.said
    assert worker.terminate() == 0
