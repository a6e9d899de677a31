"""What can be asked of usage, and what an answer is made of."""

from __future__ import annotations

import enum
from datetime import datetime
from decimal import Decimal

import msgspec


class Window(enum.Enum):
    """Length of the answer's windows. Days and months are the asked zone's; `total` is the whole range."""

    QUARTER_HOUR = "15m"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


class By(enum.Enum):
    """What each row stands for."""

    SUBJECT = "subject"
    CUSTOMER = "customer"
    EVERYTHING = "everything"


class Position(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """The last offset, inclusive, of one partition of one log epoch."""

    epoch: str
    partition: int
    offset: int


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A prefix of the log: for every epoch and partition the last offset that counts.

    Partitions that are not named count nothing.
    """

    positions: tuple[Position, ...]


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A question: quantities of one meter over [start, end), both UTC with any microsecond.

    `group_by` names dimensions of the meter. `subjects` / `customers` None means all. With `cut`, the answer is as of
    that prefix of the log: events beyond it do not count, whenever the question is asked.
    """

    meter: str
    start: datetime
    end: datetime
    window: Window = Window.TOTAL
    timezone: str = "UTC"
    by: By = By.CUSTOMER
    subjects: tuple[str, ...] | None = None
    customers: tuple[str, ...] | None = None
    group_by: tuple[str, ...] = ()
    cut: Cut | None = None


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an answer. `who` is a subject or customer id, '' for everything; windows are half-open, UTC.

    `digest` is the sum modulo 2^128 of the digests of the `events_count` events counted.
    `integral` is that of a `time_weighted` meter, in unit-seconds and exact; its quantity is the integral in the
    meter's time unit. Such a row is there without events too, while the balance is not zero. None for other meters.
    """

    who: str
    window_start: datetime
    window_end: datetime
    dimensions: dict[str, str]
    quantity: Decimal
    events_count: int
    digest: int
    integral: Decimal | None = None
