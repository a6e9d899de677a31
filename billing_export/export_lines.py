"""Reads the documents of frozen runs for exports, some at a time, and holds them against what was frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import orjson
from clickhouse_connect.driver.client import Client

from billing_export.run import Run
from schemas.errors import InvariantViolationError, RunError
from schemas.line_item import LineItem, decode_line_item

LINES_AT_A_TIME: Final = 20_000

_DOCUMENTS: Final = """
SELECT document FROM line_items FINAL
WHERE run = {run:String} AND line_number >= {first:UInt64} AND line_number < {end:UInt64}
ORDER BY line_number, id
SETTINGS use_skip_indexes_if_final = 1
"""

Record = dict[str, Any]
"""A line's document as plain JSON values: every number that counts is a text in it."""


class Documents:
    """The canonical documents of a frozen run in order, by chunks, as `(documents, records)`.

    After the last chunk it has been settled that they are what was frozen: InvariantViolationError otherwise.
    Raises RunError for a run that is not frozen.
    """

    def __init__(
        self, client: Client, run: Run, *, lines_at_a_time: int = LINES_AT_A_TIME, read_ahead: bool = False
    ) -> None:
        """`read_ahead` asks for the next chunk while the last one is worked on; nobody else may use `client` then."""
        require_frozen(run)
        self._read_ahead = read_ahead
        self._client = client
        self._run = run
        self._step = lines_at_a_time

    def __iter__(self) -> Iterator[tuple[list[str], list[Record]]]:
        digest = hashlib.sha256()
        count = 0
        for answer in self._answers():
            digest.update(answer)  # each document with a line feed, as the digest has them
            texts = answer.decode().split("\n")[:-1]
            count += len(texts)
            yield texts, [orjson.loads(text) for text in texts]
        if (count, digest.hexdigest()) != (self._run.lines_count, frozen_digest(self._run)):
            raise InvariantViolationError(
                f"{count} lines with the digest {digest.hexdigest()} are stored, but {self._run.lines_count} with "
                f"{self._run.lines_digest} were frozen",
                where=f"line_items, run {self._run.id}",
                fix=f"Run `metering verify --period {self._run.period}`; do not use what was exported",
            )

    def items(self) -> Iterator[LineItem]:
        """The lines one by one."""
        for texts, _ in self:
            yield from map(decode_line_item, texts)

    def _answers(self) -> Iterator[bytes]:
        firsts = range(0, self._run.lines_count, self._step)
        if not self._read_ahead:
            yield from map(self._read, firsts)
            return
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = [reader.submit(self._read, first) for first in firsts[:1]]
            for first in [*firsts[1:], None]:
                answer = ahead.pop().result() if ahead else b""
                if first is not None:
                    ahead.append(reader.submit(self._read, first))
                yield answer

    def _read(self, first: int) -> bytes:
        parameters = {"run": self._run.id, "first": first, "end": first + self._step}
        # Raw, because a document never holds a line end or a tab as such, and unescaping takes longer than reading.
        return self._client.raw_query(_DOCUMENTS, parameters, fmt="TabSeparatedRaw")


def frozen_digest(run: Run) -> str:
    """The run's lines_digest; that of no bytes where it has no lines."""
    return run.lines_digest or hashlib.sha256().hexdigest()


def require_frozen(run: Run) -> None:
    """Raises RunError unless the run's lines can no longer change."""
    if not run.is_frozen:
        raise RunError(f"run {run.id} is not frozen", where="runs", fix=f"Run `metering close --period {run.period}`")
