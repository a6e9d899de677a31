"""An upgrade without downtime, and the way back: workers of two versions on one log and one database."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from metering import erasure_store
from metering import migrate as migrating
from metering.config import Settings
from metering.migrate import migrate, migrations
from metering.version import CODE_VERSION
from schemas.erasure import NOBODY
from tests.support.fault_numbers import EVENTS, seeds
from tests.support.fault_proof import prove
from tests.support.fault_stack import FaultStack, fault_stack_of
from tests.support.faulty_process import OLDER_VERSION, Faults
from tests.support.invariants import wait_for
from tests.support.pipeline_rig import CrashError, Life
from tests.support.plain_log import made_log
from tests.support.worker_process import WAIT_S

wait_long = partial(wait_for, timeout_s=WAIT_S)

OLDER = Faults(is_older=True)
NEWER_FROM = "0021"
"""The first migration that the older version does not know: the one that brought what `become_older` leaves out."""


@pytest.fixture
def before(service_settings: Settings) -> Iterator[FaultStack]:
    """A stack whose database has not seen the newest migrations."""
    known = [one for one in migrations() if one[0] < NEWER_FROM]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrating, "migrations", lambda: known)
        patch.setattr(erasure_store, "read", lambda _: NOBODY)
        stack = fault_stack_of(service_settings)
        one = stack.__enter__()
    try:
        yield one
    finally:
        stack.__exit__(None, None, None)


@pytest.mark.parametrize("seed", seeds())
def test_f18_two_versions_together_and_back(before: FaultStack, seed: int) -> None:
    """F18. An older worker, newer migrations under it, both versions together, and back: the same numbers."""
    log = made_log(seed, EVENTS, prefix="up")
    size = len(log) // 5
    parts = [log[at * size : (at + 1) * size] for at in range(4)] + [log[4 * size :]]

    older = before.worker(OLDER)
    before.produce(parts[0])
    before.settle(older)
    too_early = Life(before.settings, "cluster/not migrated")
    with pytest.raises(CrashError):
        too_early.take_over(0)
    too_early.stop()
    newest = migrate(before.client)
    before.produce(parts[1])
    before.settle(older)
    newer = before.worker()
    wait_long("the newer worker's assignment", lambda: "assigned" in newer.said)
    before.produce(parts[2])
    before.settle(older, newer)
    assert older.terminate() == 0
    before.produce(parts[3])
    before.settle(newer)
    back = before.worker(OLDER)
    wait_long("the older worker's assignment", lambda: "assigned" in back.said)
    assert newer.terminate() == 0
    before.produce(parts[4])
    before.settle(back)

    assert newest == [name for name, _ in migrations() if name >= NEWER_FROM]
    assert back.terminate() == 0
    wrote = before.client.query("SELECT DISTINCT code_version FROM positions ORDER BY code_version").result_rows
    assert {version for (version,) in wrote} == {OLDER_VERSION, CODE_VERSION}
    prove(before, log, overlaps=True)
