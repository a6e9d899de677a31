"""Closing a period: finish what others began, claim the run, make its lines, freeze it.

Safe to kill at any point and to run twice at once: the claim fixes the cut and the catalog, lines are a pure function
of both and of earlier frozen runs, they replace themselves, and the frozen state is written last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.assemble import Assembly, assemble
from billing_export.catalogs import Catalogs
from billing_export.line_store import Row, count_lines, rows_of, write_rows
from billing_export.obstacles import Asked, obstacles
from billing_export.parallel import in_order, without_collector, workers_for
from billing_export.prepare import due, not_billed_again, prepare
from billing_export.readings import CUSTOMERS_AT_A_TIME, ConnectedReader, UsageReader
from billing_export.run import Run, RunKind, RunState
from metering import audit_log, erasure_store
from metering.audit_log import Action
from metering.clock import Clock
from schemas.errors import InvariantViolationError, RunError
from schemas.line_item import LineItem

STEPS: Final = ("claimed", "lines_read", "lines_written", "freezing", "frozen")
"""What `on_step` hears, in this order; `lines_read` and `lines_written` once for each part of the customers."""


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is frozen. `changed` is False when it had been before this close."""

    run: Run
    changed: bool


class Closer(msgspec.Struct, frozen=True, kw_only=True):
    """Who closes, with what.

    `on_step` hears each step, `on_progress` the customers done and all there are, `on_obstacle` what would refuse the
    close of a run that is only previewed. With `connect_again`, which opens
    another connection to the same database, large runs are made by several processes. What stands in `single` needs no
    second look when several periods are closed.
    """

    client: Client
    read_usage: ConnectedReader
    clock: Clock
    grace_s: int
    closed_by: str
    code_version: str
    on_step: Callable[[str], None] = lambda _: None
    on_progress: Callable[[int, int], None] = lambda _, __: None
    on_obstacle: Callable[[RunError], None] = lambda _: None
    connect_again: Callable[[], Client] | None = None
    single: set[Asked] = msgspec.field(default_factory=set)

    def close(
        self, label: str, *, customers: Collection[str] = (), kind: RunKind = RunKind.BILL, force: bool = False
    ) -> Closed:
        """Bill the period `label` for some customers, or for all that were not billed yet, and freeze the run.

        Runs that somebody began and did not finish are finished first, with their own cuts and catalogs.
        Raises PeriodNotOverError unless the period and the grace time are over for everybody to bill or `force` is
        given; RunError when there is no catalog or nobody to bill, when a meter was not filled from history, and when
        an event was accepted more than once; InvariantViolationError when lines come out in two
        ways; RequestError for a label or a customer that is none.
        """
        finished: Run | None = None
        while True:
            log = runs.listed(self.client)
            begun = next((one for one in log if not one.is_frozen), None)
            if begun is not None:
                done = self.finish(begun)
                finished = done if done.period == label else finished
                continue
            wanted = self._prepared(log, label, customers=customers, kind=kind, force=force)
            if wanted is None:
                held = finished or runs.closed(self.client, label)
                return Closed(run=held, changed=finished is not None)
            for obstacle in self._obstacles(wanted):
                raise obstacle
            erasure_store.refuse_while_erasing(self.client, "closing a period")
            held = runs.claim(self.client, wanted)
            if _is_claim_of(held, wanted):
                return Closed(run=self.finish(held), changed=True)

    def close_due(self, *, customers: Collection[str] = ()) -> list[Closed]:
        """Close every period that can be closed, in the order in which they ended, and then what no bill will carry.

        Corrections of customers who will not be billed again get runs of adjustments only.
        """
        done = [Closed(run=self.finish(begun), changed=True) for begun in runs.unfinished(self.client)]
        for kind in (RunKind.BILL, RunKind.ADJUSTMENTS):
            now = self.clock.now()
            if kind is RunKind.ADJUSTMENTS and customers:
                customers = not_billed_again(self.client, customers, now)
                if not customers:
                    break
            labels = due(self.client, kind, now=now, grace_s=self.grace_s, customers=customers)
            done += [self.close(label, customers=customers, kind=kind) for label in labels]
        return [one for one in done if one.changed]

    def prepared(
        self, label: str, *, customers: Collection[str] = (), kind: RunKind = RunKind.BILL, force: bool = False
    ) -> Run | None:
        """The run that would be claimed now; None when there is nothing left to bill. Writes nothing, raises as close.

        Raises RunError as long as any run is unfinished: the next one depends on its lines.
        """
        log = runs.listed(self.client)
        for begun in log:
            if not begun.is_frozen:
                raise RunError(
                    f"run {begun.id} was begun and is not frozen",
                    where="runs",
                    fix=f"Finish it with `metering close --period {begun.period}`",
                )
        return self._prepared(log, label, customers=customers, kind=kind, force=force)

    def _prepared(
        self, log: Sequence[Run], label: str, *, customers: Collection[str], kind: RunKind, force: bool
    ) -> Run | None:
        return prepare(
            self.client,
            log,
            label,
            kind=kind,
            customers=tuple(sorted(set(customers))),
            now=self.clock.now(),
            grace_s=self.grace_s,
            closed_by=self.closed_by,
            code_version=self.code_version,
            force=force,
            read_usage=self.read_usage,
        )

    def preview(
        self, label: str, *, customers: Collection[str] = (), kind: RunKind = RunKind.BILL, force: bool = False
    ) -> list[LineItem]:
        """The lines a close would freeze now, those of a run that was begun first. Writes nothing; raises as `close`.

        Raises RunError as long as a run of another period is unfinished.
        """
        for begun in runs.of_period(self.client, label):
            if not begun.is_frozen:
                return self._lines(begun)
        wanted = self.prepared(label, customers=customers, kind=kind, force=force)
        if wanted is None:
            return []
        for obstacle in self._obstacles(wanted):
            self.on_obstacle(obstacle)
        return self._lines(wanted)

    def _obstacles(self, wanted: Run) -> list[RunError]:
        return obstacles(self.client, wanted, Catalogs(self.client).load(wanted.catalog_version), self.single)

    def finish(self, run: Run) -> Run:
        """Make the lines of a claimed run and freeze it; nothing for one that is frozen."""
        self.on_step("claimed")
        if run.is_frozen:
            return run
        # After the claim: an erasure looks for claimed runs after its own, so that one of the two sees the other.
        erasure_store.refuse_while_erasing(self.client, "closing a period")
        assembly = Assembly(self.client, run, Catalogs(self.client))
        digest = hashlib.sha256()
        count = done = 0
        with without_collector():
            for rows in self._rows(assembly):
                self.on_step("lines_read")
                write_rows(self.client, rows, count)
                for row in rows:
                    digest.update(row.document)
                    digest.update(b"\n")
                count += len(rows)
                self.on_step("lines_written")
                done = min(done + CUSTOMERS_AT_A_TIME, len(assembly.customers))
                self.on_progress(done, len(assembly.customers))
        stored = count_lines(self.client, run)
        if stored != count:
            raise InvariantViolationError(
                f"run {run.id} has {count} lines but {stored} are stored",
                where="line_items",
                fix="Lines of another version of the code stand there: compare their documents before closing again",
            )
        self.on_step("freezing")
        frozen = msgspec.structs.replace(
            run, state=RunState.CLOSED, at=self.clock.now(), lines_count=count, lines_digest=digest.hexdigest()
        )
        held = runs.freeze(self.client, frozen)
        self._note(held)
        self.on_step("frozen")
        return held

    def _note(self, run: Run) -> None:
        """Write into the audit log that the run is frozen; two who froze it at once make one entry."""
        detail = {
            "kind": run.kind.value,
            "customers": len(run.customers) or "all",
            "forced": run.forced,
            "claimed_by": run.claimed_by,
            "catalog_version": run.catalog_version,
            "lines": run.lines_count,
            "lines_digest": run.lines_digest,
        }
        audit_log.record(self.client, Action.RUN_CLOSED, run.id, detail, clock=self.clock, by=self.closed_by, at=run.at)

    def _rows(self, assembly: Assembly) -> Iterator[list[Row]]:
        """The rows of each part, by several processes where it is worth it and connections of their own can be had."""
        workers = 1 if self.connect_again is None else workers_for(assembly.parts_count)

        def make(number: int) -> list[Row]:
            return rows_of(assembly.run, assembly.answered(number, self.read_usage))

        if workers == 1:
            return map(make, range(assembly.parts_count))
        assembly.prime()
        return in_order(assembly.parts_count, workers, partial(self._begin, assembly), make)

    def _begin(self, assembly: Assembly) -> Callable[[int], list[Row]]:
        """What a process makes parts with, on a connection of its own."""
        if self.connect_again is None:
            raise InvariantViolationError("processes need connections of their own", where=f"run {assembly.run.id}")
        client = self.connect_again()
        assembly.reconnect(client)
        reader = self.read_usage.on(client)
        return lambda number: rows_of(assembly.run, assembly.answered(number, reader))

    def _lines(self, run: Run) -> list[LineItem]:
        return list(recomputed(self.client, run, self.read_usage))


def recomputed(client: Client, run: Run, read_usage: UsageReader) -> Iterator[LineItem]:
    """The lines of a run made anew, whatever was billed, logged and applied since: the same bytes as those frozen."""
    yield from assemble(Assembly(client, run, Catalogs(client)), read_usage)


def close_period(
    client: Client,
    label: str,
    *,
    read_usage: ConnectedReader,
    clock: Clock,
    grace_s: int,
    closed_by: str,
    code_version: str,
    customers: Collection[str] = (),
    kind: RunKind = RunKind.BILL,
    force: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> Closed:
    """Bill the period `label` and freeze it, as `Closer.close` does."""
    closer = Closer(
        client=client,
        read_usage=read_usage,
        clock=clock,
        grace_s=grace_s,
        closed_by=closed_by,
        code_version=code_version,
        on_step=on_step,
    )
    return closer.close(label, customers=customers, kind=kind, force=force)


def _is_claim_of(held: Run, wanted: Run) -> bool:
    """Whether the run that holds the place is the one we wanted, perhaps further along already."""
    return (
        msgspec.structs.replace(
            held, state=wanted.state, at=wanted.at, lines_count=wanted.lines_count, lines_digest=wanted.lines_digest
        )
        == wanted
    )
