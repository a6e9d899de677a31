"""Makes usage up and writes it into ClickHouse as a worker would have: events, rollups and members, folded here in
plain Python from plain numbers, so that nothing of the code under test decides what is expected of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, Rounded
from hashlib import sha256

import msgspec
from clickhouse_connect.driver.client import Client

from metering.clickhouse import connect, ensure_database
from metering.config import Settings
from metering.migrate import migrate
from metering.testing import ClickHouseUnderTest
from schemas.catalog import AppliedCatalog, Catalog, Customer, applied, document
from schemas.meter import Aggregation, Filter, Meter, MeterVersion
from tests.support.made_corrections import Place, member_rows, taken_out

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEY_COLUMNS = (
    "meter", "subject", "window_start", "dimensions", "meter_version", "epoch", "partition", "position_first",
)  # fmt: skip
ROLLUP_COLUMNS = (
    *KEY_COLUMNS, "position", "events_count", "value_sum", "value_min", "value_max", "value_latest", "latest_time",
    "latest_offset", "digest", "value_moment",
)  # fmt: skip
EVENT_COLUMNS = (
    "subject", "source", "id", "type", "time", "epoch", "partition", "offset", "logged_at", "digest", "raw",
)  # fmt: skip
MEMBER_COLUMNS = (*KEY_COLUMNS, "member", "position", "since", "gone")
MICROSECOND = timedelta(microseconds=1)
CORRECTED_AT = datetime(2019, 6, 1, tzinfo=UTC)
EXACTLY = Context(prec=80, traps=[Inexact, Rounded])
Outs = dict[str, list[Place]]
"""The places of what takes an event out, by its name."""
METERS = tuple(one.value for one in Aggregation)
AGGREGATIONS = tuple(one.value for one in Aggregation if one is not Aggregation.TIME_WEIGHTED)


class MadeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event and its place in the log. `value` is the number it carries, as text; None leaves it out.

    With `corrects`, the `name` of another event of the subject, it is put in that one's place, or `voids` it.
    """

    subject: str = "s1"
    time: datetime
    value: str | None = "1"
    kind: str = "a"
    region: str = "eu"
    user: str = "u1"
    epoch: str = "log-1"
    partition: int = 0
    offset: int
    corrects: str | None = None
    voids: bool = False

    @property
    def place(self) -> Place:
        return self.epoch, self.partition, self.offset

    @property
    def name(self) -> str:
        return f"{self.epoch}-{self.partition}-{self.offset}"

    @property
    def raw(self) -> bytes:
        data: dict[str, object] = {"kind": self.kind, "region": self.region, "user": self.user}
        if self.value is not None:
            data["n"] = self.value
        type_, time = "used", self.time
        if self.corrects is not None:
            type_ = "metering.event.voided" if self.voids else "metering.event.replaced"
            what = {} if self.voids else {"type": "used", "time": self.time.isoformat(), "data": data}
            data = {"source": "/made", "id": self.corrects, **what}
            time = self.time if self.voids else CORRECTED_AT
        return json.dumps(
            {
                "specversion": "1.0",
                "id": self.name,
                "source": "/made",
                "type": type_,
                "subject": self.subject,
                "time": time.isoformat(),
                "data": data,
            }
        ).encode()

    @property
    def digest(self) -> int:
        return int.from_bytes(sha256(self.raw).digest()[:16], "little")

    @property
    def quarter(self) -> datetime:
        return self.time - (self.time - EPOCH) % timedelta(minutes=15)


def made_catalog(
    customers: Iterable[Customer] = (), *, changed_at: datetime | None = None, version: int = 1
) -> AppliedCatalog:
    """A meter per aggregation, named after it, over events of type `used`, grouped by kind and region.

    With `changed_at` each has a second version from then on, which leaves the kind "b" out.
    """
    versions: list[MeterVersion] = []
    for name in METERS:
        meter = Meter(
            name=name,
            event_type="used",
            aggregation=Aggregation(name),
            value={"count": None, "unique_count": "user"}.get(name, "n"),
            unit="things",
            group_by={"kind": "kind", "region": "region"},
        )
        versions.append(MeterVersion(meter=meter, version=1, introduced_in=1, start=None, end=changed_at))
        if changed_at is not None:
            narrower = msgspec.structs.replace(
                meter, filters=(Filter(field="kind", none_of=("b",)),), effective_from=changed_at
            )
            versions.append(MeterVersion(meter=narrower, version=2, introduced_in=1, start=changed_at, end=None))
    meters = {one.meter.name: one.meter for one in versions}
    return applied(version, Catalog(customers=tuple(customers), meters=tuple(meters.values())), tuple(versions))


def counted(events: Iterable[MadeEvent], meter: str, changed_at: datetime | None = None) -> Iterator[MadeEvent]:
    """The events that count for a meter of `made_catalog`."""
    for event in events:
        if event.voids:
            continue
        needs_value = meter not in ("count", "unique_count")
        if needs_value and event.value is None:
            continue
        if changed_at is not None and event.time >= changed_at and event.kind == "b":
            continue
        yield event


def outs_of(log: Iterable[MadeEvent], cut: Mapping[tuple[str, int], int] | None = None) -> Outs:
    """What is taken out, and from where; with a cut, the last offset by log and partition, only from within it."""
    outs: Outs = {}
    for one in taken_out(log):
        epoch, partition, offset = one.by.place
        if cut is None or offset <= cut.get((epoch, partition), -1):
            outs.setdefault(one.name, []).append(one.by.place)
    return outs


def corrects(log: Iterable[MadeEvent]) -> bool:
    """Whether there is a correction in a log."""
    return any(one.corrects is not None for one in log)


def total_of(numbers: Iterable[Decimal]) -> Decimal:
    """The exact sum."""
    total = Decimal(0)
    for number in numbers:
        total = EXACTLY.add(total, number)
    return total


def micro(count: int) -> Decimal:
    """Microseconds as seconds."""
    return EXACTLY.scaleb(Decimal(count), -6)


def plain_integral(events: Iterable[MadeEvent], start: datetime, end: datetime) -> Decimal:
    """Unit-seconds of the balance over [start, end): each change counts from its time, or the start, to the end."""
    return total_of(
        EXACTLY.multiply(Decimal(one.value or "0"), micro((end - max(one.time, start)) // MICROSECOND))
        for one in events
        if one.time < end
    )


def plain_quantity(meter: str, events: list[MadeEvent]) -> Decimal:
    """What the aggregation named `meter` makes of these events, which must not be none."""
    numbers = [Decimal(one.value or "0") for one in events]
    total = Decimal(0)
    for number in numbers:
        total = EXACTLY.add(total, number)
    if meter == "avg":
        # By the remainder, where the code under test adds half a unit and cuts.
        whole, rest = divmod(int(EXACTLY.scaleb(total.copy_abs(), 12)), len(numbers))
        whole += 2 * rest >= len(numbers)
        return EXACTLY.scaleb(Decimal(-whole if total < 0 else whole), -12)
    last = max(events, key=lambda one: (one.time, one.epoch, one.partition, one.offset))
    return {
        "count": Decimal(len(events)),
        "sum": total,
        "min": min(numbers),
        "max": max(numbers),
        "latest": Decimal(last.value or "0"),
        "unique_count": Decimal(len({one.user for one in events})),
    }[meter]


@contextmanager
def usage_tables(clickhouse: ClickHouseUnderTest) -> Iterator[UsageTables]:
    """A database of its own with all migrations run; dropped at the end."""
    settings = Settings(
        clickhouse_url=clickhouse.url,
        clickhouse_username=clickhouse.username,
        clickhouse_password=clickhouse.password,
        clickhouse_database=f"test_{uuid.uuid4().hex[:12]}",
    )
    ensure_database(settings)
    client = connect(settings)
    migrate(client)
    yield UsageTables(client, settings)
    client.command("DROP DATABASE {name:Identifier} SYNC", parameters={"name": settings.clickhouse_database})
    client.close()


class UsageTables:
    """The tables of a test, and how usage gets into them."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self.client = client
        self.settings = settings

    def clear(self) -> None:
        for table in ("events", "corrections", "rollups", "members", "catalog_versions", "subjects"):
            self.client.command(f"TRUNCATE TABLE {table}")

    def store(self, catalog: AppliedCatalog) -> None:
        """Store a catalog version and the subjects it lists, as an apply does."""
        text = document(catalog.catalog, catalog.meter_versions).decode()
        self.client.insert("catalog_versions", [(catalog.version, catalog.digest, text, EPOCH, "a test")])
        rows = [
            (subject, one.id, one.name, one.timezone, one.currency, 1, catalog.version)
            for one in catalog.catalog.customers
            for subject in one.subjects
        ]
        if rows:
            self.client.insert("subjects", rows)

    def fold(
        self,
        events: Iterable[MadeEvent],
        *,
        changed_at: datetime | None = None,
        live_from: int = 0,
        flush_every: int = 1,
    ) -> None:
        """Write the events, and the rollups and members of all meters of `made_catalog` over them.

        Offsets below `live_from` are a series of their own, as a rebuild writes it. An absolute state is written after
        every `flush_every` offsets, so that older states of the same keys stand beside the last.
        """
        events = list(events)
        self._insert_events(sorted(events, key=lambda one: one.place))
        self._insert_corrections(events)
        rollups: list[tuple[object, ...]] = []
        members: list[tuple[object, ...]] = []
        for count in range(flush_every, len(events) + flush_every, flush_every) if corrects(events) else [len(events)]:
            found = _fold(events[:count], changed_at, live_from, flush_every)
            rollups += found[0]
            members += found[1]
        if rollups:
            self.client.insert("rollups", rollups, column_names=ROLLUP_COLUMNS)
        if members:
            self.client.insert("members", members, column_names=MEMBER_COLUMNS)

    def _insert_corrections(self, log: Sequence[MadeEvent]) -> None:
        by_name = {one.name: one for one in log}
        rows: list[tuple[object, ...]] = []
        for taken in taken_out(log):
            by, event = by_name[taken.by.name], by_name.get(taken.name)
            known = (
                (0, "", EPOCH, "", 0, 0)
                if event is None
                else (1, "metering.event.voided" if event.voids else "used", event.time, *event.place)
            )
            kind = "voided" if by.voids else "replaced"
            rows.append(
                (by.subject, "/made", taken.name, *by.place, "/made", by.name, kind, taken.is_named, EPOCH, *known)
            )
        if rows:
            self.client.insert("corrections", rows)

    def _insert_events(self, events: list[MadeEvent]) -> None:
        rows = [
            (
                one.subject, "/made", one.name, "metering.event.voided" if one.voids else "used", one.time, one.epoch,
                one.partition, one.offset, EPOCH, one.digest, one.raw.decode(),
            )
            for one in events
        ]  # fmt: skip
        if rows:
            self.client.insert("events", rows, column_names=EVENT_COLUMNS)
            half = rows[: len(rows) // 2]
            self.client.insert("events", half, column_names=EVENT_COLUMNS)  # a retry of a flush


def _fold(
    log: Sequence[MadeEvent], changed_at: datetime | None, live_from: int, flush_every: int
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """The rollups and members of a log; without corrections also the rollups that were written on the way."""
    outs = outs_of(log)
    rollups: list[tuple[object, ...]] = []
    members: list[tuple[object, ...]] = []
    for meter in METERS:
        held: dict[tuple[object, ...], list[MadeEvent]] = {}
        for event in counted(sorted(log, key=lambda one: one.place), meter, changed_at):
            version = 1 if changed_at is None or event.time < changed_at else 2
            series = live_from if event.offset >= live_from else 0
            place = (event.epoch, event.partition, series)
            key = (meter, event.subject, event.quarter, event.kind, event.region, version, *place)
            seen = held.setdefault(key, [])
            seen.append(event)
            if not outs and len(seen) % flush_every == 0:
                rollups.append(_rollup(key, meter, seen, outs))
        rollups += [_rollup(key, meter, seen, outs) for key, seen in held.items()]
        if meter == "unique_count":
            members += [row for key, seen in held.items() for row in _members(key, seen, outs)]
    return rollups, members


def _key(key: tuple[object, ...]) -> tuple[object, ...]:
    meter, subject, quarter, kind, region, version, epoch, partition, series = key
    return (meter, subject, quarter, {"kind": kind, "region": region}, version, epoch, partition, series)


def _rollup(key: tuple[object, ...], meter: str, events: list[MadeEvent], outs: Outs) -> tuple[object, ...]:
    """The row of a key: the last offset that was folded into it or took something out of it, and what is left."""
    valued = meter not in ("count", "unique_count")
    position = max(
        place[2] for one in events for place in (one.place, *outs.get(one.name, ())) if place[:2] == one.place[:2]
    )
    left = [one for one in events if one.name not in outs]
    if not left:
        return (*_key(key), position, 0, Decimal(0), None, None, None, EPOCH, 0, 0, Decimal(0))
    last = max(left, key=lambda one: (one.time, one.offset))
    moments = [
        EXACTLY.multiply(Decimal(one.value or "0"), micro((one.time - one.quarter) // MICROSECOND)) for one in left
    ]
    return (
        *_key(key),
        position,
        len(left),
        plain_quantity("sum", left) if valued else Decimal(0),
        plain_quantity("min", left) if valued else None,
        plain_quantity("max", left) if valued else None,
        Decimal(last.value or "0") if valued else None,
        last.time,
        last.offset,
        sum(one.digest for one in left) % 2**128,
        total_of(moments) if meter == "time_weighted" else Decimal(0),
    )


def _members(key: tuple[object, ...], events: list[MadeEvent], outs: Outs) -> Iterator[tuple[object, ...]]:
    for user in sorted({one.user for one in events}):
        brought = [(one.place, outs.get(one.name, [])) for one in events if one.user == user]
        for row in member_rows(brought):
            yield (*_key(key), user, *row)
