"""A billing run: what it is made of and how it names itself."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import datetime

import msgspec

from schemas.usage_query import Cut


class RunState(enum.Enum):
    """A run is claimed (`closing`), frozen (`closed`), and delivered (`exported`). Before that there is no run."""

    CLOSING = "closing"
    CLOSED = "closed"
    EXPORTED = "exported"


class RunKind(enum.Enum):
    """What a run bills: a period with all that belongs to it, or nothing but corrections of earlier runs."""

    BILL = "bill"
    ADJUSTMENTS = "adjustments"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run in one of its states. Everything but `state`, `at` and the two about lines is fixed by the claim.

    Runs are one log: `sequence` counts them from 1, and a run's lines depend on the frozen lines of those before it.
    `number` counts the runs of its period. `customers` is whom it bills; empty is everybody with that period. What an
    earlier run of the same period billed is not billed again.
    `at` is when it entered the state, UTC. `lines_digest` is the SHA-256 of all lines in order, each followed by a
    line feed, in hexadecimal: the digest of the run's JSONL export. `forced` says that the grace time was not over.
    """

    id: str
    sequence: int
    period: str
    number: int
    kind: RunKind = RunKind.BILL
    customers: tuple[str, ...] = ()
    state: RunState
    at: datetime
    cut: Cut
    catalog_version: int
    forced: bool
    claimed_by: str
    code_version: str
    lines_count: int = 0
    lines_digest: str = ""

    @property
    def is_frozen(self) -> bool:
        """Whether its lines are final."""
        return self.state is not RunState.CLOSING


def run_id(period: str, number: int = 1) -> str:
    """The id of a period's run: `2013-01.1`. Runs of one period are numbered from 1."""
    return f"{period}.{number}"


def next_run(
    log: Sequence[Run],
    label: str,
    *,
    at: datetime,
    cut: Cut,
    catalog_version: int,
    kind: RunKind = RunKind.BILL,
    customers: tuple[str, ...] = (),
    claimed_by: str = "",
    code_version: str = "",
) -> Run:
    """The run of a period that would come after those of `log`; nobody has claimed it yet, and perhaps nobody will."""
    number = 1 + sum(one.period == label for one in log)
    return Run(
        id=run_id(label, number),
        sequence=1 + max((one.sequence for one in log), default=0),
        period=label,
        number=number,
        kind=kind,
        customers=customers,
        state=RunState.CLOSING,
        at=at,
        cut=cut,
        catalog_version=catalog_version,
        forced=False,
        claimed_by=claimed_by,
        code_version=code_version,
    )
