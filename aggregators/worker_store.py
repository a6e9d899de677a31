"""The worker's side of ClickHouse: every call is retried until it succeeds or the worker is told to stop.

A client belongs to one thread; each thread of the pipeline gets its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final, TypeVar

import pyarrow as pa
import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from aggregators import catalog_starts, correction_store, overflow_alert, store
from aggregators.catalog_starts import Start
from aggregators.decide import Decision
from aggregators.dedupe import Identity, KeyFilter, Standing
from aggregators.flush import DeadLetterSink, Flush, write_flush
from aggregators.group_limit import TABLE as OVERFLOWS
from aggregators.metrics import CLICKHOUSE_RETRIES
from aggregators.partition import known_days_filter
from aggregators.state import DayKey, State, StateKey
from aggregators.store import LedgerEnd
from metering import catalog_store, erasure_store, partition_pauses
from metering.clickhouse import connect, is_passing
from metering.clock import Clock
from metering.cluster_client import refuse_other_shape
from metering.config import Settings
from metering.partition_pauses import Pause
from schemas.catalog import AppliedCatalog
from schemas.erasure import Erasures
from schemas.errors import ClickHouseUnavailableError, ErasureUnderWayError, KafkaUnavailableError, LogLostError

log = structlog.get_logger(__name__)

_Result = TypeVar("_Result")

BACKOFF_S_FIRST: Final = 0.1
BACKOFF_S_MAX: Final = 5.0


CORRECTION_STEPS: Final = ("correction_events", "corrections")
"""The steps that come before a flush with corrections; fault tests kill the worker at each."""


class StoppedError(Exception):
    """The worker was told to stop while it waited; what it holds is left to the next life."""


class WorkerStore:
    """Reads and writes for one worker on one log epoch."""

    def __init__(
        self,
        settings: Settings,
        *,
        topic: str,
        epoch: str,
        dead_letters: DeadLetterSink,
        log_range: Callable[[], Mapping[int, tuple[int, int]]],
        clock: Clock,
        worker: str,
        code_version: str,
        reached: Callable[[str], None] = lambda _step: None,
        accept_log_loss: bool = False,
    ) -> None:
        """`log_range` says for each partition the first offset Kafka still holds and the next it will give."""
        self._settings = settings
        self._topic = topic
        self._epoch = epoch
        self._dead_letters = dead_letters
        self._log_range = log_range
        self._clock = clock
        self._worker = worker
        self._code_version = code_version
        self._reached = reached
        self._accept_log_loss = accept_log_loss
        self._local = threading.local()
        self._stopping = threading.Event()
        self.waiting_for = ""

    @property
    def stopping(self) -> threading.Event:
        """Set once the worker is to stop."""
        return self._stopping

    def stop(self) -> None:
        """Make every waiting call raise StoppedError."""
        self._stopping.set()

    def catalog(self, known: AppliedCatalog | None) -> AppliedCatalog | None:
        """The newest catalog; `known` itself while it is still the newest, None before the first."""

        def read(client: Client) -> AppliedCatalog | None:
            newest = catalog_store.latest_version(client)
            if known is not None and newest == known.version:
                return known
            return catalog_store.load(client, newest) if newest else None

        return self.read("catalog", read)

    def erasures(self) -> Erasures:
        """Whose records are stored without personal data. Raises ErasureUnderWayError while a customer is erased."""
        found = self.read("erasures", erasure_store.read)
        if found.unfinished:
            raise ErasureUnderWayError(found.unfinished)
        return found

    def identity_keys(self) -> list[int]:
        """Identity keys of all events within the horizon."""
        since = self._clock.now() - timedelta(days=self._settings.kafka_retention_days)
        return self.read("identities", lambda client: list(store.identity_keys(client, since)))

    def taken_keys(self) -> list[int]:
        """Identity keys of everything that corrections take out."""
        return self.read("corrections", lambda client: list(correction_store.taken_keys(client)))

    def known_days(self, partition: int) -> KeyFilter:
        """The days that have stored states on a partition."""
        return self.read("days", lambda client: known_days_filter(list(store.days(client, self._epoch, partition))))

    def ledger_ends(self, partitions: Sequence[int]) -> dict[int, LedgerEnd]:
        """Where to go on with each partition: after its ledger, or at the start of the log.

        Raises LogLostError when Kafka has dropped records that no ledger row covers.
        """
        stored = self.read("ledger", lambda client: store.ledger_ends(client, self._epoch))
        ranges = self._retry("log range", self._log_range)
        ends: dict[int, LedgerEnd] = {}
        for partition in partitions:
            first, following = ranges[partition]
            end = stored.get(partition, LedgerEnd(next_offset=first, starts={}))
            if not first <= end.next_offset <= following:
                end = self._lost(partition, end, first, following)
            ends[partition] = end
        return ends

    def claim_starts(self, wanted: Sequence[Start]) -> None:
        """Put on record where a catalog is taken up. Raises PartitionTakenError when another worker has."""
        at = self._clock.now()
        self.read(
            "starts", lambda client: catalog_starts.claim(client, self._epoch, wanted, at=at, worker=self._worker)
        )

    def last_pauses(self) -> dict[int, Pause]:
        """The last pause of each partition that ever had one, also where it is over."""
        found = self.read("pauses", lambda client: partition_pauses.last_pauses(client, self._epoch))
        return {one.partition: one for one in found}

    def rejected_offsets(self, partition: int, first: int, following: int) -> list[int]:
        """The offsets from `first` to before `following` that were rejected, in order."""
        return self.read(
            "rejections", lambda client: store.rejected_offsets(client, self._epoch, partition, first, following)
        )

    def pause(self, partition: int, offset: int, *, records: int, rejected: int) -> Pause:
        """Put on record that a partition is not read from `offset` on."""
        one = Pause(
            epoch=self._epoch,
            partition=partition,
            offset=offset,
            records=records,
            rejected=rejected,
            at=self._clock.now(),
            by=self._worker,
        )
        self.read("pause", lambda client: partition_pauses.write_pause(client, one))
        return one

    def standings(self, identities: Sequence[Identity]) -> dict[Identity, list[Standing]]:
        """Where identities stand in `events`."""
        return self.read("standings", lambda client: store.standings(client, identities))

    def states(
        self, partition: int, days: Sequence[DayKey], series: Mapping[tuple[str, int], int]
    ) -> dict[DayKey, dict[StateKey, State]]:
        """The stored states of days."""
        return self.read("states", lambda client: store.states(client, self._epoch, partition, days, series))

    def write_corrections(self, events: pa.Table, corrections: pa.Table) -> None:
        """Make the events of a batch and what they take out durable, ahead of the flush that follows.

        The counting that comes between reads them back. What a crash leaves is written again by the next life.
        """
        for step, table, rows in zip(CORRECTION_STEPS, ("events", "corrections"), (events, corrections), strict=True):
            self._insert(table, rows)
            self._reached(step)

    def write_overflows(self, rows: pa.Table) -> None:
        """Make known which values days keep, ahead of the flush that follows."""
        self._insert(OVERFLOWS, rows)

    def write(self, flush: Flush) -> None:
        """Make a flush durable, however long that takes. Raises StoppedError when told to stop before it is."""
        write_flush(
            flush,
            self._insert,
            _RetriedSink(self._dead_letters, self._retry),
            flushed_at=self._clock.now(),
            worker=self._worker,
            code_version=self._code_version,
            reached=self._reached,
        )

    def _insert(self, table: str, rows: pa.Table) -> None:
        self.read(table, lambda client: store.insert(client, table, rows))
        if table == OVERFLOWS:
            overflow_alert.tell(rows)

    def read(self, what: str, call: Callable[[Client], _Result]) -> _Result:
        """Ask ClickHouse, for as long as it takes; `what` is for the log."""
        return self._retry(what, lambda: call(self._client()))

    def _client(self) -> Client:
        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            client = connect(self._settings)
            refuse_other_shape(client, self._settings.clickhouse_cluster)
            self._local.client = client
        return client

    def _retry(self, what: str, call: Callable[[], _Result]) -> _Result:
        backoff_s = BACKOFF_S_FIRST
        while not self._stopping.is_set():
            try:
                result = call()
            except (ClickHouseError, ClickHouseUnavailableError, KafkaUnavailableError) as error:
                if isinstance(error, ClickHouseError) and not is_passing(error):
                    raise
                self.waiting_for = what
                CLICKHOUSE_RETRIES.labels(what).inc()
                log.warning("waiting for a service", what=what, error=str(error).splitlines()[0], retry_in_s=backoff_s)
                self._stopping.wait(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)
            else:
                self.waiting_for = ""
                return result
        raise StoppedError(what)

    def _lost(self, partition: int, end: LedgerEnd, first: int, following: int) -> LedgerEnd:
        where = f"{self._topic}, partition {partition}"
        if end.next_offset > following:
            raise LogLostError(
                f"the ledger ends at offset {end.next_offset - 1}, but the log at {following - 1}: records that were "
                "folded are gone from Kafka, and new ones would take their offsets",
                where=where,
                fix="Recreate the topic, which starts a new log epoch; what was folded stays",
            )
        if not self._accept_log_loss:
            raise LogLostError(
                f"Kafka holds records from offset {first} on, but the ledger ends at {end.next_offset - 1}: "
                f"{first - end.next_offset} records were dropped by retention before they were folded",
                where=where,
                fix="Restore them from the producers, or go on without them: `metering worker --accept-log-loss`",
            )
        log.error("going on without lost records", where=where, first=end.next_offset, last=first - 1)
        return end


class _RetriedSink:
    """A dead-letter sink whose sends are retried like everything else."""

    def __init__(self, sink: DeadLetterSink, retry: Callable[[str, Callable[[], None]], None]) -> None:
        self._sink = sink
        self._retry = retry

    def send(self, decision: Decision) -> None:
        self._retry("dead letters", lambda: self._sink.send(decision))
