"""Closers and exporters that are killed or put to sleep at each step of their work, as processes of their own."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from billing_export import runs
from billing_export.export_check import check_folder
from billing_export.line_store import read_lines
from billing_export.run import RunState
from billing_export.verify import verify_period
from metering import catalog_store
from metering.catalog_file import parse_catalog
from metering.clock import SystemClock
from schemas.line_item import decode_line_item
from tests.support.fault_numbers import EVENTS, IS_FULL, seeds
from tests.support.fault_stack import FaultStack, state_of
from tests.support.faulty_process import Faults
from tests.support.invariants import wait_for
from tests.support.plain_log import CATALOG, Made
from tests.support.worker_process import WAIT_S

RUN = "2013-01.1"
BILLED = parse_catalog("""
meters:
  - {name: calls, event_type: used, aggregation: count}
customers:
  - {id: acme, subjects: [s0]}
  - {id: bolt, subjects: [s1]}
plans:
  - id: plain
    charges:
      - {id: fee, model: flat, amount: 5}
      - {id: calls, model: per_unit, meter: calls, unit_amount: 0.01}
subscriptions:
  - {id: acme-1, customer: acme, plan: plain, start: 2013-01-01}
  - {id: bolt-1, customer: bolt, plan: plain, start: 2013-01-01}
""")
SLEEPS = ["close.claim.before", "close.claim.after", "close.lines.before", "close.freeze.before", "close.freeze.after"]
KILLS = [
    ("export.write.before", 1),
    ("export.write.after", 1),
    ("export.fsync.before", 1),
    ("export.fsync.after", 2),
    ("export.rename.before", 1),
    ("export.rename.after", 1),
    ("export.rename.before", 3),
    ("export.rename.before", 4),
    ("export.mark.before", 1),
    ("export.mark.after", 1),
    ("export.note.after", 1),
]
"""(step, at which occurrence); two files of lines are renamed, then the manifest, then the checksums."""


def january(seed: int) -> list[Made]:
    """Events of two customers, each on a partition of its own."""
    chance = random.Random(seed)
    start = datetime(2013, 1, 1, tzinfo=UTC)
    offsets = [0, 0]
    log = []
    for number in range(EVENTS):
        partition = chance.randrange(2)
        time = start + timedelta(seconds=chance.randrange(31 * 86_400))
        log.append(
            Made(partition=partition, offset=offsets[partition], subject=f"s{partition}", id=str(number), time=time)
        )
        offsets[partition] += 1
    return log


def fold(stack: FaultStack, log: Sequence[Made]) -> None:
    """Have a worker count the log."""
    worker = stack.worker(flush_events_max=10_000)
    stack.produce(log)
    stack.settle(worker)
    assert worker.terminate() == 0


def documents(stack: FaultStack) -> list[str]:
    """The frozen lines of January, in order."""
    return [one.document for one in read_lines(stack.client, runs.closed(stack.client, "2013-01"))]


@pytest.fixture
def billed(faulty: FaultStack) -> FaultStack:
    catalog = msgspec.structs.replace(BILLED, event_types=CATALOG.event_types, meters=CATALOG.meters)
    catalog_store.apply(faulty.client, catalog, clock=SystemClock(), applied_by="test")
    return faulty


@pytest.mark.parametrize("seed", seeds())
def test_f22_two_closers_at_once_one_of_them_asleep(billed: FaultStack, seed: int) -> None:
    """F22. Of two closers one sleeps at a step while the other closes and more is counted: one set of lines."""
    log = january(seed)
    fold(billed, log)
    step = random.Random(seed).choice(SLEEPS)
    asleep = billed.command("close", "--period", "2013-01", faults=Faults(at=step, how="stop"))
    wait_for(f"sleep at {step}", lambda: state_of(asleep) == "T", WAIT_S)

    other = billed.command("close", "--period", "2013-01")
    assert other.wait() == 0, other.said
    lines = documents(billed)
    fold(billed, [Made(offset=sum(one.partition == 0 for one in log), subject="s0", id="late", time=log[0].time)])
    asleep.process.send_signal(signal.SIGCONT)
    assert asleep.wait() == 0, asleep.said

    items = [decode_line_item(one) for one in lines]
    calls = [sum(one.subject == subject for one in log) for subject in ("s0", "s1")]
    assert [(one.customer, one.charge, one.quantity) for one in items] == [
        ("acme", "fee", "1"),
        ("acme", "calls", str(calls[0])),
        ("bolt", "fee", "1"),
        ("bolt", "calls", str(calls[1])),
    ]
    assert documents(billed) == lines
    assert [(one.id, one.state) for one in runs.listed(billed.client)] == [(RUN, RunState.CLOSED)]
    assert verify_period(billed.client, "2013-01").differences == ()


@pytest.mark.parametrize("seed", seeds())
def test_f19_an_export_killed_at_any_step(billed: FaultStack, tmp_path: Path, seed: int) -> None:
    """F19. An export killed at any step leaves whole files or none; the next one leaves what one by itself would."""
    fold(billed, january(seed))
    closer = billed.command("close", "--period", "2013-01")
    assert closer.wait() == 0, closer.said
    kills = KILLS if IS_FULL else random.Random(seed).sample(KILLS, k=2)
    export = ["export", "--run", RUN, "--to", "jsonl", "--to", "csv", "--out"]
    undisturbed = billed.command(*export, str(tmp_path / "undisturbed"))
    assert undisturbed.wait() == 0, undisturbed.said
    whole = {one.name: one.read_bytes() for one in (tmp_path / "undisturbed" / RUN).iterdir()}
    notes = "SELECT count() FROM audit_log FINAL WHERE action = 'run.exported'"
    deliveries = "SELECT target, countIf(state = 'accepted') FROM deliveries GROUP BY target ORDER BY target"

    for number, (step, times) in enumerate(kills):
        folder = tmp_path / str(number)
        killed = billed.command(*export, str(folder), faults=Faults(at=step, times=times))
        assert killed.wait() == -signal.SIGKILL, f"{step}\n{killed.said}"
        there = {one.name: one.read_bytes() for one in (folder / RUN).iterdir() if one.suffix != ".part"}
        assert there.items() <= whole.items(), step
        again = billed.command(*export, str(folder))
        assert again.wait() == 0, again.said
        assert {one.name: one.read_bytes() for one in (folder / RUN).iterdir()} == whole, step
        assert check_folder(folder / RUN).differences == ()

    assert billed.client.query(notes).result_rows[0][0] >= 1 + len(kills)
    assert billed.client.query(deliveries).result_rows == [("csv", 1), ("jsonl", 1)]
    assert [(one.id, one.state) for one in runs.listed(billed.client)] == [(RUN, RunState.EXPORTED)]
