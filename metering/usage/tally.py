"""Counts events, one at a time, into the groups of an answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import repeat

import msgspec

from metering.usage.question import Question, changes_balance
from metering.usage.windows import to_us
from schemas.admission import Admission
from schemas.errors import EventRejectedError, InvariantViolationError
from schemas.group_overflow import NO_OVERFLOWS, Overflows
from schemas.meter import WINDOW_S, Aggregation, Measurement, MeterVersion
from schemas.quantity import ZERO, add
from schemas.rollup import DIGEST_MODULUS, LogMoment, RollupState, moment, quantity
from schemas.usage_event import EventColumns, UsageEvent, decode_event
from schemas.usage_query import UsageRow

_ONE = Decimal(1)
_UNVALUED = frozenset({Aggregation.COUNT, Aggregation.UNIQUE_COUNT})


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """What one row of an answer stands for. `asked` are the values of the question's dimensions, in its order."""

    who: str
    window: int
    asked: tuple[str, ...]


class LoggedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it stands in the table `events`: `raw` is the record, `who` the one it counts for."""

    who: str
    epoch: str
    partition: int
    offset: int
    digest: int
    raw: bytes


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One event as one meter version sees it; `window` is the one of the question's plan that it is in."""

    event: UsageEvent
    version: MeterVersion
    measurement: Measurement
    window: int

    @property
    def window_s(self) -> int:
        """Start of the rollup window, in seconds since 1970."""
        second = to_us(self.event.time) // 1_000_000
        return second - second % WINDOW_S


class Tally:
    """The running state of one group, and its members where the meter counts them."""

    __slots__ = (
        "_count",
        "_digest",
        "_first_moment",
        "_greatest",
        "_latest",
        "_latest_at",
        "_smallest",
        "_total",
        "members",
    )

    def __init__(self) -> None:
        self._count = 0
        self._digest = 0
        self._total = ZERO
        self._smallest: Decimal | None = None
        self._greatest: Decimal | None = None
        self._latest: Decimal | None = None
        self._latest_at: LogMoment | None = None
        self._first_moment = ZERO
        self.members: set[str] = set()

    def add(self, logged: LoggedEvent, measured: Measured) -> None:
        self._count += 1
        self._digest = (self._digest + logged.digest) % DIGEST_MODULUS
        aggregation = measured.version.meter.aggregation
        if aggregation is Aggregation.UNIQUE_COUNT:
            self.members.add(measured.measurement.member)
        if aggregation in _UNVALUED:
            return
        value = measured.measurement.value
        self._total = add(self._total, value)
        self._smallest = value if self._smallest is None or value < self._smallest else self._smallest
        self._greatest = value if self._greatest is None or value > self._greatest else self._greatest
        if aggregation is Aggregation.TIME_WEIGHTED:
            self._first_moment = add(self._first_moment, moment(value, measured.event.time))
        at = LogMoment(time=measured.event.time, epoch=logged.epoch, partition=logged.partition, offset=logged.offset)
        if self._latest_at is None or at > self._latest_at:
            self._latest, self._latest_at = value, at

    def state(self) -> RollupState:
        return RollupState(
            events_count=self._count,
            value_sum=self._total,
            value_min=self._smallest,
            value_max=self._greatest,
            value_latest=self._latest,
            latest_at=self._latest_at,
            digest=self._digest,
            value_moment=self._first_moment,
        )


class Measurer:
    """Says what the asked meter sees of a stored event; built once a question."""

    def __init__(self, question: Question, overflows: Overflows = NO_OVERFLOWS) -> None:
        """`overflows` say which values are counted under `other`; whoever measures needs those of the question."""
        self._overflows = overflows
        versions = [span.version for span in question.spans]
        self._question = question
        self._admission = Admission(versions, [one.meter.event_type for one in versions])
        self._picks = {
            one.version: tuple(
                sorted(one.meter.group_by).index(name) if name in one.meter.group_by else None
                for name in question.query.group_by
            )
            for one in versions
        }

    def measure(self, logged: LoggedEvent) -> Measured | None:
        """None when the event does not count for the meter.

        An event accepted before the meter was known may hold a value that the meter cannot read; the live worker
        would have rejected it, so it does not count.
        """
        event = decode_event(logged.raw)
        try:
            found = self._admission.measurements(event)
        except EventRejectedError:
            return None
        if not found:
            return None
        [(version, measurement)] = found
        window = self._question.plan.index_at(to_us(event.time))
        if self._question.is_opening(window) and not changes_balance(version.meter):
            return None
        place = (logged.epoch, logged.partition, logged.offset)
        dimensions = self._overflows.dimensions(version, event, place, measurement.dimensions)
        if dimensions is not measurement.dimensions:
            measurement = msgspec.structs.replace(measurement, dimensions=dimensions)
        return Measured(event=event, version=version, measurement=measurement, window=window)

    def values(
        self, events: EventColumns, places: Sequence[tuple[str, int, int]]
    ) -> dict[int, tuple[tuple[str, ...], Decimal]]:
        """(asked dimensions, value) of each event that counts, by its row; the value is 1 where the meter takes none.

        `places` are (epoch, partition, offset), a row each.
        The same as `measure` of each, for questions without an opening window.
        """
        found: dict[int, tuple[tuple[str, ...], Decimal]] = {}
        for seen in self._admission.measure(events, range(len(events.ids))).seen:
            picks = self._picks[seen.version.version]
            values = seen.values or repeat(_ONE)
            for row, said, value in zip(seen.rows, seen.dimensions, values, strict=False):
                dimensions = said
                if self._overflows:
                    dimensions = self._overflows.dimensions(seen.version, events.at(row), places[row], said)
                found[row] = tuple("" if at is None else dimensions[at] for at in picks), value
        return found

    def group(self, logged: LoggedEvent, measured: Measured) -> Group:
        """The row the event belongs to. A dimension that its meter version does not have reads as ''."""
        dimensions, picks = measured.measurement.dimensions, self._picks[measured.version.version]
        return Group(
            who=logged.who,
            window=measured.window,
            asked=tuple("" if at is None else dimensions[at] for at in picks),
        )


def row_of(question: Question, group: Group, state: RollupState, members_count: int) -> UsageRow:
    """The line of the answer for a group that has events; not for one of a `time_weighted` meter."""
    start, end = question.plan.bounds(group.window)
    number = quantity(question.aggregation_of(group.window), state, members_count)
    if number is None:
        raise InvariantViolationError(
            f"{state.events_count} events of meter {question.query.meter!r} have no value", where=start.isoformat()
        )
    return UsageRow(
        who=group.who,
        window_start=start,
        window_end=end,
        dimensions=dict(zip(question.query.group_by, group.asked, strict=True)),
        quantity=number,
        events_count=state.events_count,
        digest=state.digest,
    )
