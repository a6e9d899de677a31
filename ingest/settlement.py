"""What became of a load: waits until the ledger has every offset, then looks each event up."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from ingest.files.events import RowProblem
from ingest.load_record import PROBLEMS_KEPT_MAX, Load
from metering.clock import Clock
from schemas.errors import UnavailableError
from schemas.topics import USAGE_EVENTS

LOOK_UP_OFFSETS: Final = 500_000
POLL_INTERVAL_S: Final = 0.3


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """Every acknowledged event is in exactly one count.

    `rejections` has the first dead letters by file and line, `reasons` counts them all by reason.

    An event that a repeated request had put into the log before counts as duplicate of itself.
    """

    accepted: int
    duplicate: int
    rejected: int
    rejections: list[RowProblem]
    reasons: Counter[str]


def wait_until_folded(
    client: Client,
    load: Load,
    *,
    clock: Clock,
    sleep: Callable[[float], None],
    idle_s_max: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Return once the ledger covers every offset of the load. `on_progress` gets (folded, all), counted in offsets.

    Raises UnavailableError when the ledger has not moved for `idle_s_max`: no worker runs, or it is stuck.
    """
    ends = {partition: max(offsets) for partition, offsets in load.offsets.items()}
    firsts = {partition: min(offsets) for partition, offsets in load.offsets.items()}
    total = sum(ends[partition] - firsts[partition] + 1 for partition in ends)
    moved_at_s, lasts_before = clock.monotonic_s(), dict[int, int]()
    while True:
        lasts = _folded(client, load.epoch)
        folded = sum(
            min(max(lasts.get(partition, -1) - firsts[partition] + 1, 0), ends[partition] - firsts[partition] + 1)
            for partition in ends
        )
        if on_progress:
            on_progress(folded, total)
        if folded == total:
            return
        # A worker that is still busy with what others sent before is not stuck.
        if lasts != lasts_before:
            moved_at_s, lasts_before = clock.monotonic_s(), lasts
        elif clock.monotonic_s() - moved_at_s > idle_s_max:
            raise UnavailableError(
                f"the ledger stands still at {folded} of {total} offsets for {idle_s_max:g} s",
                where="worker",
                fix="Start it with `metering up` or `metering worker`; the events are safe in Kafka",
            )
        sleep(POLL_INTERVAL_S)


def settle(client: Client, load: Load) -> Settlement:
    """Look up what the worker decided about every acknowledged event of the load."""
    accepted = rejected = 0
    rejections: list[RowProblem] = []
    reasons: Counter[str] = Counter()
    for partition, offsets in load.offsets.items():
        pairs = sorted(zip(offsets, load.rows[partition], strict=True))
        for start in range(0, len(pairs), LOOK_UP_OFFSETS):
            part = pairs[start : start + LOOK_UP_OFFSETS]
            wanted = [offset for offset, _ in part]
            span: dict[str, str | int] = {
                "epoch": load.epoch,
                "partition": partition,
                "first": wanted[0],
                "last": wanted[-1],
            }
            accepted += len(_stored(client, span).intersection(wanted))
            for offset, reason, field, detail in _dead(client, span):
                at = bisect_left(wanted, offset)
                if at == len(wanted) or wanted[at] != offset:
                    continue
                rejected += 1
                reasons[reason] += 1
                if len(rejections) < PROBLEMS_KEPT_MAX:
                    file, line = load.place_of(part[at][1])
                    rejections.append(RowProblem(file, line, reason, field, detail))
    duplicate = load.acknowledged - accepted - rejected
    return Settlement(accepted=accepted, duplicate=duplicate, rejected=rejected, rejections=rejections, reasons=reasons)


def _folded(client: Client, epoch: str) -> dict[int, int]:
    rows = client.query(
        "SELECT partition, max(last) FROM positions WHERE epoch = {epoch:String} AND topic = {topic:String} "
        "GROUP BY partition",
        {"epoch": epoch, "topic": USAGE_EVENTS},
    ).result_rows
    return {int(partition): int(last) for partition, last in rows}


def _stored(client: Client, span: dict[str, str | int]) -> set[int]:
    found: set[int] = set()
    with client.query_column_block_stream(
        "SELECT offset FROM events FINAL WHERE epoch = {epoch:String} AND partition = {partition:UInt32} "
        "AND offset BETWEEN {first:UInt64} AND {last:UInt64}",
        span,
    ) as blocks:
        for block in blocks:
            found.update(block[0])
    return found


def _dead(client: Client, span: dict[str, str | int]) -> list[tuple[int, str, str, str]]:
    rows = client.query(
        "SELECT offset, reason, field, detail FROM dead_letters FINAL WHERE epoch = {epoch:String} "
        "AND topic = {topic:String} AND partition = {partition:UInt32} "
        "AND offset BETWEEN {first:UInt64} AND {last:UInt64} ORDER BY offset",
        {**span, "topic": USAGE_EVENTS},
    ).result_rows
    return [(int(row[0]), str(row[1]), str(row[2]), str(row[3])) for row in rows]
