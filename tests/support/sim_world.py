"""A seeded world around the real deciding and folding: a log, tables, and workers that die, doze and are replaced.

Every step is one call, so that a seed's scheduler and a search for short failures (hypothesis) drive the same world.
Safety holds after any step; once healed, the tables converge to what a plain count of the log says.
"""

from __future__ import annotations

import queue
import random
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from aggregators.commands import Assign
from aggregators.flush import Flush
from aggregators.pipeline import Pipeline
from metering.catalog_store import plan_apply
from metering.clock import FixedClock
from schemas.catalog import AppliedCatalog
from schemas.errors import PartitionTakenError
from schemas.meter import Aggregation, Meter
from tests.support.pipeline_rig import LIMITS, NO_LIMIT, NOW, batch_of
from tests.support.plain_log import CATALOG, EXACTLY, POISON, Made, Row, expected, meters_of
from tests.support.sim_store import EPOCH, RollupKey, SimStore, SimTables, Write, some_of, writes_of

PARTITIONS = 2
WORKERS_MAX = 3
CATALOGS_MAX = 3


class CrashError(Exception):
    """A worker is gone in the middle of a step."""


class SimWorker:
    """The pipeline of one worker without its threads: each step is a call, and each insert of a flush is one."""

    def __init__(
        self,
        tables: SimTables,
        catalogs: list[AppliedCatalog],
        clock: FixedClock,
        keys_max: int,
        chance: random.Random | None = None,
    ) -> None:
        """With `chance` it may crash while it takes a catalog up, before and after the claim."""
        self._tables = tables
        self._chance = chance
        self.pipeline = Pipeline(
            SimStore(tables, catalogs),  # type: ignore[arg-type]  # the same calls, without a database
            epoch=EPOCH,
            limits=LIMITS,
            dead_letter_limit=NO_LIMIT,
            flush_events_max=10,
            flush_interval_s=3_600.0,
            state_keys_max=keys_max,
            clock=clock,
            on_flushed=lambda _generation, _decisions: None,
            on_paused=lambda _generation, _paused, _resumed: None,
            on_fatal=_fatal,
        )
        self.pipeline._wait_written = self._wait_written  # type: ignore[method-assign]  # there is no write thread
        self.positions: dict[int, int] = {}
        self._generation = 0
        self._flush: Flush | None = None
        self._writes: list[Write] = []

    def take_over(self, partitions: tuple[int, ...]) -> None:
        """Be assigned; what is in flight is written first, as the pipeline waits for it."""
        self.write_all()
        self._generation += 1
        self.positions = self.pipeline._take_over(Assign(self._generation, partitions, Future()))

    def fetch(self, log: list[list[Made]], partition: int, count: int) -> None:
        """Take the next records of a partition in."""
        if not self.pipeline._flushes.empty():
            self.write_all()  # a full queue holds the fold thread back
        records = log[partition][self.positions[partition] :][:count]
        if records:
            self.pipeline._take_in(batch_of(records, self._generation))
            self.positions[partition] += len(records)
        self._collect()

    def flush(self) -> None:
        """Hand what is pending over to be written."""
        if not self.pipeline._flushes.empty():
            self.write_all()
        self.pipeline._flush()
        self._collect()

    def write(self, *, twice: bool = False) -> None:
        """Do the next insert; `twice` when its answer was lost."""
        if self._writes:
            write = self._writes.pop(0)
            for _ in range(1 + twice):
                self._tables.apply(write, write.rows)
        if not self._writes and self._flush is not None:
            self.pipeline._durable.put(self._flush)
            self._flush = None
            self.pipeline._collect_durable()
            self._collect()

    def write_all(self) -> None:
        """Do every insert that waits."""
        self._collect()
        while self._flush is not None:
            self.write()

    def _wait_written(self) -> None:
        """What the fold thread does before it claims a start: other workers see each insert by itself."""
        self._collect()
        while self._flush is not None:
            if self._chance is not None and self._chance.random() < 0.02:
                raise CrashError
            self.write()

    def die(self, chance: random.Random) -> None:
        """End in mid-insert: part of its rows may be in."""
        if self._writes and self._writes[0].table != "positions":
            self._tables.apply(self._writes[0], some_of(self._writes[0].rows, chance))

    def _collect(self) -> None:
        if self._flush is None:
            try:
                self._flush = self.pipeline._flushes.get_nowait()
            except queue.Empty:
                return
            self._writes = writes_of(self._flush)


class World:
    """All of it. `chance` decides what a step leaves open."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.log: list[list[Made]] = [[] for _ in range(PARTITIONS)]
        self.tables = SimTables()
        self.clock = FixedClock(NOW)
        self.catalogs = [plan_apply(None, CATALOG)]
        self.workers: list[SimWorker] = []
        self._count = 0
        self.history: list[str] = []

    # What may happen.

    def send(self) -> None:
        """A new event: on time, late, at the edge of a window."""
        partition = self.chance.randrange(PARTITIONS)
        self._count += 1
        self._append(
            Made(
                partition=partition,
                subject=f"s{partition}-{self.chance.randrange(2)}",
                id=f"e{self._count}",
                type="idle" if self.chance.random() < 0.05 else "used",
                time=datetime(2013, 1, 1, tzinfo=UTC)
                + timedelta(days=self.chance.randrange(3), minutes=self.chance.choice([0, 14, 15]))
                + timedelta(microseconds=self.chance.choice([-1, 0, 1])),
                n=self.chance.choice([None, "1", "-2.5", "0.000000000001", "999999999999999999.999999999999"]),
                region=self.chance.choice(["eu", "test"]),
                user=self.chance.choice([None, "u1", "u2"]),
            )
        )

    def send_again(self) -> None:
        """A repeat of an earlier event, now and then with another body."""
        partition = self.chance.randrange(PARTITIONS)
        good = [one for one in self.log[partition] if not one.reason]
        if good:
            changes = {"n": "12345"} if self.chance.random() < 0.2 else {}
            self._append(msgspec.structs.replace(self.chance.choice(good), **changes))

    def send_poison(self) -> None:
        partition = self.chance.randrange(PARTITIONS)
        reason, bad = self.chance.choice(POISON[:5])
        self._append(Made(partition=partition, subject=f"s{partition}-0", reason=reason, bad=bad))

    def start(self) -> None:
        """A worker joins; the partitions are shared out anew among those that can be told."""
        if len(self.workers) < WORKERS_MAX:
            self.workers.append(
                SimWorker(self.tables, self.catalogs, self.clock, self.chance.choice([1, 8, 1_000]), self.chance)
            )
        self.rebalance()

    def rebalance(self) -> None:
        """Share the partitions out. Who sleeps is not told, goes on with what it had, and is a zombie from here on."""
        told = [one for one in self.workers if self.chance.random() < 0.7]
        if not told:
            return
        shares: dict[int, list[int]] = defaultdict(list)
        for partition in range(PARTITIONS):
            shares[self.chance.randrange(len(told))].append(partition)
        for number, one in enumerate(told):
            with self._may_end(one):
                one.take_over(tuple(shares[number]))

    def fetch(self) -> None:
        able = [one for one in self.workers if one.positions]
        if able:
            one = self.chance.choice(able)
            with self._may_end(one):
                one.fetch(self.log, self.chance.choice(list(one.positions)), self.chance.randint(1, 8))

    def flush(self) -> None:
        if self.workers:
            self.chance.choice(self.workers).flush()

    def write(self) -> None:
        if self.workers:
            self.chance.choice(self.workers).write(twice=self.chance.random() < 0.2)

    def crash(self) -> None:
        """A worker is gone, perhaps in the middle of an insert. Nobody takes over before the next rebalance."""
        if self.workers:
            self.workers.pop(self.chance.randrange(len(self.workers))).die(self.chance)

    @contextmanager
    def _may_end(self, one: SimWorker) -> Iterator[None]:
        """A worker that another one has overtaken ends by itself; a crash may come while a catalog is taken up."""
        try:
            yield
        except (PartitionTakenError, CrashError):
            self.workers.remove(one)
            one.die(self.chance)

    def edit_catalog(self) -> None:
        """A meter more; workers take it up when they next look."""
        if len(self.catalogs) < CATALOGS_MAX:
            before = self.catalogs[-1]
            more = Meter(name=f"extra{len(self.catalogs)}", event_type="used", aggregation=Aggregation.SUM, value="n")
            catalog = msgspec.structs.replace(before.catalog, meters=(*before.catalog.meters, more))
            self.catalogs.append(plan_apply(before, catalog))

    def wait(self) -> None:
        """Time passes; workers look for a newer catalog."""
        self.clock.move_to(self.clock.now() + timedelta(seconds=3))

    STEPS = (
        (send, 24),
        (send_again, 8),
        (send_poison, 3),
        (fetch, 20),
        (flush, 8),
        (write, 24),
        (start, 3),
        (rebalance, 3),
        (crash, 3),
        (edit_catalog, 2),
        (wait, 4),
    )

    def step(self) -> None:
        """One thing happens."""
        (act,) = self.chance.choices([one for one, _ in self.STEPS], [weight for _, weight in self.STEPS])
        self.history.append(act.__name__)
        act(self)

    # What must hold.

    def check_safety(self) -> None:
        """Whatever was going on: each row is the plain count of its own prefix of the log, and the ledger is true."""
        wanted = expected([one for partition in self.log for one in partition])
        accepted = {(partition, offset): self.log[partition][offset] for partition, offset in wanted.accepted}
        stored = {(partition, offset): raw for (_, partition, offset), (raw, _) in self.tables.events.items()}
        for place, raw in stored.items():
            assert wanted.accepted.get(place) == raw, f"I1: {place} is stored, but is no first event"
        for key, row in self.tables.rollups.items():
            assert _shown(row) == self._plain(key, accepted, row["position"]), f"I3: {key} is not its prefix of the log"
        for (partition, first, last), row in self.tables.ledger.items():
            places = [(partition, offset) for offset in range(first, last + 1)]
            absent = [one for one in places if one in wanted.accepted and one not in stored]
            assert not absent, f"I1: the ledger has {absent}, events has not"
            unkept = [one for one in places if one in wanted.rejected and one not in self.tables.letters]
            assert not unkept, f"I2: the ledger has {unkept}, the dead letters have not"
            assert row["accepted"] == sum(one in wanted.accepted for one in places), "I7: accepted"
            assert row["rejected"] == sum(one in wanted.rejected for one in places), "I7: rejected"
            assert row["accepted"] + row["duplicate"] + row["rejected"] == len(places), "I7: offsets"

    def heal(self) -> None:
        """Every fault is over: who lives ends its flush, and one worker takes everything over."""
        for one in self.workers:
            one.write_all()
        self.wait()
        last = SimWorker(self.tables, self.catalogs, self.clock, keys_max=1_000)
        last.take_over(tuple(range(PARTITIONS)))
        for partition in range(PARTITIONS):
            while last.positions[partition] < len(self.log[partition]):
                last.fetch(self.log, partition, 7)
        last.flush()
        last.write_all()

    def check_converged(self) -> None:
        """Nothing is missing, nothing is twice."""
        self.check_safety()
        wanted = expected([one for partition in self.log for one in partition])
        places = {(partition, offset): raw for (_, partition, offset), (raw, _) in self.tables.events.items()}
        assert places == wanted.accepted
        assert self.tables.letters == wanted.rejected
        assert {(partition, offset, reason) for (partition, offset), reason in wanted.rejected.items()} == (
            self.tables.sent_letters
        )
        old = {one.name for one in CATALOG.meters}
        rollups = {
            (key[0], key[1], key[2], key[3], key[5]): Row(row["position"], *_shown(row))
            for key, row in self.tables.rollups.items()
            if key[0] in old
        }
        assert rollups == wanted.rollups
        members = {((key[0], key[1], key[2], key[3], key[5]), m): at for (key, m), at in self.tables.members.items()}
        assert members == wanted.members
        for partition in range(PARTITIONS):
            covered = {
                offset
                for number, first, last in self.tables.ledger
                for offset in range(first, last + 1)
                if number == partition
            }
            assert covered == set(range(len(self.log[partition]))), f"I2: partition {partition}"
            self._check_later_meters(partition, wanted.accepted)

    def _check_later_meters(self, partition: int, accepted: dict[tuple[int, int], bytes]) -> None:
        """A later meter counts each event from its recorded position on once, whatever series its rows belong to."""
        for version in range(2, len(self.catalogs) + 1):
            name = f"extra{version - 1}"
            firsts = [one.first for one in self.tables.starts[partition] if one.catalog_version >= version]
            start = min(firsts, default=len(self.log[partition]))
            series = {key[6] for key in self.tables.rollups if key[0] == name and key[5] == partition}
            assert series <= {start}, f"I3: {name} on partition {partition} has series {series}, it began at {start}"
            counted = sum(
                row["events_count"]
                for key, row in self.tables.rollups.items()
                if key[0] == name and key[5] == partition
            )
            plain = sum(
                one.n is not None and one.type == "used" and (partition, offset) in accepted
                for offset, one in enumerate(self.log[partition])
                if offset >= start
            )
            assert counted == plain, f"I3: {name} on partition {partition} counted {counted} events, there are {plain}"

    def _append(self, one: Made) -> None:
        log = self.log[one.partition]
        log.append(msgspec.structs.replace(one, offset=len(log)))

    def _plain(self, key: RollupKey, accepted: dict[tuple[int, int], Made], position: int) -> tuple[Any, ...]:
        meter, subject, window_s, dimensions, _, partition, first = key
        like = "lowest" if meter.startswith("extra") else meter
        mine = [
            (one, value)
            for (number, offset), one in accepted.items()
            if number == partition
            and first <= offset <= position
            and (one.subject, one.window_s) == (subject, window_s)
            for name, its_dimensions, value, _ in meters_of(one)
            if (name, its_dimensions) == (like, dimensions)
        ]
        total = Decimal(0)
        values = [value for _, value in mine if value is not None]
        for value in values:
            total = EXACTLY.add(total, value)
        latest = max(mine, key=lambda pair: (pair[0].time, pair[0].offset), default=(None, None))[1]
        digest = sum(one.digest for one, _ in mine) % (1 << 128)
        return len(mine), total, min(values, default=None), max(values, default=None), latest, digest


def _shown(row: dict[str, Any]) -> tuple[Any, ...]:
    digest = int.from_bytes(row["digest"], "little")
    return (*(row[name] for name in ("events_count", "value_sum", "value_min", "value_max", "value_latest")), digest)


def _fatal(error: BaseException) -> None:
    raise error
