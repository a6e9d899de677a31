"""Makes usage up and writes it into ClickHouse as a worker would have: events, rollups and members, folded here in
plain Python from plain numbers, so that nothing of the code under test decides what is expected of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
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

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EXACTLY = Context(prec=80, traps=[Inexact, Rounded])
AGGREGATIONS = tuple(one.value for one in Aggregation)


class MadeEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event and its place in the log. `value` is the number it carries, as text; None leaves it out."""

    subject: str = "s1"
    time: datetime
    value: str | None = "1"
    kind: str = "a"
    region: str = "eu"
    user: str = "u1"
    epoch: str = "log-1"
    partition: int = 0
    offset: int

    @property
    def raw(self) -> bytes:
        data = {"kind": self.kind, "region": self.region, "user": self.user}
        if self.value is not None:
            data["n"] = self.value
        return json.dumps(
            {
                "specversion": "1.0",
                "id": f"{self.epoch}-{self.partition}-{self.offset}",
                "source": "/made",
                "type": "used",
                "subject": self.subject,
                "time": self.time.isoformat(),
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
    for name in AGGREGATIONS:
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
        needs_value = meter not in ("count", "unique_count")
        if needs_value and event.value is None:
            continue
        if changed_at is not None and event.time >= changed_at and event.kind == "b":
            continue
        yield event


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
        for table in ("events", "rollups", "members", "catalog_versions", "subjects"):
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
        events = sorted(events, key=lambda one: (one.epoch, one.partition, one.offset))
        self._insert_events(events)
        rollups: list[tuple[object, ...]] = []
        members: list[tuple[object, ...]] = []
        for meter in AGGREGATIONS:
            held: dict[tuple[object, ...], list[MadeEvent]] = {}
            for event in counted(events, meter, changed_at):
                version = 1 if changed_at is None or event.time < changed_at else 2
                series = live_from if event.offset >= live_from else 0
                place = (event.epoch, event.partition, series)
                key = (meter, event.subject, event.quarter, event.kind, event.region, version, *place)
                seen = held.setdefault(key, [])
                if meter == "unique_count" and event.user not in {one.user for one in seen}:
                    members.append((*_key(key), event.user, event.offset))
                seen.append(event)
                if len(seen) % flush_every == 0:
                    rollups.append(_rollup(key, meter, seen))
            rollups += [_rollup(key, meter, seen) for key, seen in held.items()]
        if rollups:
            self.client.insert("rollups", rollups)
        if members:
            self.client.insert("members", members)

    def _insert_events(self, events: list[MadeEvent]) -> None:
        rows = [
            (
                one.subject, "/made", f"{one.epoch}-{one.partition}-{one.offset}", "used", one.time, one.epoch,
                one.partition, one.offset, EPOCH, one.digest, one.raw.decode(),
            )
            for one in events
        ]  # fmt: skip
        if rows:
            self.client.insert("events", rows)
            self.client.insert("events", rows[: len(rows) // 2])  # a retry of a flush


def _key(key: tuple[object, ...]) -> tuple[object, ...]:
    meter, subject, quarter, kind, region, version, epoch, partition, series = key
    return (meter, subject, quarter, {"kind": kind, "region": region}, version, epoch, partition, series)


def _rollup(key: tuple[object, ...], meter: str, events: list[MadeEvent]) -> tuple[object, ...]:
    valued = meter not in ("count", "unique_count")
    last = max(events, key=lambda one: (one.time, one.offset))
    return (
        *_key(key),
        events[-1].offset,
        len(events),
        plain_quantity("sum", events) if valued else Decimal(0),
        plain_quantity("min", events) if valued else None,
        plain_quantity("max", events) if valued else None,
        Decimal(last.value or "0") if valued else None,
        last.time,
        last.offset,
        sum(one.digest for one in events) % 2**128,
    )
