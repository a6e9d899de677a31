"""How much a fault run is to do: short numbers unless the variables say otherwise (`make faults` says so).

FAULTS_EVENTS: events a test. FAULTS_SEEDS: how many seeds. FAULTS_SEED: only this one, to replay a failure.
"""

from __future__ import annotations

import os
from typing import Final

EVENTS: Final = int(os.environ.get("FAULTS_EVENTS", "1200"))
SEEDS: Final = int(os.environ.get("FAULTS_SEEDS", "1"))
IS_FULL: Final = EVENTS >= 20_000


def seeds() -> list[int]:
    """The seeds of this run."""
    one = os.environ.get("FAULTS_SEED")
    return [int(one)] if one else list(range(1, SEEDS + 1))


def replay_command(nodeid: str, seed: int) -> str:
    """What runs one test again just as it was."""
    return f"FAULTS_EVENTS={EVENTS} FAULTS_SEED={seed} pytest '{nodeid}'"
