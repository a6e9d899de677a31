"""The invariants, each a function that says what does not hold.

They trust nothing of the code under test but the names of its columns. Two oracles: what the client was told is in,
counted in plain Python; and the log itself, read by a plain consumer and folded again from nothing.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import groupby
from types import TracebackType
from typing import Any, Self

import msgspec
from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, KafkaException, TopicPartition

from aggregators.app import GROUP_ID
from metering import catalog_store
from metering.clickhouse import connect, ensure_database
from metering.clock import SystemClock
from metering.config import Settings
from metering.kafka import client_config, log_ends
from metering.migrate import migrate
from schemas.errors import KafkaUnavailableError
from schemas.topics import USAGE_EVENTS
from tests.support.pipeline_rig import Life, stored
from tests.support.plain_log import CATALOG, Made, expected

SHOWN_MAX = 3
SAMPLE_S = 0.2

Total = tuple[int, Decimal, Decimal | None, Decimal | None, int]
"""(events, sum, min, max, digest)."""
TotalKey = tuple[str, str, int, tuple[tuple[str, str], ...]]
"""(meter, subject, window start in seconds since 1970, dimensions)."""


def no_loss(client: Client, accepted: Iterable[Made]) -> list[str]:
    """I1: each event that was answered 2xx is stored once by its identity."""
    rows = client.query(
        "SELECT subject, source, id, count() FROM events FINAL GROUP BY subject, source, id"
    ).result_rows
    counts = {(row[0], row[1], row[2]): row[3] for row in rows}
    wanted = {one.identity for one in accepted}
    lost = sorted(one for one in wanted if one not in counts)
    doubled = sorted(one for one, count in counts.items() if count > 1)
    return [
        *_says("I1", lost, f"of {len(wanted)} acknowledged events are not stored"),
        *_says("I1", doubled, "identities are stored more than once"),
    ]


def no_gap(client: Client, settings: Settings, epoch: str) -> list[str]:
    """I2: the ledger has every offset that Kafka gave, without a hole, and none that it did not give."""
    wrong: list[str] = []
    for partition, (first, end) in log_ends(settings, USAGE_EVENTS).items():
        rows = client.query(
            "SELECT first, last FROM positions FINAL WHERE epoch = {epoch:String} AND partition = {partition:UInt32} "
            "ORDER BY first, last",
            {"epoch": epoch, "partition": partition},
        ).result_rows
        at = first
        for row_first, row_last in rows:
            if row_first > at:
                wrong.append(f"I2: partition {partition} has no ledger row for offsets {at} to {row_first - 1}")
            at = max(at, row_last + 1)
        if at != end:
            wrong.append(f"I2: partition {partition} ends at offset {at - 1} in the ledger, at {end - 1} in the log")
    return wrong


def exact_totals(client: Client, accepted: Sequence[Made]) -> list[str]:
    """I3: every number of every meter, subject, window and group equals the plain count of what was acknowledged."""
    wanted = _plain_totals(accepted)
    rows = client.query(
        "SELECT meter, subject, toUnixTimestamp(window_start) AS window, dimensions, sum(events_count), "
        "sum(value_sum), min(value_min), max(value_max), sum(digest) FROM rollups FINAL "
        "GROUP BY meter, subject, window, dimensions"
    ).result_rows
    found: dict[TotalKey, Total] = {
        (row[0], row[1], row[2], tuple(sorted(row[3].items()))): (row[4], row[5], row[6], row[7], row[8])
        for row in rows
    }
    members = client.query(
        "SELECT DISTINCT subject, toUnixTimestamp(window_start), member FROM members FINAL WHERE meter = 'users'"
    ).result_rows
    plain = expected(_in_order(accepted)).members
    wanted_members = {(key[1], key[2], member) for key, member in plain}
    different = sorted((key for key in wanted if key in found and found[key] != wanted[key]), key=str)
    return [
        *_says("I3", sorted(set(wanted) - set(found), key=str), "totals are absent"),
        *_says("I3", sorted(set(found) - set(wanted), key=str), "totals are of nothing that was acknowledged"),
        *_says("I3", [(key, found[key], wanted[key]) for key in different], "totals differ (key, found, wanted)"),
        *_says("I3", sorted(wanted_members ^ {(a, b, c) for a, b, c in members}), "members differ"),
    ]


def accounting(client: Client, epoch: str) -> list[str]:
    """I7: what the ledger says was accepted and rejected is what is stored, and every offset was one of three."""
    ledger = client.query(
        "SELECT partition, first, last, accepted, duplicate, rejected, absent FROM positions FINAL "
        "WHERE epoch = {epoch:String}",
        {"epoch": epoch},
    ).result_rows
    wrong = [
        f"I7: ledger row {row[:3]} has {row[2] - row[1] + 1} offsets but accounts for {sum(row[3:])}"
        for row in ledger
        if sum(row[3:]) != row[2] - row[1] + 1
    ]
    for table, at in (("events", 3), ("dead_letters", 5)):
        offsets = client.query(
            "SELECT partition, offset FROM {table:Identifier} FINAL WHERE epoch = {epoch:String}",
            {"table": table, "epoch": epoch},
        ).result_rows
        stored_at = Counter(partition for partition, _ in offsets)
        by_partition: dict[int, list[Any]] = {}
        for row in ledger:
            by_partition.setdefault(row[0], []).append(row)
        places = set(offsets)
        for partition, rows in by_partition.items():
            for row in rows:
                inside = sum((partition, offset) in places for offset in range(row[1], row[2] + 1))
                if inside != row[at]:
                    wrong.append(f"I7: ledger row {row[:3]} says {row[at]} for {table}, which has {inside} there")
        if set(stored_at) - set(by_partition):
            wrong.append(f"I7: {table} has partitions without a ledger: {sorted(set(stored_at) - set(by_partition))}")
    return wrong


def replayed_alike(settings: Settings, client: Client, epoch: str, log: Sequence[Made]) -> list[str]:
    """I9: the log folded again from nothing, in other batches, gives the same rows, and the rows a plain count says."""
    wanted = expected(log)
    database = f"{settings.clickhouse_database}_replay_{uuid.uuid4().hex[:6]}"
    other = msgspec.structs.replace(settings, clickhouse_database=database)
    ensure_database(other)
    again = connect(other)
    try:
        migrate(again)
        catalog_store.apply(again, CATALOG, clock=SystemClock(), applied_by="oracle")
        one = Life(other, epoch, clock=SystemClock(), flush_events_max=3_000)
        try:
            _run_in_order(one, log)
        finally:
            one.stop()
        live, replay = stored(client, epoch), stored(again, epoch)
    finally:
        again.command("DROP DATABASE {name:Identifier} SYNC", {"name": database})
        again.close()
    wrong: list[str] = []
    for name in ("accepted", "rejected", "rollups", "members"):
        mine, its, plain = (getattr(one, name) for one in (live, replay, wanted))
        wrong += _says("I9", _differences(mine, its), f"{name} differ from those of a replay")
        wrong += _says("I3", _differences(mine, plain), f"{name} differ from a plain count of the log")
    return wrong


def _run_in_order(one: Life, log: Sequence[Made]) -> None:
    """Fold the log by the time at which Kafka wrote it down.

    Of an identity on two partitions either may be read first, which decides the row it is in, though not any total;
    by time the first is the first again.
    """
    one.take_over(*sorted({made.partition for made in log}))
    by_time = sorted(log, key=lambda made: (made.logged_at_ms, made.partition, made.offset))
    for _, batch in groupby(by_time, key=lambda made: made.partition):
        one.put([*batch])
    one.drain()


class CommitWatch:
    """I8, sampled: Kafka's committed offset is never beyond the first offset that the ledger does not have."""

    def __init__(self, settings: Settings, epoch: str) -> None:
        self._settings = settings
        self._epoch = epoch
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.samples = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        client = connect(self._settings)
        consumer = Consumer({**client_config(self._settings), "group.id": GROUP_ID, "enable.auto.commit": False})
        try:
            while not self._over.wait(SAMPLE_S):
                committed = self._committed(consumer)
                if committed:
                    self._compare(client, committed)
        finally:
            consumer.close()
            client.close()

    def _committed(self, consumer: Consumer) -> dict[int, int]:
        """The committed offsets; none while Kafka is away, which may be the fault under test."""
        try:
            partitions = [TopicPartition(USAGE_EVENTS, one) for one in log_ends(self._settings, USAGE_EVENTS)]
            return {one.partition: one.offset for one in consumer.committed(partitions, timeout=2.0)}
        except (KafkaException, KafkaUnavailableError):
            return {}

    def _compare(self, client: Client, committed: dict[int, int]) -> None:
        rows = client.query(
            "SELECT partition, first, last FROM positions WHERE epoch = {epoch:String} ORDER BY partition, first",
            {"epoch": self._epoch},
        ).result_rows
        unstored: Counter[int] = Counter()
        for partition, first, last in rows:
            if first <= unstored[partition]:
                unstored[partition] = max(unstored[partition], last + 1)
        self.samples += 1
        for partition, offset in committed.items():
            if offset > unstored[partition]:
                self.wrong.append(f"I8: partition {partition} committed {offset}, stored up to {unstored[partition]}")


def wait_for(what: str, holds: Any, timeout_s: float = 60.0) -> None:
    """Wait until `holds()`; says what was waited for when it never does."""
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, f"{what} did not come"
        time.sleep(0.05)


def _plain_totals(accepted: Sequence[Made]) -> dict[TotalKey, Total]:
    """`latest` is left to the oracle that knows the log's order; a client does not."""
    return {
        key[:4]: (row.events_count, row.value_sum, row.value_min, row.value_max, row.digest)
        if key[0] in {"total", "lowest", "highest", "newest"}
        else (row.events_count, Decimal(0), None, None, row.digest)
        for key, row in expected(_in_order(accepted)).rollups.items()
    }


def _in_order(accepted: Sequence[Made]) -> list[Made]:
    return [msgspec.structs.replace(one, partition=0, offset=offset) for offset, one in enumerate(accepted)]


def _differences(one: dict[Any, Any], other: dict[Any, Any]) -> list[Any]:
    return [(key, one.get(key), other.get(key)) for key in {*one, *other} if one.get(key) != other.get(key)]


def _says(name: str, found: Sequence[Any], what: str) -> list[str]:
    if not found:
        return []
    return [f"{name}: {len(found)} {what}, such as {', '.join(map(str, found[:SHOWN_MAX]))}"]
