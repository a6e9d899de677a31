"""Flights of five airlines that left New York in January to March 2013, written as a worker would have.

Folded here in plain Python, so that documents and tests can show real usage without running the whole stack.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

from examples.flights.flights import flights_file
from schemas.catalog import AppliedCatalog, Catalog, Customer, applied
from schemas.meter import Aggregation, Meter, MeterVersion
from tests.support.made_usage import EPOCH, EVENT_COLUMNS, MEMBER_COLUMNS, ROLLUP_COLUMNS, UsageTables

NEW_YORK = ZoneInfo("America/New_York")
LOG = "demo-cluster/usage-events"
LAST_MONTH = 3
AIRLINES = ("AA", "AS", "F9", "HA", "VX")

METERS = (
    Meter(name="flights", event_type="flight.departed", aggregation=Aggregation.COUNT, unit="flights"),
    Meter(name="miles", event_type="flight.departed", aggregation=Aggregation.SUM, value="distance", unit="miles"),
    Meter(
        name="aircraft",
        event_type="flight.departed",
        aggregation=Aggregation.UNIQUE_COUNT,
        value="tailnum",
        unit="aircraft",
    ),
    Meter(
        name="worst_delay", event_type="flight.departed", aggregation=Aggregation.MAX, value="dep_delay", unit="minutes"
    ),
    Meter(
        name="mean_delay", event_type="flight.departed", aggregation=Aggregation.AVG, value="dep_delay", unit="minutes"
    ),
)


def flights() -> Iterator[dict[str, str]]:
    """The rows of the CSV file; what is missing there is missing here."""
    packed = flights_file().read_bytes()
    with zipfile.ZipFile(io.BytesIO(packed)) as archive, archive.open("flights.csv") as file:
        for row in csv.DictReader(io.TextIOWrapper(file, encoding="utf-8")):
            if int(row["month"]) <= LAST_MONTH and row["carrier"] in AIRLINES:
                yield {name: value for name, value in row.items() if value != "NA"}


def flight_catalog() -> AppliedCatalog:
    """A customer for each airline, with days in New York; every meter is grouped by the airport of departure."""
    names = flights_file().with_name("airlines.csv").read_text(encoding="utf-8")
    customers = tuple(
        Customer(id=row["carrier"], name=row["name"], subjects=(row["carrier"],), timezone="America/New_York")
        for row in csv.DictReader(io.StringIO(names))
        if row["carrier"] in AIRLINES
    )
    meters = tuple(_by_origin(one) for one in METERS)
    versions = tuple(MeterVersion(meter=one, version=1, introduced_in=1, start=None, end=None) for one in meters)
    return applied(1, Catalog(customers=customers, meters=meters), versions)


def load_flights(tables: UsageTables) -> None:
    """Store the catalog, the events, and what a worker makes of them."""
    tables.store(flight_catalog())
    events: list[tuple[Any, ...]] = []
    states: dict[tuple[Any, ...], list[tuple[int, datetime, Decimal, int]]] = {}
    members: dict[tuple[Any, ...], int] = {}
    for offset, row in enumerate(flights()):
        hour, minute = divmod(int(row["sched_dep_time"]), 100)
        local = datetime(int(row["year"]), int(row["month"]), int(row["day"]), hour, minute, tzinfo=NEW_YORK)
        time = local.astimezone(UTC)
        id_ = "-".join((f"{local:%Y-%m-%d}", row["carrier"], row["flight"], row["origin"]))
        raw = _raw(row, id_, time)
        digest = int.from_bytes(sha256(raw.encode()).digest()[:16], "little")
        events.append((row["carrier"], "/flights", id_, "flight.departed", time, LOG, 0, offset, EPOCH, digest, raw))
        quarter = time.replace(minute=time.minute - time.minute % 15)
        for meter in METERS:
            value = row.get(meter.value) if meter.value else ""
            if value is None:
                continue
            key = (meter.name, row["carrier"], quarter, row["origin"])
            number = Decimal(value) if meter.aggregation in _VALUED else Decimal(0)
            states.setdefault(key, []).append((offset, time, number, digest))
            if meter.aggregation is Aggregation.UNIQUE_COUNT:
                members.setdefault((*key, value), offset)
    tables.client.insert("events", events, column_names=EVENT_COLUMNS)
    rollups = [_rollup(key, folded) for key, folded in states.items()]
    tables.client.insert("rollups", rollups, column_names=ROLLUP_COLUMNS[:-1])
    rows = [(*_key(key), key[4], offset) for key, offset in members.items()]
    tables.client.insert("members", rows, column_names=MEMBER_COLUMNS[:-2])


_VALUED = frozenset({Aggregation.SUM, Aggregation.MAX, Aggregation.AVG})


def _by_origin(meter: Meter) -> Meter:
    return Meter(
        name=meter.name,
        event_type=meter.event_type,
        aggregation=meter.aggregation,
        value=meter.value,
        unit=meter.unit,
        group_by={"origin": "origin"},
    )


def _raw(row: dict[str, str], id_: str, time: datetime) -> str:
    data = {name: row[name] for name in ("origin", "dest", "tailnum", "distance", "dep_delay") if name in row}
    return json.dumps(
        {
            "specversion": "1.0",
            "id": id_,
            "source": "/flights",
            "type": "flight.departed",
            "subject": row["carrier"],
            "time": time.isoformat(),
            "data": data,
        }
    )


def _key(key: tuple[Any, ...]) -> tuple[Any, ...]:
    meter, subject, quarter, origin = key[:4]
    return (meter, subject, quarter, {"origin": origin}, 1, LOG, 0, 0)


def _rollup(key: tuple[Any, ...], folded: list[tuple[int, datetime, Decimal, int]]) -> tuple[Any, ...]:
    values = [value for _, _, value, _ in folded]
    valued = key[0] not in ("flights", "aircraft")
    last_offset, last_time, last_value, _ = max(folded, key=lambda one: (one[1], one[0]))
    return (
        *_key(key),
        folded[-1][0],
        len(folded),
        sum(values, Decimal(0)),
        min(values) if valued else None,
        max(values) if valued else None,
        last_value if valued else None,
        last_time,
        last_offset,
        sum(digest for _, _, _, digest in folded) % 2**128,
    )
