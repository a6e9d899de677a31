"""The delivery ledger in ClickHouse: rows are appended, and the furthest one of a key is its state."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.delivery import Answer, Sending
from metering.clock import Clock

_COLUMNS: Final = (
    "target", "run", "key", "attempt", "state", "at", "lines", "status", "answer", "foreign_id", "mark", "exporter",
)  # fmt: skip

_STATES: Final = """
SELECT
    key, argMax(state, (attempt, state != 'sent', at)), max(attempt),
    minIf(at, state = 'sent' AND attempt = last_attempt), argMinIf(mark, at, state = 'sent' AND attempt = last_attempt)
FROM
(
    SELECT *, max(attempt) OVER (PARTITION BY key) AS last_attempt
    FROM deliveries
    WHERE target = {target:String} AND run = {run:String} AND key IN {keys:Array(String)}
)
GROUP BY key
"""


class KeyState(enum.Enum):
    """How far a key has come. `sent` without an answer: it may or may not have arrived."""

    SENT = "sent"
    ACCEPTED = "accepted"
    FAILED = "failed"


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger has of a key. `first_at` and `mark` are of the first sending of its last attempt."""

    state: KeyState
    attempt: int
    first_at: datetime
    mark: str


class Ledger:
    """The rows of one target and run. `exporter` says who writes them."""

    def __init__(self, client: Client, *, target: str, run: str, clock: Clock, exporter: str) -> None:
        self._client = client
        self._target = target
        self._run = run
        self._clock = clock
        self._exporter = exporter

    def is_empty(self) -> bool:
        """Whether nothing of the run was ever sent to the target."""
        query = "SELECT 1 FROM deliveries WHERE target = {target:String} AND run = {run:String} LIMIT 1"
        return not self._client.query(query, {"target": self._target, "run": self._run}).result_rows

    def states(self, keys: Sequence[str]) -> Mapping[str, Known]:
        """What the ledger has of these keys; a key that was never sent is not in it."""
        parameters = {"target": self._target, "run": self._run, "keys": list(keys)}
        return {
            key: Known(state=KeyState(state), attempt=attempt, first_at=_utc(first_at), mark=mark)
            for key, state, attempt, first_at, mark in self._client.query(_STATES, parameters).result_rows
        }

    def write_sent(self, sendings: Iterable[Sending]) -> None:
        """Write down what is about to leave."""
        self._write([self._row(one, KeyState.SENT, one.first_at, None) for one in sendings])

    def write_answers(self, answered: Iterable[tuple[Sending, Answer]]) -> None:
        """Write down what the target said."""
        now = self._clock.now()
        self._write([self._row(one, KeyState(answer.outcome.value), now, answer) for one, answer in answered])

    def _row(self, sending: Sending, state: KeyState, at: datetime, answer: Answer | None) -> list[Any]:
        lines = [item.id for item in sending.delivery.items]
        said = ("", "", "") if answer is None else (answer.status, answer.text, answer.foreign_id)
        return [
            self._target, self._run, sending.delivery.key, sending.attempt, state.value, at, lines, *said,
            sending.mark, self._exporter,
        ]  # fmt: skip

    def _write(self, rows: list[list[Any]]) -> None:
        if rows:
            self._client.insert("deliveries", rows, column_names=_COLUMNS)


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)
