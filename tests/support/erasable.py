"""A customer to erase: a log full of planted names, a catalog that bills it, and a look for the names everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from clickhouse_connect.driver.client import Client

from aggregators.erase import Erasing
from metering.catalog_file import parse_catalog
from metering.clickhouse import connect
from metering.clock import FixedClock
from metering.config import Settings
from metering.usage.answer import answer
from schemas.catalog import AppliedCatalog, Catalog
from schemas.usage_query import UsageQuery
from tests.support.plain_log import CATALOG, Made

CANARY = "CANARY"
"""Stands in everything that may identify somebody: subjects, sources, ids, users, fields that no meter reads."""

ANNA, BERT = "CANARY-anna@example.org", "CANARY 'bert' \\ \u00fc"
ERASED_AT = FixedClock(datetime(2013, 4, 1, tzinfo=UTC))

CUSTOMERS = """
customers:
  - {id: acme, name: Acme, subjects: %s, timezone: America/New_York}
  - {id: bolt, name: Bolt, subjects: [other]}
plans:
  - id: plain
    charges:
      - {id: calls, model: per_unit, meter: calls, unit_amount: 0.01, group_by: [region]}
      - {id: total, model: per_unit, meter: total, unit_amount: 0.01}
      - {id: users, model: per_unit, meter: users, unit_amount: 7}
subscriptions:
  - {id: acme-1, customer: acme, plan: plain, start: 2012-12-01}
  - {id: bolt-1, customer: bolt, plan: plain, start: 2012-12-01}
"""
METERS = """
meters:
  - {name: calls, event_type: used, aggregation: count}
  - {name: total, event_type: used, aggregation: sum, value: n}
  - {name: users, event_type: used, aggregation: unique_count, value: user}
"""


def erasable_catalog(*subjects: str) -> Catalog:
    """The plain log's meters, and customers who pay for them; `subjects` are those of the customer to erase."""
    # The file's meters are there for its charges to be checked; those of the plain log have the same names.
    meters = METERS.replace("aggregation: count}", "aggregation: count, group_by: {region: region}}")
    billed = parse_catalog(meters + CUSTOMERS % json.dumps(list(subjects or (ANNA, BERT))))
    return msgspec.structs.replace(billed, event_types=CATALOG.event_types, meters=CATALOG.meters)


class Person(Made, frozen=True, kw_only=True):
    """An event that says more about somebody than meters read."""

    @property
    def raw(self) -> bytes | None:
        plain: bytes | None = Made.raw.__get__(self)
        said = b'"traceparent": "CANARY-trace", "data": {"email": "CANARY-mail", "deeper": {"name": ["CANARY-name"]}, '
        return plain if plain is None or self.reason else plain.replace(b'"data": {', said)


class Correction(Made, frozen=True, kw_only=True):
    """A void of another event of the subject, or, with `puts`, what is put in its place."""

    names: tuple[str, str]
    puts: Person | None = None

    @property
    def raw(self) -> bytes | None:
        source, id_ = self.names
        data: dict[str, Any] = {"source": source, "id": id_, "note": "CANARY-why"}
        if self.puts is not None:
            put = json.loads(self.puts.raw or b"{}")
            data |= {"type": put["type"], "time": put["time"], "data": put["data"]}
        return json.dumps(
            {
                "specversion": "1.0",
                "id": self.id,
                "source": self.source,
                "type": "metering.event.replaced" if self.puts else "metering.event.voided",
                "subject": self.subject,
                "time": self.time.isoformat(),
                "data": data,
            }
        ).encode()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def personal_log() -> list[Made]:
    """A month of two people, one stranger and what could not be billed on; offsets follow one another."""
    days = [at(f"2013-01-{day:02}T{hour:02}:07") for day in (2, 3, 15) for hour in (0, 7, 23)]
    log: list[Made] = []
    for number, time in enumerate(days):
        for subject in (ANNA, BERT, "other"):
            whose = "CANARY" if subject != "other" else "plain"
            kind = Made if subject == "other" else Person
            log.append(
                kind(
                    subject=subject,
                    id=f"{whose}-{number}",
                    source=f"/{whose}-source",
                    time=time,
                    n=["1", "-2.5", "0.000000000001", '"3.25"'][number % 4],
                    region=["eu", "us", "test"][number % 3],
                    user=f"{whose}-user-{number % 4}",
                )
            )
    log += [log[0], log[1], msgspec.structs.replace(log[3], n="12345")]
    log += [
        Made(subject=ANNA, reason="not_json", bad=b"CANARY rubbish of " + ANNA.encode()),
        Made(subject=ANNA, reason="missing_field", bad=json.dumps({"specversion": "1.0", "subject": ANNA}).encode()),
        Made(subject="other", reason="not_json", bad=b"plain rubbish"),
        Correction(subject=ANNA, id="CANARY-void", source="/CANARY-source", names=("/CANARY-source", "CANARY-2")),
        Correction(
            subject=BERT,
            id="CANARY-put",
            source="/CANARY-source",
            names=("/CANARY-source", "CANARY-3"),
            puts=Person(subject=BERT, time=at("2013-01-20T12:00"), n="1000", user="CANARY-user-put"),
        ),
    ]
    return follow(log)


def follow(log: Sequence[Made], first: int = 0) -> list[Made]:
    """The same log with offsets that follow one another."""
    return [msgspec.structs.replace(one, offset=first + place) for place, one in enumerate(log)]


def erasing(settings: Settings, *, reached: Callable[[str], None] = lambda _step: None, **changes: Any) -> Erasing:
    """One who erases where no worker runs and nobody reads."""
    arguments: dict[str, Any] = {
        "connect": lambda: connect(settings),
        "clock": ERASED_AT,
        "by": "ada@engine",
        "workers": lambda: 0,
        "sleep": lambda _s: None,
        "workers_wait_s": 60.0,
        "settle_s": 0.0,
        "reached": reached,
    }
    return Erasing(**{**arguments, **changes})


def tables_with(client: Client, text: str = CANARY) -> list[str]:
    """Every table of the database in a row of which the text stands, whatever the column."""
    names = client.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine NOT LIKE '%View' ORDER BY name"
    ).result_rows
    # Not FINAL: a row that was only replaced can still be read.
    return [
        name
        for (name,) in names
        if text.encode() in client.raw_query("SELECT * FROM {name:Identifier}", {"name": name}, fmt="JSONEachRow")
    ]


def files_with(folder: Path, text: str = CANARY) -> list[str]:
    """Every file below a folder that has the text."""
    return [one.name for one in sorted(folder.rglob("*")) if one.is_file() and text.encode() in one.read_bytes()]


def totals(client: Client, catalog: AppliedCatalog) -> list[tuple[Any, ...]]:
    """What usage answers say of every meter and customer over the year."""
    return [
        (meter, one.who, one.dimensions, one.quantity, one.events_count, one.digest)
        for meter in sorted(catalog.meters)
        for one in answer(client, catalog, UsageQuery(meter=meter, start=at("2013-01-01"), end=at("2014-01-01")))
    ]
