"""The worker's own audit: a thread that looks, now and then, at what its partitions have got since its last look.

Ledger and stored events of the new offsets, and a few subjects' days counted again. What is about the whole of the
tables, such as identities accepted twice, is left to `metering audit`.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from aggregators import store
from aggregators.audit import Difference, LedgerRow, accounts, holes, ledger_rows
from aggregators.audit_sample import check_sample
from aggregators.metrics import AUDIT_DIFFERENCES, AUDITS
from metering import catalog_store
from metering.clickhouse import connect
from metering.config import Settings
from schemas.catalog import AppliedCatalog
from schemas.errors import MeteringError

log = structlog.get_logger(__name__)

CHECKS: Final = ("ledger", "accounting", "rollups")
DAYS: Final = 5
"""How many subjects' days a look counts again."""
OFFSETS_MAX: Final = 5_000_000
"""The first look at a partition goes back this far, so that a start costs the same however long the log is."""
CONFIRM_S: Final = 5.0
"""A difference counts when it is still there after this long: meanwhile corrections may have come between two reads."""


class AuditWatch:
    """Looks every `audit_interval_s` at the partitions that are held just then; never when that is 0.

    `differences` is what the last look found, by check. Where anything differs the next look is at the same place, so
    that an alarm stays until it is mended.
    """

    def __init__(
        self, settings: Settings, *, epoch: str, partitions: Callable[[], Sequence[int]], stopping: threading.Event
    ) -> None:
        self._settings = settings
        self._epoch = epoch
        self._partitions = partitions
        self._stopping = stopping
        self._looked: dict[int, int] = {}
        self._seed = secrets.randbelow(1 << 32)
        self.differences: dict[str, int] | None = None

    def start(self) -> None:
        """Begin to look, on a thread of its own; it ends once the worker is told to stop."""
        if self._settings.audit_interval_s:
            threading.Thread(target=self._run, name="audit", daemon=True).start()

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.audit_interval_s):
            try:
                self._look()
            except (ClickHouseError, MeteringError) as error:
                AUDITS.labels("failed").inc()
                log.warning("cannot audit", error=str(error).splitlines()[0])
            except Exception:
                # An audit that cannot be done must not end a worker that does its work; the metric says it is not done.
                AUDITS.labels("failed").inc()
                log.exception("the audit failed")

    def _look(self) -> None:
        partitions = self._partitions()
        self._looked = {number: at for number, at in self._looked.items() if number in partitions}
        client = connect(self._settings)
        try:
            found, ends = self._found(client, partitions)
            if found and not self._stopping.wait(CONFIRM_S):
                found, ends = self._found(client, partitions)
        finally:
            client.close()
        if self._stopping.is_set():
            return
        self._tell(found)
        if not found:
            self._looked = dict(ends)
            self._seed = secrets.randbelow(1 << 32)

    def _found(self, client: Client, partitions: Sequence[int]) -> tuple[list[Difference], Mapping[int, int]]:
        return look(
            client, catalog_store.latest(client), self._epoch, partitions, self._looked, days=DAYS, seed=self._seed
        )

    def _tell(self, found: Sequence[Difference]) -> None:
        counts = Counter(one.check for one in found)
        self.differences = {check: counts[check] for check in CHECKS}
        for check, count in self.differences.items():
            AUDIT_DIFFERENCES.labels(check).set(count)
        AUDITS.labels("different" if found else "clean").inc()
        for one in found:
            log.error(
                "audit: what is stored does not agree",
                check=one.check,
                where=one.where,
                what=one.what,
                fix="See `metering audit` for all of it; `metering repair` mends what the events can mend",
            )


def look(
    client: Client,
    catalog: AppliedCatalog | None,
    epoch: str,
    partitions: Sequence[int],
    looked: Mapping[int, int],
    *,
    days: int,
    seed: int,
) -> tuple[list[Difference], dict[int, int]]:
    """(what differs, the offset that follows what was looked at, by partition).

    `looked` says the same of the look before. The ledger's ends are read first; what comes beyond is for the next look.
    """
    all_ends = store.ledger_ends(client, epoch)
    ends = {number: all_ends[number] for number in partitions if number in all_ends}
    found: list[Difference] = []
    for number, end in ends.items():
        since = looked.get(number, max(0, end.next_offset - OFFSETS_MAX))
        rows = [row for row in ledger_rows(client, epoch, number, since) if row.last < end.next_offset]
        where = f"epoch {epoch}, partition {number}"
        found += _hole_before(where, rows, looked.get(number))
        found += holes(where, rows)
        if rows:
            found += accounts(client, epoch, number, rows)
    if catalog is not None and ends:
        _, wrong = check_sample(client, catalog, {epoch: ends}, days=days, seed=seed)
        found += [Difference(check="rollups", where=where, what=what, meter=meter) for meter, where, what in wrong]
    return found, {number: end.next_offset for number, end in ends.items()}


def _hole_before(where: str, rows: Sequence[LedgerRow], looked: int | None) -> Iterator[Difference]:
    if rows and looked is not None and rows[0].first > looked:
        what = f"offsets {looked} to {rows[0].first - 1} are in no ledger row"
        yield Difference(check="ledger", where=where, what=what)
