"""Faults of worker processes: killed, stopped, asleep, restarted, misled by their clocks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupState

from tests.support.fault_numbers import EVENTS, FLUSH_EVENTS, IS_FULL, seeds
from tests.support.fault_proof import prove
from tests.support.fault_stack import STOP_WAIT_S, FaultStack, FaultyProcess, Sender, group_state, made_events, state_of
from tests.support.fault_wire import FaultWire
from tests.support.faulty_process import STEPS, Faults
from tests.support.invariants import CommitWatch, wait_for
from tests.support.plain_log import Made, made_log
from tests.support.worker_process import WAIT_S

KILLS = 100 if IS_FULL else 3
STORM_STEPS = 40 if IS_FULL else 5
CRASHES = 50 if IS_FULL else 2
SETTLED_S = 5.0
"""How long a worker may take, after the ledger has everything, to come to the steps after that."""
PREPARING = ConsumerGroupState.PREPARING_REBALANCING
ZOMBIE_STEPS = ["flush.events", "flush.rollups", "flush.positions"] if IS_FULL else ["flush.rollups"]


def slices(log: Sequence[Made], count: int) -> list[Sequence[Made]]:
    """The log in `count` parts of about the same size."""
    size = -(-len(log) // count)
    return [log[at : at + size] for at in range(0, len(log), size)]


def clickhouse_port(stack: FaultStack) -> int:
    return int(stack.settings.clickhouse_address.rpartition(":")[2])


@pytest.mark.parametrize("seed", seeds())
def test_f1_a_worker_killed_at_any_step(faulty: FaultStack, seed: int) -> None:
    """F1. A worker killed before, in or after any step of its work leaves nothing that the next life does not mend."""
    chance = random.Random(seed)
    log = made_log(seed, EVENTS, prefix="kill")
    points = [f"{step}.{when}" for step in STEPS for when in ("before", "during", "after")]
    chosen = [chance.choice(points) for _ in range(KILLS)]
    first, *parts = slices(log, KILLS + 1)
    reached: list[bool] = []

    with CommitWatch(faulty.settings, faulty.epoch) as watch:
        # Without a life before there is nothing to take over, and its steps would never be reached.
        unhurt = faulty.worker()
        faulty.produce(first)
        faulty.settle(unhurt)
        assert unhurt.terminate() == 0
        for point, part in zip(chosen, parts, strict=False):
            worker = faulty.worker(Faults(at=point))
            faulty.produce(part)
            reached.append(dies_of_itself(faulty, worker))
            assert worker.returncode == -signal.SIGKILL, f"{point}\n{worker.said}"
            faulty.evict_dead_members()
        last = faulty.worker()
        wait_for("an assignment", lambda: "assigned" in last.said)
        faulty.settle(last)

    assert last.terminate() == 0
    assert sum(reached) > len(reached) // 2
    assert watch.samples
    assert watch.wrong == []
    prove(faulty, log)


def dies_of_itself(stack: FaultStack, worker: FaultyProcess) -> bool:
    """Whether a worker reached the step it is to die at; one that did all its work without is killed instead.

    A life need not come to every step: what an earlier one has written already, it does not write again.
    """
    wait_for("a death", lambda: worker.returncode is not None or stack.folded_count() >= stack.log_size())
    try:
        worker.process.wait(SETTLED_S)
    except subprocess.TimeoutExpired:
        worker.kill()
        return False
    return True


@pytest.mark.parametrize("seed", seeds())
def test_f1_a_killed_workers_backlog_is_taken_over(faulty: FaultStack, seed: int) -> None:
    """F1. Another worker takes a killed one's partitions over by itself once Kafka's session timeout has passed."""
    log = made_log(seed, EVENTS // 2, prefix="over")
    first = faulty.worker()
    faulty.produce(log[: len(log) // 2])
    faulty.wait_folded(1, first)
    second = faulty.worker()
    wait_for("the second worker's assignment", lambda: "assigned" in second.said)

    first.kill()
    faulty.produce(log[len(log) // 2 :])
    faulty.settle(second)

    assert second.terminate() == 0
    prove(faulty, log, overlaps=True)


def test_f2_a_worker_told_to_stop_while_clickhouse_answers_nothing(faulty: FaultStack) -> None:
    """F2. SIGTERM ends a worker within 20 s also while a request to ClickHouse never returns."""
    log = made_log(2, EVENTS // 4, prefix="hang")
    with FaultWire(clickhouse_port(faulty)) as wire:
        worker = faulty.worker(clickhouse_url=f"http://127.0.0.1:{wire.port}")
        faulty.produce(log[: len(log) // 2])
        faulty.settle(worker)
        wire.spoil("swallow")
        faulty.produce(log[len(log) // 2 :])
        wait_for("a request that hangs", lambda: wire.broken)

        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(STOP_WAIT_S) in {0, 75}, worker.said
    following = faulty.worker()
    faulty.settle(following)

    assert following.terminate() == 0
    prove(faulty, log)


def test_f2_a_worker_told_to_stop_while_it_joins(faulty: FaultStack) -> None:
    """F2. SIGTERM ends a worker within 20 s also while it waits to join its group behind a member that sleeps."""
    log = made_log(3, EVENTS // 4, prefix="join")
    faulty.produce(log)
    sleeper = faulty.worker()
    faulty.settle(sleeper)
    sleeper.process.send_signal(signal.SIGSTOP)
    joining = faulty.worker()
    wait_for("a group that waits for the sleeper", lambda: group_state(faulty.settings) is PREPARING)

    joining.process.send_signal(signal.SIGTERM)
    code = joining.process.wait(STOP_WAIT_S)
    sleeper.process.send_signal(signal.SIGCONT)

    assert code in {0, 75}, joining.said
    assert sleeper.terminate() in {0, 70, 75}, sleeper.said
    prove(faulty, log)


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("step", ZOMBIE_STEPS)
def test_f9_a_zombie_that_wakes_in_mid_flush(faulty: FaultStack, step: str, seed: int) -> None:
    """F9. A worker that slept in mid-flush through losing its partitions, and ends that flush, changes no number."""
    log = made_log(seed, EVENTS // 2, prefix="zombie")
    half = len(log) // 2
    zombie = faulty.worker(Faults(at=f"{step}.before", times=2, how="stop"))
    faulty.produce(log[:half])
    wait_for("sleep", lambda: state_of(zombie) == "T")
    faulty.evict_dead_members()

    # Its successor cuts the log elsewhere, so that the zombie's states end at positions of their own.
    successor = faulty.worker(flush_events_max=FLUSH_EVENTS // 3 + 4)
    faulty.settle(successor)
    zombie.process.send_signal(signal.SIGCONT)
    faulty.produce(log[half:])
    faulty.settle(successor)
    wait_for("the zombie's end of its flush", lambda: zombie.returncode is not None or state_of(zombie) == "S")
    time.sleep(1.0)  # it may write what it had in hand

    assert zombie.terminate() in {0, 70, 75}, zombie.said
    faulty.settle(successor)
    assert successor.terminate() == 0
    prove(faulty, log, overlaps=True)


@pytest.mark.parametrize("seed", seeds())
def test_f10_workers_that_come_and_go_at_random(faulty: FaultStack, seed: int) -> None:
    """F10. One to three workers that are started, stopped, killed and put to sleep at random count every event once."""
    chance = random.Random(seed)
    log = made_log(seed, EVENTS, prefix="storm")
    alive = [faulty.worker()]
    asleep: list[FaultyProcess] = []
    with CommitWatch(faulty.settings, faulty.epoch) as watch:
        for part in slices(log, STORM_STEPS):
            faulty.produce(part)
            time.sleep(chance.uniform(0.2, 1.0))
            act = chance.choice(["start", "start", "term", "kill", "stop", "wake"])
            if act == "start" and len(alive) + len(asleep) < 3:
                alive.append(faulty.worker())
            elif act == "wake" and asleep:
                asleep[0].process.send_signal(signal.SIGCONT)
                alive.append(asleep.pop(0))
            elif alive and act != "start":
                one = alive.pop(chance.randrange(len(alive)))
                one.process.send_signal({"term": signal.SIGTERM, "kill": signal.SIGKILL}.get(act, signal.SIGSTOP))
                if act in {"stop", "wake"}:
                    asleep.append(one)
        for one in asleep:
            one.process.send_signal(signal.SIGCONT)
        for one in (*alive, *asleep):
            one.process.send_signal(signal.SIGTERM)
        for one in (*alive, *asleep):
            assert one.wait() in {0, 70, 75, -signal.SIGTERM}, one.said
        faulty.evict_dead_members()
        last = faulty.worker()
        wait_for("an assignment", lambda: "assigned" in last.said)
        faulty.settle(last)

    assert last.terminate() == 0
    assert watch.wrong == []
    prove(faulty, log, overlaps=True)


@pytest.mark.parametrize("seed", seeds())
def test_f12_workers_whose_clocks_are_wrong(faulty: FaultStack, seed: int) -> None:
    """F12. Workers an hour or forty days off, or whose clock jumps back, count alike: the log has the clock."""
    hour_s, days_s = 3_600.0, 40 * 86_400.0
    log = made_log(seed, EVENTS // 2, prefix="clock")
    skews = [
        Faults(clock_s=hour_s),
        Faults(clock_s=-days_s),
        Faults(clock_s=days_s, clock_jump_s=-2 * days_s, clock_jump_after_s=2.0),
    ]
    for skew, part in zip(skews, slices(log, len(skews)), strict=True):
        worker = faulty.worker(skew)
        faulty.produce(part)
        faulty.settle(worker)
        assert worker.terminate() == 0

    prove(faulty, log)


@pytest.mark.parametrize("seed", seeds())
def test_f16_a_worker_that_ends_every_few_seconds(faulty: FaultStack, seed: int) -> None:
    """F16. A worker that never lives longer than seconds moves on in every life, poison in its log or not."""
    log = made_log(seed, EVENTS, prefix="loop", share_bad=0.3)
    reached = 0
    for part in slices(log, CRASHES):
        faulty.produce(part)
        worker = faulty.worker(Faults(at="flush.positions.after", times=2, how="exit"))
        assert worker.wait() == 9, worker.said
        faulty.evict_dead_members()
        now = faulty.folded_count()
        assert now > reached, f"no progress in a life: {now}\n{worker.said}"
        reached = now
    last = faulty.worker()
    wait_for("an assignment", lambda: "assigned" in last.said)
    faulty.settle(last)

    assert last.terminate() == 0
    prove(faulty, log)


@pytest.mark.parametrize("seed", seeds())
def test_f5_clickhouse_down_in_every_way(faulty: FaultStack, seed: int) -> None:
    """F5. ClickHouse refuses, answers 503, crawls or hangs: the gateway goes on, memory stays, nothing is lost."""
    log = made_events(seed, EVENTS, prefix="down")
    quarter = len(log) // 4
    sender = Sender(faulty)
    faulty.gateway()
    with (
        FaultWire(clickhouse_port(faulty)) as wire,
        CommitWatch(faulty.settings, faulty.epoch) as watch,
    ):
        worker = faulty.worker(clickhouse_url=f"http://127.0.0.1:{wire.port}", clickhouse_timeout_s=3.0)
        sender.send(log[:quarter])
        faulty.settle(worker)
        rss_before_bytes = rss_bytes(worker)
        stood = faulty.folded_count()
        for number, mode in enumerate(("reset", "http_503", "hold")):
            broken = wire.broken
            wire.spoil(mode)
            sender.send(log[quarter * (number + 1) : quarter * (number + 2)])
            wait_for(f"{mode} to be felt", lambda before=broken: wire.broken > before)
            time.sleep(1.0)
            assert worker.returncode is None, worker.said
        assert faulty.folded_count() == stood
        rss_after_bytes = rss_bytes(worker)
        wire.spoil("trickle", times=200)
        wait_for("recovery", lambda: faulty.folded_count() == faulty.log_size(), WAIT_S)
        sender.send(log[quarter * 4 :])
        faulty.settle(worker)
        assert worker.terminate() == 0

    assert set(sender.answers) == {200}
    assert rss_after_bytes <= 1.5 * rss_before_bytes
    assert watch.wrong == []
    prove(faulty, log, sender.accepted)


def rss_bytes(worker: FaultyProcess) -> int:
    """Resident memory of a process."""
    pages = Path(f"/proc/{worker.process.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("seed", seeds())
def test_f6_answers_lost_after_the_write(faulty: FaultStack, seed: int) -> None:
    """F6. An insert that was done but never answered is repeated, also by the next life, and counts once."""
    log = made_log(seed, EVENTS, prefix="lost")
    parts = slices(log, 4)
    with FaultWire(clickhouse_port(faulty)) as wire:
        url = f"http://127.0.0.1:{wire.port}"
        worker = faulty.worker(clickhouse_url=url)
        for table, part in zip((b"events", b"rollups", b"positions"), parts[:3], strict=True):
            faulty.settle(worker)
            before = wire.broken
            wire.spoil("drop_answer", times=2, only=b"insert_deduplication_token=" + table)
            faulty.produce(part)
            wait_for(f"a lost answer to an insert into {table.decode()}", lambda before=before: wire.broken > before)
            wire.heal()
            faulty.settle(worker)
        # The answer is lost, and then the worker as well.
        wire.spoil("drop_answer", only=b"insert_deduplication_token=")
        before = wire.broken
        faulty.produce(parts[3])
        wait_for("a lost answer", lambda: wire.broken > before)
        worker.kill()
        wire.heal()
        faulty.evict_dead_members()
        following = faulty.worker(clickhouse_url=url, flush_events_max=FLUSH_EVENTS // 2 + 11)
        faulty.settle(following)
        assert following.terminate() == 0

    prove(faulty, log)
