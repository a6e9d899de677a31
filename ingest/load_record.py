"""What a load remembers of each event: where it was read, and where it came to stand in the log."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Final

import msgspec

from ingest.files.events import FileEvent, RowProblem

PROBLEMS_KEPT_MAX: Final = 1_000


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a load is: events read from the files, acknowledged by Kafka, and rows that were not taken."""

    read: int
    acknowledged: int
    refused: int


class Load(msgspec.Struct, kw_only=True):
    """What a load did so far.

    `problems` keeps the first PROBLEMS_KEPT_MAX rows that were not taken; `refused` counts them all, `reasons` by
    reason. `epoch` names the log; `offsets[partition]` and `rows[partition]` go together: where an event stands, and
    which it was in the order of reading (`place_of` says file and line of that). It takes some 30 bytes an event.
    """

    read: int = 0
    acknowledged: int = 0
    refused: int = 0
    retries: int = 0
    problems: list[RowProblem] = []
    reasons: Counter[str] = msgspec.field(default_factory=Counter)
    epoch: str = ""
    offsets: dict[int, array[int]] = {}
    rows: dict[int, array[int]] = {}
    files: list[str] = []
    files_index: dict[str, int] = {}
    row_file: array[int] = msgspec.field(default_factory=lambda: array("L"))
    row_line: array[int] = msgspec.field(default_factory=lambda: array("Q"))

    def place_of(self, row: int) -> tuple[str, int]:
        """File and line of the event that was read as number `row`, from 0."""
        return self.files[self.row_file[row]], self.row_line[row]

    def note_problem(self, problem: RowProblem) -> None:
        """Count a row that was not taken, and keep the first ones."""
        self.refused += 1
        self.reasons[problem.reason] += 1
        if len(self.problems) < PROBLEMS_KEPT_MAX:
            self.problems.append(problem)

    def add_event(self, event: FileEvent) -> int:
        """Note that an event was read; returns its number."""
        index = self.files_index.get(event.file)
        if index is None:
            index = self.files_index[event.file] = len(self.files)
            self.files.append(event.file)
        self.row_file.append(index)
        self.row_line.append(event.line)
        self.read += 1
        return self.read - 1

    def add_position(self, row: int, partition: int, offset: int) -> None:
        """Note where an event stands in the log."""
        if partition not in self.offsets:
            self.offsets[partition], self.rows[partition] = array("Q"), array("Q")
        self.offsets[partition].append(offset)
        self.rows[partition].append(row)
        self.acknowledged += 1
