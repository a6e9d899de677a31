"""A made-up log in which events correct others, and what all tables must hold for it, counted in plain Python."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from clickhouse_connect.driver.client import Client

from schemas.catalog import Catalog
from schemas.meter import Aggregation, Filter, Meter
from tests.support.made_corrections import Place, member_rows, taken_out
from tests.support.plain_log import EXACTLY, LOGGED_AT, START, Made

CATALOG = Catalog(
    event_types=("idle",),
    meters=tuple(
        Meter(
            name=one.value,
            event_type="used",
            aggregation=one,
            value={Aggregation.COUNT: None, Aggregation.UNIQUE_COUNT: "user"}.get(one, "n"),
            group_by={"region": "region"},
            filters=(Filter(field="region", none_of=("test",)),),
        )
        for one in Aggregation
    ),
)
"""A meter for each aggregation, named after it."""

METERS = tuple(one.name for one in CATALOG.meters)
NEW_YEAR = datetime(2013, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=5)


class Said(Made, frozen=True, kw_only=True):
    """A record that may correct another of its subject: `names` is that one's (source, id)."""

    names: tuple[str, str] | None = None
    voids: bool = False
    epoch: str = ""

    @property
    def raw(self) -> bytes | None:
        whole = super().raw
        if self.reason or self.names is None or whole is None:
            return whole
        said = json.loads(whole, parse_float=str)
        data = {"source": self.names[0], "id": self.names[1]}
        if self.voids:
            said |= {"type": "metering.event.voided", "data": data}
        else:
            put = {name: said[name] for name in ("type", "time", "data")}
            said |= {"type": "metering.event.replaced", "time": LOGGED_AT.isoformat(), "data": {**data, **put}}
        return json.dumps(said).encode()

    @property
    def name(self) -> str:
        return _name(self.subject, self.source, self.id)

    @property
    def corrects(self) -> str | None:
        return None if self.names is None else _name(self.subject, *self.names)

    @property
    def place(self) -> Place:
        return self.epoch, self.partition, self.offset


def corrected_log(
    seed: int, count: int, *, epoch: str, prefix: str, partitions: int = 2, share: float = 0.35
) -> list[Said]:
    """A seeded log: some events correct earlier or later ones, some come twice, some are poison."""
    chance = random.Random(seed)
    ends = [0] * partitions
    drafts: list[Said] = []
    for number in range(count):
        partition = chance.randrange(partitions)
        offset = ends[partition]
        ends[partition] += 1
        subject = f"{prefix}-{partition}-{chance.randrange(2)}"
        before = [one for one in drafts if one.partition == partition and not one.reason]
        if before and chance.random() < 0.1:
            drafts.append(msgspec.structs.replace(chance.choice(before), offset=offset))
            continue
        names = None
        if chance.random() < share:
            if before and chance.random() < 0.75:
                target = chance.choice(before[-8:] if chance.random() < 0.7 else before)
                subject, names = target.subject, (target.source, target.id)
            else:
                # By chance a later one, one of another subject, or this very one.
                names = ("/app", f"e{number + chance.randint(0, 8)}")
        is_self = names == ("/app", f"e{number}")
        voids = names is not None and chance.random() < 0.5
        drafts.append(
            Said(
                epoch=epoch,
                partition=partition,
                offset=offset,
                subject=subject,
                id=f"e{number}",
                type="used" if voids or chance.random() < 0.95 else "idle",
                time=datetime(2013, 1, 1, tzinfo=UTC)
                + chance.randrange(8) * STEP
                + chance.randrange(2) * timedelta(1, 1),
                n=chance.choice(["0", "1", "1", "-2.5", "0.000000000001", "999999999999999999.999999999999", None]),
                region=chance.choice(["eu", "eu", "us", "test"]),
                user=chance.choice(["u1", "u2", "u3", None]),
                names=names,
                voids=voids,
            )
        )
        if is_self:
            drafts[-1] = msgspec.structs.replace(drafts[-1], reason="invalid_correction", bad=drafts[-1].raw)
    return drafts


Tables = dict[str, set[tuple[Any, ...]]]
"""The rows of each table, as far as they depend on the log alone."""


def expected_tables(log: Sequence[Said], epoch: str | None = None) -> Tables:
    """What the tables must hold of one epoch, the first record's unless given; epochs come one after the other."""
    epoch = log[0].epoch if epoch is None else epoch
    order = {one: number for number, one in enumerate(dict.fromkeys(said.epoch for said in log))}
    accepted: dict[str, Said] = {}
    for one in sorted(log, key=lambda said: (order[said.epoch], said.partition, said.offset)):
        if not one.reason:
            accepted.setdefault(one.name, one)
    said = list(accepted.values())
    taken = taken_out(said)
    outs: dict[str, list[Place]] = defaultdict(list)
    for link in taken:
        outs[link.name].append(link.by.place)
    tables: Tables = {
        "events": {(*one.place, one.raw) for one in said if one.epoch == epoch},
        "corrections": {
            (link.name, *link.by.place, link.by.name, link.is_named, *_known(accepted.get(link.name)))
            for link in taken
            if link.by.place[0] == epoch
        },
        "rollups": set(),
        "members": set(),
    }
    keys: dict[tuple[Any, ...], list[Said]] = defaultdict(list)
    for one in said:
        for meter in _meters_of(one) if one.epoch == epoch else ():
            keys[(meter, one.subject, one.window_s, one.region, one.partition)].append(one)
    for key, events in keys.items():
        tables["rollups"].add((*key, *_row(key[0], events, outs)))
        if key[0] == "unique_count":
            for user in {one.user for one in events}:
                brought = [(one.place, outs.get(one.name, [])) for one in events if one.user == user]
                tables["members"] |= {(*key, user, *row) for row in member_rows(brought)}
    return tables


def stored_tables(client: Client, epoch: str) -> Tables:
    """What the tables hold."""
    key = "meter, subject, toUnixTimestamp(window_start), dimensions['region'], partition"
    columns = {
        "events": "epoch, partition, offset, raw",
        "corrections": "concat(subject, '|', source, '|', id), epoch, partition, offset, "
        "concat(subject, '|', correction_source, '|', correction_id), toBool(is_named), toBool(event_known), "
        "event_time, event_partition, event_offset",
        "rollups": f"{key}, position, events_count, value_sum, value_min, value_max, value_latest, digest, "
        "value_moment",
        "members": f"{key}, member, position, since, gone",
    }
    return {
        table: {
            tuple(one.encode() if table == "events" and at == 3 else one for at, one in enumerate(row))
            for row in client.query(
                f"SELECT {wanted} FROM {table} FINAL WHERE epoch = {{epoch:String}}",  # noqa: S608 - constants
                {"epoch": epoch},
            ).result_rows
        }
        for table, wanted in columns.items()
    }


def check_tables(client: Client, epoch: str, wanted: Tables) -> None:
    """The tables hold what is expected, row for row."""
    found = stored_tables(client, epoch)
    for table, rows in wanted.items():
        surplus, missing = sorted(found[table] - rows, key=repr), sorted(rows - found[table], key=repr)
        differences = [*surplus[:5], *missing[:5]]
        assert not differences, f"{table}: {len(surplus)} rows too many, {len(missing)} missing: {differences}"


def _meters_of(one: Said) -> list[str]:
    if one.type != "used" or one.voids or one.region == "test":
        return []
    without = {"count": True, "unique_count": one.user is not None}
    return [meter for meter in METERS if without.get(meter, one.n is not None)]


def _row(meter: str, events: Sequence[Said], outs: dict[str, list[Place]]) -> tuple[Any, ...]:
    places = [place for one in events for place in (one.place, *outs.get(one.name, ()))]
    position = max(place[2] for place in places if place[:2] == events[0].place[:2])
    left = [one for one in events if one.name not in outs]
    valued = meter not in ("count", "unique_count") and bool(left)
    values = [Decimal((one.n or "0").strip('"')) for one in left] if valued else []
    latest = max(left, key=lambda one: (one.time, one.offset)) if valued else None
    moments = [
        EXACTLY.multiply(value, (one.time - START).seconds % 900) for value, one in zip(values, left, strict=False)
    ]
    return (
        position,
        len(left),
        _total(values),
        min(values, default=None),
        max(values, default=None),
        None if latest is None else Decimal((latest.n or "0").strip('"')),
        sum(one.digest for one in left) % (1 << 128),
        _total(moments) if meter == "time_weighted" else Decimal(0),
    )


def _known(event: Said | None) -> tuple[Any, ...]:
    if event is None:
        return (False, START, 0, 0)
    time = event.time
    return (True, time, event.partition, event.offset)


def _total(values: Iterable[Decimal]) -> Decimal:
    total = Decimal(0)
    for value in values:
        total = EXACTLY.add(total, value)
    return total


def _name(subject: str, source: str, id_: str) -> str:
    return f"{subject}|{source}|{id_}"
