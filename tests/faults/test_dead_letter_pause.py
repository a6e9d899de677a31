"""A worker process that gets mostly rubbish stops reading that partition, says so, and goes on when it is told to."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import httpx
import msgspec
from typer.testing import CliRunner

from aggregators.health import Health, serve_health
from metering import audit_log
from metering.cli import build_app
from metering.config import Settings, variable_of
from metering.embedded.ports import free_ports
from metering.stack import children
from schemas.errors import RequestError
from tests.support.fault_proof import prove
from tests.support.fault_stack import FaultStack, FaultyProcess
from tests.support.invariants import wait_for
from tests.support.plain_log import Made, made_log
from tests.support.worker_process import WAIT_S

wait_long = partial(wait_for, timeout_s=WAIT_S)


def rubbish(partition: int, first: int, count: int) -> list[Made]:
    return [
        Made(partition=partition, offset=first + number, subject=f"bad-{partition}", reason="not_json", bad=b"rubbish")
        for number in range(count)
    ]


def run(settings: Settings, *words: str) -> Any:
    names = ("kafka_servers", "clickhouse_url", "clickhouse_username", "clickhouse_password", "clickhouse_database")
    given = {variable_of(name): str(getattr(settings, name)) for name in names}
    return CliRunner().invoke(build_app(["dead-letters"]), ["dead-letters", *words], env=given)


def test_a_paused_partition_is_told_survives_rebalances_and_goes_on_where_it_stood(faulty: FaultStack) -> None:
    port, other_port = free_ports(2)
    log = made_log(41, 400, prefix="pause", share_bad=0.0)
    good = {number: [one for one in log if one.partition == number] for number in (0, 1)}
    bad = rubbish(0, len(good[0]), 600)
    later = made_log(42, 400, prefix="later", share_bad=0.0)
    elsewhere = len(good[1]) + sum(one.partition == 1 for one in later)

    def worker(port: int) -> FaultyProcess:
        return faulty.worker(worker_metrics_port=port, dead_letters_max=200, dead_letters_window_records=1_000)

    def health(port: int) -> tuple[int, dict[str, Any]]:
        answer = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60.0)
        return answer.status_code, answer.json()

    first = worker(port)
    faulty.produce([*log, *bad])
    wait_long("a pause", lambda: "partition paused" in first.said)
    faulty.produce(later)
    wait_long("the other partition", lambda: health(port)[1]["partitions"].get("1") == elsewhere)
    status, said = health(port)
    metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60.0).text
    listed = run(faulty.settings, "list", "--reason", "not_json", "--limit", "1", "--json")

    # Each of the two take-overs must find the pause: that of the one who shares, and that of the one who is left.
    second = worker(other_port)
    wait_long("a share", lambda: "assigned" in second.said)
    wait_long("a pause that is still there", lambda: "partition is still paused" in first.said + second.said)
    assert first.terminate() == 0
    wait_long("both partitions", lambda: health(other_port)[1]["partitions"].keys() == {"0", "1"})
    wait_long("a red answer", lambda: health(other_port)[1]["paused"].keys() == {"0"})
    red, standing = health(other_port)
    stood = standing["partitions"]["0"]
    wrong = run(faulty.settings, "resume", "1")
    dry = json.loads(run(faulty.settings, "resume", "--dry-run", "--json").stdout)
    done = run(faulty.settings, "resume", "0", "--why", "the exporter was mended")
    nothing = run(faulty.settings, "resume")
    wait_long("the end of the log", lambda: faulty.folded_count() == faulty.log_size() or second.returncode is not None)

    assert (status, red) == (503, 503)
    assert said["paused"]["0"] == dry_said(dry)
    assert "metering_worker_partitions_paused 1.0" in metrics
    assert f"paused: {said['paused']['0']}" in listed.stderr
    assert [one["reason"] for one in json.loads(listed.stdout)] == ["not_json"]
    assert [(one["partition"], one["offset"]) for one in dry["resumed"]] == [(0, stood)]
    assert isinstance(wrong.exception, RequestError)
    assert done.stdout == f"partition 0 is read on from offset {stood}\n"
    assert nothing.stdout == "No partition is paused.\n"
    assert [(one.action, one.object, one.detail["why"]) for one in audit_log.entries(faulty.client)][:1] == [
        ("partition.resumed", "partition 0", "the exporter was mended")
    ]
    wait_long("a green answer", lambda: health(other_port)[0] == 200)
    assert second.terminate() == 0
    prove(faulty, [*log, *bad, *later])


def dry_said(dry: dict[str, Any]) -> str:
    (one,) = dry["resumed"]
    return (
        f"{one['rejected']:,} of the last {one['records']:,} records of partition 0 were rejected; it is not read from "
        f"offset {one['offset']} on. See `metering dead-letters list --summary`, mend the cause, then "
        "`metering dead-letters resume 0`"
    )


class SaysOf:
    """A worker as far as its health goes."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def health(self) -> Health:
        return self._health


def test_a_stack_does_not_start_a_worker_again_because_a_partition_is_paused() -> None:
    (port,) = free_ports(1)
    settings = Settings(worker_metrics_port=port)
    waiting = Health(
        is_ready=False,
        epoch="cluster/log",
        partitions={0: 6},
        unflushed_s=0.0,
        standstill_s=0.0,
        waiting_for="events",
        paused={},
    )
    is_ready = next(one.ready for one in children(settings, python="python") if one.name == "worker")
    assert is_ready is not None

    with serve_health(settings, SaysOf(msgspec.structs.replace(waiting, waiting_for="", paused={0: "too many"}))):
        assert is_ready()
    with serve_health(settings, SaysOf(waiting)):
        assert not is_ready()
    assert not is_ready()
