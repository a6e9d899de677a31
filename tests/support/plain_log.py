"""A made-up log and what it must come to, counted in plain Python from plain fields.

The counting looks at the fields a record was made from, never at what the code under test makes of its bytes.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, Rounded
from hashlib import sha256

import msgspec

from schemas.catalog import Catalog
from schemas.meter import Aggregation, Filter, Meter

TOPIC = "usage.events.v1"
START = datetime(1970, 1, 1, tzinfo=UTC)
LOGGED_AT = datetime(2013, 3, 1, tzinfo=UTC)
EXACTLY = Context(prec=80, traps=[Inexact, Rounded])

CATALOG = Catalog(
    event_types=("idle",),
    meters=(
        Meter(name="calls", event_type="used", aggregation=Aggregation.COUNT, group_by={"region": "region"}),
        Meter(
            name="total",
            event_type="used",
            aggregation=Aggregation.SUM,
            value="n",
            group_by={"region": "region", "app": "deep.app"},
        ),
        Meter(name="lowest", event_type="used", aggregation=Aggregation.MIN, value="n"),
        Meter(name="highest", event_type="used", aggregation=Aggregation.MAX, value="n"),
        Meter(name="newest", event_type="used", aggregation=Aggregation.LATEST, value="n"),
        Meter(
            name="users",
            event_type="used",
            aggregation=Aggregation.UNIQUE_COUNT,
            value="user",
            filters=(Filter(field="region", none_of=("test",)),),
        ),
    ),
)
"""What the log is metered by; `meters_of` says the same in plain Python."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A record and the fields it was made from. `reason` is why it must be rejected; `raw` then is the bad record."""

    partition: int = 0
    offset: int = 0
    subject: str = "s"
    id: str = "1"
    source: str = "/app"
    type: str = "used"
    time: datetime = datetime(2013, 1, 1, tzinfo=UTC)
    n: str | None = "1"
    region: str = "eu"
    app: str | None = None
    user: str | None = "u1"
    reason: str = ""
    bad: bytes | None = b""
    logged_at_ms: int = int(LOGGED_AT.timestamp() * 1000)

    @property
    def raw(self) -> bytes | None:
        if self.reason:
            return self.bad
        data = {"n": "NUMBER", "region": self.region, "deep": {"app": self.app}, "user": self.user}
        text = json.dumps(
            {
                "specversion": "1.0",
                "id": self.id,
                "source": self.source,
                "type": self.type,
                "subject": self.subject,
                "time": self.time.isoformat(),
                "data": data,
            }
        )
        return text.replace('"NUMBER"', "null" if self.n is None else self.n).encode()

    @property
    def key(self) -> bytes:
        return self.subject.encode()

    @property
    def identity(self) -> tuple[str, str, str]:
        return self.subject, self.source, self.id

    @property
    def digest(self) -> int:
        return int.from_bytes(sha256(self.raw or b"").digest()[:16], "little")

    @property
    def window_s(self) -> int:
        return int((self.time - START) / timedelta(minutes=15)) * 900


Key = tuple[str, str, int, tuple[tuple[str, str], ...], int]
"""(meter, subject, window start in seconds since 1970, dimensions by name, partition)."""


class Row(msgspec.Struct, frozen=True):
    """What a rollup row must say, beside its key."""

    position: int
    events_count: int
    value_sum: Decimal
    value_min: Decimal | None
    value_max: Decimal | None
    value_latest: Decimal | None
    digest: int


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the tables must hold for a log."""

    accepted: dict[tuple[int, int], bytes]
    rejected: dict[tuple[int, int], str]
    duplicates: dict[int, int]
    rollups: dict[Key, Row]
    members: dict[tuple[Key, str], int]
    sizes: dict[int, int]


def meters_of(one: Made) -> list[tuple[str, tuple[tuple[str, str], ...], Decimal | None, str | None]]:
    """(meter, dimensions, value, member) of each meter of CATALOG that counts the event."""
    if one.type != "used":
        return []
    seen: list[tuple[str, tuple[tuple[str, str], ...], Decimal | None, str | None]] = [
        ("calls", (("region", one.region),), None, None)
    ]
    if one.n is not None:
        number = Decimal(one.n.strip('"'))
        seen.append(("total", (("app", one.app or ""), ("region", one.region)), number, None))
        seen += [(name, (), number, None) for name in ("lowest", "highest", "newest")]
    if one.user is not None and one.region != "test":
        seen.append(("users", (), None, one.user))
    return seen


def expected(log: Iterable[Made], *, values_max: int = 1_000) -> Expected:
    """Count a log: first come first counted, partition by partition, offset by offset.

    Of each dimension a subject's day tells the first `values_max` values apart, the others are `other`.
    """
    kept: dict[tuple[object, ...], list[str]] = defaultdict(list)

    def read(one: Made, meter: str, name: str, value: str) -> str:
        values = kept[meter, one.subject, one.time.date(), one.partition, name]
        if value not in values and value != "other":
            if len(values) >= values_max:
                return "other"
            values.append(value)
        return value

    accepted: dict[tuple[int, int], bytes] = {}
    rejected: dict[tuple[int, int], str] = {}
    duplicates: dict[int, int] = defaultdict(int)
    first: dict[tuple[str, str, str], Made] = {}
    counted: dict[Key, list[tuple[Made, Decimal | None]]] = defaultdict(list)
    members: dict[tuple[Key, str], int] = {}
    sizes: dict[int, int] = defaultdict(int)
    for one in sorted(log, key=lambda made: (made.partition, made.offset)):
        place = one.partition, one.offset
        sizes[one.partition] += 1
        if one.reason:
            rejected[place] = one.reason
            continue
        if one.identity in first:
            if first[one.identity].raw == one.raw:
                duplicates[one.partition] += 1
            else:
                rejected[place] = "identity_conflict"
            continue
        first[one.identity] = one
        accepted[place] = one.raw or b""
        for meter, said, value, member in meters_of(one):
            dimensions = tuple((name, read(one, meter, name, text)) for name, text in said)
            key = (meter, one.subject, one.window_s, dimensions, one.partition)
            counted[key].append((one, value))
            if member is not None:
                members.setdefault((key, member), one.offset)
    return Expected(
        accepted=accepted,
        rejected=rejected,
        duplicates=dict(duplicates),
        rollups={key: _row(events) for key, events in counted.items()},
        members=members,
        sizes=dict(sizes),
    )


def _row(events: Sequence[tuple[Made, Decimal | None]]) -> Row:
    total = Decimal(0)
    values = [value for _, value in events if value is not None]
    for value in values:
        total = EXACTLY.add(total, value)
    latest = max(events, key=lambda pair: (pair[0].time, pair[0].offset))[1]
    return Row(
        max(one.offset for one, _ in events),
        len(events),
        total,
        min(values, default=None),
        max(values, default=None),
        latest,
        sum(one.digest for one, _ in events) % (1 << 128),
    )


POISON: list[tuple[str, bytes | None]] = [
    ("not_json", b"rubbish"),
    ("empty_record", None),
    ("empty_record", b""),
    ("not_an_event", b"[]"),
    ("missing_field", b'{"specversion":"1.0"}'),
    ("too_deep", b"[" * 100_000),
]


def made_log(
    seed: int,
    count: int,
    *,
    partitions: int = 2,
    prefix: str = "s",
    days: int = 3,
    share_again: float = 0.15,
    share_bad: float = 0.05,
) -> list[Made]:
    """A seeded log: few subjects and windows, so that keys are hit often; repeats near and far, conflicts, poison."""
    chance = random.Random(seed)
    following = [0] * partitions
    good: list[list[Made]] = [[] for _ in range(partitions)]
    log: list[Made] = []
    for number in range(count):
        partition = chance.randrange(partitions)
        offset = following[partition]
        following[partition] += 1
        before = good[partition]
        fate = chance.random()
        if before and fate < share_again:
            again = chance.choice(before[-5:] if chance.random() < 0.5 else before)
            changes = {"n": "12345"} if chance.random() < 0.2 else {}
            log.append(msgspec.structs.replace(again, offset=offset, **changes))
        elif fate < share_again + share_bad:
            reason, bad = chance.choice(POISON)
            log.append(
                Made(partition=partition, offset=offset, subject=f"{prefix}-{partition}", reason=reason, bad=bad)
            )
        else:
            log.append(
                Made(
                    partition=partition,
                    offset=offset,
                    subject=f"{prefix}-{partition}-{chance.randrange(3)}",
                    id=f"e{number}",
                    source=chance.choice(["/app", "/other"]),
                    type="idle" if chance.random() < 0.05 else "used",
                    time=datetime(2013, 1, 1, tzinfo=UTC)
                    + timedelta(days=chance.randrange(days), minutes=chance.choice([0, 7, 14, 15, 16]))
                    + timedelta(microseconds=chance.choice([0, 1, 999_999])),
                    n=chance.choice(
                        [None, "0", "1", "-2.5", "0.000000000001", "999999999999999999.999999999999", '"3.25"', "1e3"]
                    ),
                    region=chance.choice(["eu", "us", "test", "\u00fc'\\\"", ""]),
                    app=chance.choice([None, "a", "b"]),
                    user=chance.choice([None, "u1", "u2", "u'3\\", "\u20ac"]),
                )
            )
        if not log[-1].reason:
            before.append(log[-1])
    return log
