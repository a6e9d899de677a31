"""Rollup states: what is kept of the events of one key, how two states become one, and the quantity they give.

Pure. A state says the same whatever order its events were folded in; `merge` is commutative and associative.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from schemas.meter import Aggregation, TimeUnit
from schemas.quantity import DECIMALS_MAX, EXACT, ZERO, add

DIGEST_MODULUS: Final = 1 << 128
"""Digests are added modulo this, as ClickHouse's UInt128 does."""

AVERAGE_DECIMALS: Final = DECIMALS_MAX
"""An average cannot always be exact; it is rounded to this many decimals."""

QUOTIENT_DECIMALS: Final = DECIMALS_MAX
"""Nor can an integral divided by a unit of time."""

MOMENT_DECIMALS: Final = DECIMALS_MAX + 6
"""Decimals of a value times a time in seconds, which has microseconds."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class LogMoment(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What decides which event is the latest: its time (UTC), then where it stands in the log.

    Events of equal time are told apart by epoch (text order), then partition, then offset, so that the answer
    depends on the log alone and not on who read it first.
    """

    time: datetime
    epoch: str
    partition: int
    offset: int


class RollupState(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of the events of a key. No events: zeros, and None for everything that needs an event.

    `value_min`, `value_max`, `value_latest` and `latest_at` are None where the meter takes no value (`count`,
    `unique_count`). `value_moment` is the sum of value times seconds since 1970, 0 unless the meter is
    `time_weighted`. `digest` is the sum of the events' digests modulo 2^128. `position` is the last offset folded
    in; it says something only among states of one epoch and partition, and is -1 when nothing was folded.
    """

    events_count: int = 0
    value_sum: Decimal = ZERO
    value_min: Decimal | None = None
    value_max: Decimal | None = None
    value_latest: Decimal | None = None
    latest_at: LogMoment | None = None
    digest: int = 0
    position: int = -1
    value_moment: Decimal = ZERO


EMPTY: Final = RollupState()
"""The state of no events: merging it changes nothing."""


def merge(left: RollupState, right: RollupState) -> RollupState:
    """The state of both sets of events together, exactly. The two must have no event in common."""
    later = left if right.latest_at is None or (left.latest_at and left.latest_at >= right.latest_at) else right
    return RollupState(
        events_count=left.events_count + right.events_count,
        value_sum=add(left.value_sum, right.value_sum),
        value_min=_smaller(left.value_min, right.value_min),
        value_max=_greater(left.value_max, right.value_max),
        value_latest=later.value_latest,
        latest_at=later.latest_at,
        digest=(left.digest + right.digest) % DIGEST_MODULUS,
        position=max(left.position, right.position),
        value_moment=add(left.value_moment, right.value_moment),
    )


def quantity(aggregation: Aggregation, state: RollupState, members_count: int) -> Decimal | None:
    """The number a meter shows for a state; `members_count` is the number of distinct members in the asked range.

    None where there is no number without events: `min`, `max`, `avg`, `latest`. Counts and sums of nothing are 0.
    Of `time_weighted` it takes more than one state, see `integral`; here it is None.
    """
    found: dict[Aggregation, Decimal | None] = {
        Aggregation.COUNT: Decimal(state.events_count),
        Aggregation.SUM: state.value_sum,
        Aggregation.MIN: state.value_min,
        Aggregation.MAX: state.value_max,
        Aggregation.AVG: average(state.value_sum, state.events_count),
        Aggregation.LATEST: state.value_latest,
        Aggregation.UNIQUE_COUNT: Decimal(members_count),
        Aggregation.TIME_WEIGHTED: None,
    }
    return found[aggregation]


def integral(balance: Decimal, state: RollupState, start: datetime, end: datetime) -> Decimal:
    """Unit-seconds of a balance over [start, end), UTC: `balance` at the start, `state` of the changes in between.

    Exact: values have at most 12 decimals and times 6. Sums of parts of a range are that of the range.
    """
    changes = EXACT.subtract(EXACT.multiply(state.value_sum, _seconds(end)), state.value_moment)
    return add(EXACT.multiply(balance, EXACT.subtract(_seconds(end), _seconds(start))), changes)


def moment(value: Decimal, time: datetime) -> Decimal:
    """What one change adds to `value_moment`."""
    return EXACT.multiply(value, _seconds(time))


def time_weighted(unit_seconds: Decimal, unit: TimeUnit) -> Decimal:
    """The quantity that an integral stands for; rounded half even to QUOTIENT_DECIMALS where it does not end before.

    Computed in integers, for the same reason as an average. The views say the same in SQL.
    """
    divisor = unit.seconds * 10 ** (MOMENT_DECIMALS - QUOTIENT_DECIMALS)
    whole, rest = divmod(int(EXACT.scaleb(unit_seconds, MOMENT_DECIMALS)), divisor)
    if 2 * rest > divisor or (2 * rest == divisor and whole % 2):
        whole += 1
    return EXACT.scaleb(Decimal(whole), -QUOTIENT_DECIMALS)


def average(total: Decimal, count: int) -> Decimal | None:
    """`total / count` to AVERAGE_DECIMALS decimals, half away from zero, as amounts are rounded; None for a count of 0.

    Computed in integers, so that neither a context nor a float has a say. The view `usage_15m` and its siblings
    say the same in SQL.
    """
    if count == 0:
        return None
    scaled = int(EXACT.scaleb(total.copy_abs(), AVERAGE_DECIMALS))
    rounded = (2 * scaled + count) // (2 * count)
    return EXACT.scaleb(Decimal(-rounded if total < 0 else rounded), -AVERAGE_DECIMALS)


def _seconds(time: datetime) -> Decimal:
    """Seconds since 1970, with microseconds, exactly."""
    return EXACT.scaleb(Decimal((time - _EPOCH) // timedelta(microseconds=1)), -6)


def _smaller(left: Decimal | None, right: Decimal | None) -> Decimal | None:
    if left is None or right is None:
        return right if left is None else left
    return min(left, right)


def _greater(left: Decimal | None, right: Decimal | None) -> Decimal | None:
    if left is None or right is None:
        return right if left is None else left
    return max(left, right)
