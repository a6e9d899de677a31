"""A Faust transport that hands over one RecordBatch for each fetched partition instead of one record at a time.

What Faust keeps about acknowledged messages is not used: the ledger in ClickHouse says where a partition stands, and
the worker seeks there on every assignment. Kafka's committed offset is written after the ledger, for lag dashboards.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, ClassVar, cast

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer import fetcher
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers.aiokafka import Consumer as FaustConsumer
from faust.transport.drivers.aiokafka import Transport as FaustTransport
from faust.transport.drivers.aiokafka import ensure_aiokafka_TP
from faust.types import TP, Message
from faust.types.tuples import ConsumerMessage
from typing_extensions import override

from aggregators.reading import Follows, Reading
from aggregators.record_batch import RecordBatch

log = structlog.get_logger(__name__)

TakeOver = Callable[[int, tuple[int, ...]], Awaitable[Mapping[int, int]]]
"""Told a new generation and its partitions; answers the offset to read each partition from."""


class _ParsedRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka has no types
    """Hands records over as they were parsed. A `ConsumerRecord` of each would cost as much as decoding its event."""

    def _consumer_record(self, tp: TP, record: Any) -> Any:  # noqa: ARG002 - overrides
        return record


fetcher.PartitionRecords = _ParsedRecords


class BatchConsumer(FaustConsumer):
    """Yields record batches, seeks to where the ledger ends, and keeps no acknowledgements."""

    topic: ClassVar[str]
    take_over: ClassVar[TakeOver]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.generation = 0
        self.reading = Reading({})
        self._held: frozenset[int] = frozenset()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109 - overrides
        """One message a fetched partition: its value is the RecordBatch, its offset the last of the batch.

        What a rebalance, or the wait for one, did to a fetch under way shows in its offsets alone: a fetch that does
        not go on where the last one ended is not handed over but asked for again.
        """
        records, _ = await self._wait_next_records(timeout)
        for tp, fetched in (records or {}).items():
            if self.should_stop or not self.flow_active:
                return  # a rebalance is under way: it ends by seeking to where the ledger ends
            if not fetched or tp.partition in self._held:
                continue
            start = self.reading.follow(tp.partition, fetched[0].offset, fetched[-1].offset)
            if start.kind is Follows.READ_AGAIN:
                log.info("reading again", partition=tp.partition, offset=start.offset, fetched=fetched[0].offset)
                await self._seek_again(tp, start.offset)
            elif start.kind is Follows.GOES_ON:
                yield tp, self._batch_message(tp, fetched, start.offset)

    async def hold(self, generation: int, held: frozenset[int], resumed: Mapping[int, int]) -> None:
        """Hand over nothing of the partitions `held`, and read those `resumed` on from the offsets given."""
        self._held = held
        for partition, offset in resumed.items():
            if generation != self.generation:
                return  # a rebalance has come between, which seeks by itself
            self.reading.restart(partition, offset)
            await self._seek_again(TP(self.topic, partition), offset)

    @override
    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, list[Any]]:
        wanted = {tp for tp in active_partitions or () if tp.partition not in self._held}
        # Asked for none the client would hand over all, and one that is never asked leaves its group after a while.
        return cast("dict[TP, list[Any]]", await super()._getmany(wanted or {TP(self.topic, -1)}, timeout))

    async def _seek_again(self, tp: TP, offset: int) -> None:
        try:
            await self.seek_wait({tp: offset})
        except IllegalStateError as error:
            log.info("partition is gone meanwhile", partition=tp.partition, error=repr(error))

    def _batch_message(self, tp: TP, fetched: list[Any], start: int) -> ConsumerMessage:
        batch = RecordBatch(
            topic=tp.topic,
            partition=tp.partition,
            generation=self.generation,
            start=start,
            offsets=[record.offset for record in fetched],
            timestamps_ms=[record.timestamp for record in fetched],
            keys=[record.key for record in fetched],
            values=[record.value for record in fetched],
        )
        last = fetched[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1000,
            last.timestamp_type,
            headers=[],
            key=None,
            value=cast("bytes", batch),  # Faust's types expect bytes; the schema hands it through untouched
            checksum=None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,  # Faust drops messages of another group generation
        )

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Have the assigned partitions taken over and seek to the offsets that the ledger says."""
        assigned = sorted(tp for tp in self.assignment() if tp.topic == self.topic)
        self.generation += 1
        offsets = await type(self).take_over(self.generation, tuple(tp.partition for tp in assigned))
        positions = {tp: offsets[tp.partition] for tp in assigned}
        self.reading = Reading(offsets)
        await self.seek_wait(positions)
        return positions

    async def commit_durable(self, offsets: Mapping[int, int]) -> None:
        """Tell Kafka, for lag dashboards only, the next offset of partitions that are still assigned."""
        assigned = self.assignment()
        committable = {
            tp: offset for partition, offset in offsets.items() if (tp := TP(self.topic, partition)) in assigned
        }
        if committable:
            await self._thread.call_thread(_commit, self._thread._ensure_consumer(), committable)  # noqa: SLF001 - Faust's seam

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """From here on batches of the old assignment are stale."""
        self.generation += 1
        await super().on_partitions_revoked(revoked)

    def track_message(self, message: Message) -> None:
        """Faust need not remember what it handed over."""

    def ack(self, message: Message) -> bool:
        """The end of the agent's body says nothing about durability; only `commit_durable` commits."""
        message.acked = True
        return True

    async def wait_empty(self) -> None:
        """Nothing waits for acknowledgements: what is not in the ledger is read again."""

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """A batch moves on by many offsets; that is no gap."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's stall warnings go by its own commits; the worker has a watchdog that goes by the ledger."""


async def _commit(consumer: AIOKafkaConsumer, offsets: Mapping[TP, int]) -> None:
    """Faust's own commit ends the worker on any refusal; here one means only that a dashboard is a moment behind."""
    try:
        await consumer.commit({ensure_aiokafka_TP(tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()})
    except KafkaError as error:
        log.info("committed offsets were not updated", error=repr(error))


def transport_class(topic: str, take_over: TakeOver) -> type[FaustTransport]:
    """A transport whose consumer reads `topic` in batches and asks `take_over` where to read from."""
    consumer = type("BoundBatchConsumer", (BatchConsumer,), {"topic": topic, "take_over": staticmethod(take_over)})
    return type("BatchTransport", (FaustTransport,), {"Consumer": consumer})
