"""A billing run: what it is made of and how it names itself."""

from __future__ import annotations

import enum
from datetime import datetime

import msgspec

from schemas.usage_query import Cut


class RunState(enum.Enum):
    """A run is claimed (`closing`), then frozen (`closed`). The open period before that has no run."""

    CLOSING = "closing"
    CLOSED = "closed"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run in one of its states. Everything but `state`, `at` and the two about lines is fixed by the claim.

    `at` is when it entered the state, UTC. `lines_digest` is the SHA-256 of all lines in order, each followed by a
    line feed, in hexadecimal: the digest of the run's JSONL export. `forced` says that the grace time was not over.
    """

    id: str
    period: str
    state: RunState
    at: datetime
    cut: Cut
    catalog_version: int
    forced: bool
    claimed_by: str
    code_version: str
    lines_count: int = 0
    lines_digest: str = ""


def run_id(period: str, number: int = 1) -> str:
    """The id of a period's run: `2013-01.1`. Runs of one period are numbered from 1."""
    return f"{period}.{number}"
