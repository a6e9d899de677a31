"""Erasing a customer: rows under pseudonyms take the place of the rows that name somebody.

What is counted stays: every state, every line and every digest. Each step writes absolute rows or takes out what is not
needed any more, and finds by itself what is left to do, so that an erasure that died is finished by the next one.
Copies are written first and are nobody's; then the catalog makes them the customer's, at one stroke for whoever reads
with one catalog; then the rows that name somebody go. No worker folds meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import structlog
from clickhouse_connect.driver.client import Client

from aggregators import erase_copies
from aggregators.erase_rows import (
    CHUNK_SUBJECTS,
    SUBJECT_TABLES,
    count_letters,
    count_rows,
    delete_rows,
    left_behind,
    redact_letters,
)
from metering import audit_log, catalog_store, erasure_store
from metering.audit_log import Action
from metering.clock import Clock
from metering.cluster_client import refuse_on_cluster
from metering.erasure_store import Erasure, ErasureState
from schemas.catalog import document
from schemas.erasure import Erasures, Receipts, pseudonym
from schemas.errors import InvariantViolationError, RequestError, RunError, UnavailableError

log = structlog.get_logger(__name__)

STEPS: Final = (
    "claimed",
    "workers_gone",
    "events",
    "corrections",
    "members",
    "rollups",
    "catalog_applied",
    "catalogs",
    "readers_gone",
    "dead_letters",
    "deleted",
    "erased",
)
"""What `reached` hears, in this order."""

APPLIES_MAX: Final = 5


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What names the customer: subjects, and rows of each table that stand under them."""

    subjects: int
    rows: dict[str, int]
    dead_letters: int
    open_letters: int
    catalog_versions: int

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to erase."""
        return not (self.subjects or self.dead_letters or self.catalog_versions or any(self.rows.values()))


class Erasing(msgspec.Struct, frozen=True, kw_only=True):
    """Who erases, with what.

    `workers` says how many are members of the group, `wait` sleeps that many seconds and says whether to go on, and
    `reached` hears each step. `settle_s` is how long whoever read the catalog before may still be reading.
    """

    connect: Callable[[], Client]
    clock: Clock
    by: str
    workers: Callable[[], int]
    sleep: Callable[[float], None]
    workers_wait_s: float
    settle_s: float
    reached: Callable[[str], None] = lambda _step: None

    def look(self, customer: str) -> Found:
        """What there is to erase; changes nothing. Raises RequestError for a customer of no catalog."""
        client = self.connect()
        erasures = _erasures_of(client, customer)
        return _found(client, erasures, erase_copies.subjects_found(client, erasures))

    def erase(self, customer: str) -> Found:
        """Erase a customer, or finish what another began; returns what was found when it began.

        Raises RequestError for a customer of no catalog, on a cluster, and while another one is being erased; RunError
        while a period is being closed; UnavailableError when workers do not make way.
        """
        client = self.connect()
        refuse_on_cluster(client, "an erasure")
        begun = erasure_store.unfinished(client)
        if begun is None:
            erasures = _erasures_of(client, customer)
            found = _found(client, erasures, erase_copies.subjects_found(client, erasures))
            if found.is_nothing:
                return found
            erasure_store.make_key(client, self.clock)
            subjects = _erasures_of(client, customer).subjects
        else:
            subjects = frozenset(begun.subjects)
        held = erasure_store.claim(client, customer, sorted(subjects), clock=self.clock, by=self.by)
        self.reached("claimed")
        if held.state is ErasureState.CLAIMED:
            self._refuse_unfinished_runs(client, held)
            self._enter(client, held, ErasureState.ERASING)
        self._wait_for_workers()
        self.reached("workers_gone")
        done = self._rewrite(client, held)
        self._enter(client, held, ErasureState.ERASED)
        self._note(client, held, done)
        self.reached("erased")
        return done

    def _rewrite(self, client: Client, held: Erasure) -> Found:
        erasures = Erasures(key=erasure_store.key(client), subjects=frozenset(held.subjects))
        names = erase_copies.subjects_found(client, erasures)
        found = _found(client, erasures, names)
        newest = catalog_store.latest(client)
        receipts = Receipts(erasures.key, newest.meter_versions if newest else ())
        kept = newest.meter_versions if newest else ()
        for chunk in _chunks(names):
            pairs = {one: pseudonym(erasures.key, "subject", one) for one in chunk}
            erase_copies.copy_events(client, self.connect, chunk, receipts)
            self.reached("events")
            erase_copies.copy_corrections(client, self.connect, chunk, receipts)
            self.reached("corrections")
            erase_copies.copy_members(client, self.connect, chunk, receipts, kept)
            self.reached("members")
            erase_copies.copy_rollups(client, pairs)
            self.reached("rollups")
            for what, missing in left_behind(client, pairs).items():
                if missing:
                    raise InvariantViolationError(
                        f"{missing} rows of {what} have no copy under a pseudonym; nothing was deleted",
                        where=what,
                        fix=f"Run `metering erase {held.customer}` again; if it persists, `metering audit`",
                    )
        self._rewrite_catalogs(client, erasures, held)
        # Whoever took the catalog up before must have asked its last question of the rows that go now.
        if names:
            self.sleep(self.settle_s)
        self.reached("readers_gone")
        redact_letters(client, names, clock=self.clock, by=self.by)
        self.reached("dead_letters")
        for chunk in _chunks(names):
            delete_rows(client, chunk)
        self.reached("deleted")
        return found

    def _rewrite_catalogs(self, client: Client, erasures: Erasures, held: Erasure) -> None:
        """The newest first, as one more version, which is how everybody hears of it; then those that runs are of."""
        for _ in range(APPLIES_MAX):
            newest = catalog_store.latest(client)
            if newest is None or erasures.without_names(newest.catalog) is newest.catalog:
                break
            try:
                after = catalog_store.apply(
                    client, newest.catalog, clock=self.clock, applied_by=self.by, is_checked=True
                )
            except RequestError as error:  # somebody else applied at the same moment: theirs is the newest now
                log.warning("applying again", error=str(error))
                continue
            detail = {"digest": after.digest, "erasure": held.number}
            audit_log.record(client, Action.CATALOG_APPLIED, str(after.version), detail, clock=self.clock, by=self.by)
        self.reached("catalog_applied")
        for one in catalog_store.history(client):
            stored = catalog_store.load(client, one.version)
            renamed = erasures.without_names(stored.catalog)
            if renamed is not stored.catalog:
                text = document(renamed, stored.meter_versions).decode()
                erase_copies.rewrite_catalog(client, stored.version, text)
        self.reached("catalogs")

    def _refuse_unfinished_runs(self, client: Client, held: Erasure) -> None:
        """A close that is under way reads rows; it was claimed before it could see this erasure."""
        rows = client.query(
            "SELECT run, any(period) FROM runs GROUP BY run HAVING countIf(state != 'closing') = 0 ORDER BY run"
        ).result_rows
        if rows:
            self._enter(client, held, ErasureState.ABANDONED)
            raise RunError(
                f"run {rows[0][0]} was begun and is not frozen",
                where="runs",
                fix=f"Finish it with `metering close --period {rows[0][1]}`, then erase",
            )

    def _wait_for_workers(self) -> None:
        """Workers see that somebody is being erased, flush and end; the next ones wait until it is done."""
        until_s = self.clock.monotonic_s() + self.workers_wait_s
        while count := self.workers():
            if self.clock.monotonic_s() > until_s:
                raise UnavailableError(
                    f"{count} workers are still at work after {self.workers_wait_s:g} s",
                    where="metering erase",
                    fix="Stop them, if they are of an older version, and run it again: it goes on where it stopped",
                )
            self.sleep(0.2)

    def _enter(self, client: Client, held: Erasure, state: ErasureState) -> None:
        erasure_store.enter(client, held, state, clock=self.clock, by=self.by)

    def _note(self, client: Client, held: Erasure, done: Found) -> None:
        detail = {"erasure": held.number, "pseudonyms": len(held.subjects), **msgspec.to_builtins(done)}
        audit_log.record(client, Action.CUSTOMER_ERASED, held.customer, detail, clock=self.clock, by=self.by)


def _erasures_of(client: Client, customer: str) -> Erasures:
    """The erasure of this customer alone, as it would be: every subject that a catalog has ever given it."""
    subjects: set[str] = set()
    is_known = False
    newest = catalog_store.latest(client)
    for one in catalog_store.history(client):
        found = catalog_store.load(client, one.version).customers.get(customer)
        is_known = is_known or found is not None
        subjects.update(found.subjects if found else ())
    owners = {one: newest.customer_of(one) if newest else None for one in subjects}
    # A subject that has become somebody else's is theirs now.
    subjects = {one for one, owner in owners.items() if owner is None or owner.id == customer}
    if not is_known:
        raise RequestError(
            f"no catalog has ever had a customer {customer!r}", where="catalog", fix="Name it by its id in the catalog"
        )
    # Of a database in which nobody was erased yet the key is of no importance: nothing stands under a pseudonym.
    made = client.query("SELECT count() FROM erasure_keys").result_rows[0][0]
    key = erasure_store.key(client) if made else b""
    return Erasures(key=key, subjects=frozenset(pseudonym(key, "subject", one) for one in subjects))


def _found(client: Client, erasures: Erasures, names: Sequence[str]) -> Found:
    rows = dict.fromkeys(SUBJECT_TABLES, 0)
    for chunk in _chunks(names):
        for table in SUBJECT_TABLES:
            rows[table] += count_rows(client, table, chunk)
    letters, opened = count_letters(client, names)
    versions = sum(
        erasures.without_names(stored.catalog) is not stored.catalog
        for stored in (catalog_store.load(client, one.version) for one in catalog_store.history(client))
    )
    return Found(subjects=len(names), rows=rows, dead_letters=letters, open_letters=opened, catalog_versions=versions)


def _chunks(names: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), CHUNK_SUBJECTS):
        yield list(names[start : start + CHUNK_SUBJECTS])
