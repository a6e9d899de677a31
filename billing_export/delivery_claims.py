"""Claims: one exporter at a time delivers a run to a target, and a dead one does not stand in the way."""

from __future__ import annotations

import os
import socket
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import msgspec
from clickhouse_connect.driver.client import Client

from metering.clock import Clock
from schemas.errors import RunError

_COLUMNS: Final = ("target", "run", "number", "state", "at", "until", "exporter")
_CLAIMS: Final = """
SELECT number, argMax(exporter, state = 'claimed'), max(until), countIf(state = 'released') > 0
FROM delivery_claims
WHERE target = {target:String} AND run = {run:String}
GROUP BY number
ORDER BY number DESC
LIMIT 1
"""


class Exporter(msgspec.Struct, frozen=True, kw_only=True):
    """Who delivers: a user, a machine, a process, and a mark that no other process has."""

    user: str
    machine: str
    process: int
    token: str

    def __str__(self) -> str:
        return f"{self.user}@{self.machine} process {self.process} ({self.token})"


def this_process(user: str) -> Exporter:
    """This process as an exporter."""
    return Exporter(user=user, machine=socket.gethostname(), process=os.getpid(), token=uuid.uuid4().hex[:12])


class Claim:
    """The right to deliver a run to a target, for `lease_s` from the last renewal. Use as a context."""

    def __init__(
        self, client: Client, *, target: str, run: str, exporter: Exporter, clock: Clock, lease_s: float
    ) -> None:
        self._client = client
        self._target = target
        self._run = run
        self._exporter = exporter
        self._clock = clock
        self._lease_s = lease_s
        self._number = 0
        self._renewed_s = 0.0

    def __enter__(self) -> Self:
        """Raises RunError while another exporter that is alive holds the claim."""
        before = self._newest()
        if before is not None:
            self._require_over(*before)
        self._number = before[0] + 1 if before else 1
        self._write("claimed", token=f"delivery-{self._target}-{self._run}-{self._number}")
        now = self._newest()
        if now is None or now[1] != str(self._exporter):
            raise self._taken(now[1] if now else "another exporter", "just now")
        return self

    def __exit__(self, *_: object) -> None:
        self._write("released")

    def renew(self) -> None:
        """Say that this exporter is alive. Raises RunError when the claim ran out and somebody else has it."""
        since_s = self._clock.monotonic_s() - self._renewed_s
        if since_s < self._lease_s / 3:
            return
        newest = self._newest()
        if newest is None or newest[0] != self._number:
            raise self._taken(newest[1] if newest else "another exporter", "meanwhile")
        self._write("renewed")

    def _newest(self) -> tuple[int, str, datetime, bool] | None:
        """Number, exporter, end and whether it was released, of the newest claim."""
        rows = self._client.query(_CLAIMS, {"target": self._target, "run": self._run}).result_rows
        if not rows:
            return None
        number, exporter, until, released = rows[0]
        return number, exporter, until if until.tzinfo else until.replace(tzinfo=UTC), bool(released)

    def _require_over(self, number: int, exporter: str, until: datetime, released: bool) -> None:  # noqa: FBT001 - a row
        del number
        if not released and until > self._clock.now() and not self._is_dead(exporter):
            raise self._taken(exporter, f"until {until:%H:%M:%S} UTC unless it goes on")

    def _is_dead(self, exporter: str) -> bool:
        """Whether it was a process of this machine that is no more."""
        machine, _, process = exporter.partition("@")[2].partition(" process ")
        if machine != self._exporter.machine:
            return False
        try:
            os.kill(int(process.partition(" ")[0]), 0)
        except ProcessLookupError:
            return True
        except (PermissionError, ValueError):
            return False
        return False

    def _write(self, state: str, *, token: str = "") -> None:
        # The lease counts from here, however long the insert takes.
        now, begun_s = self._clock.now(), self._clock.monotonic_s()
        until = now + timedelta(seconds=self._lease_s)
        row: list[Any] = [self._target, self._run, self._number, state, now, until, str(self._exporter)]
        settings = {"insert_deduplication_token": token or f"{self._exporter.token}-{state}-{uuid.uuid4().hex}"}
        self._client.insert("delivery_claims", [row], column_names=_COLUMNS, settings=settings)
        self._renewed_s = begun_s

    def _taken(self, exporter: str, when: str) -> RunError:
        return RunError(
            f"{exporter} is delivering it ({when})",
            where=f"run {self._run} to {self._target}",
            fix="Wait until it is done, then run this again for what it left",
        )
