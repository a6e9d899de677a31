"""Faults around closed periods: events out of order and late, and a meter that is edited while its period is open."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import msgspec
import pytest

from aggregators.pipeline import CATALOG_POLL_S
from aggregators.rebuild import Rebuild
from billing_export import runs
from billing_export.line_store import read_lines
from billing_export.verify import verify_period
from metering import catalog_store
from metering.catalog_file import parse_catalog
from metering.clickhouse import connect
from metering.clock import FixedClock, SystemClock
from schemas.catalog import Catalog
from schemas.line_item import LineItem, decode_line_item
from schemas.meter import Aggregation, Meter
from tests.support.fault_numbers import EVENTS, seeds
from tests.support.fault_proof import prove
from tests.support.fault_stack import FaultStack
from tests.support.made_billing import close
from tests.support.plain_log import CATALOG, Made

NEW_YORK = ZoneInfo("America/New_York")
MICROSECOND = timedelta(microseconds=1)
BILLED = parse_catalog("""
meters:
  - {name: calls, event_type: used, aggregation: count}
  - {name: total, event_type: used, aggregation: sum, value: n}
customers:
  - {id: acme, subjects: [s0, s1], timezone: America/New_York}
plans:
  - id: plain
    charges:
      - {id: calls, model: per_unit, meter: calls, unit_amount: 0.01}
      - {id: total, model: per_unit, meter: total, unit_amount: 0.01}
subscriptions:
  - {id: acme-1, customer: acme, plan: plain, start: 2012-01-01}
""")


def apply(stack: FaultStack, *meters: Meter) -> int:
    """Bill the plain log's meters, with these in place of those of the same name; the new catalog's version."""
    names = {one.name for one in meters}
    catalog = Catalog(
        event_types=CATALOG.event_types,
        meters=(*(one for one in CATALOG.meters if one.name not in names), *meters),
        customers=BILLED.customers,
        plans=BILLED.plans,
        subscriptions=BILLED.subscriptions,
    )
    return catalog_store.apply(stack.client, catalog, clock=SystemClock(), applied_by="test").version


def placed(log: Sequence[Made], after: Sequence[Made] = ()) -> list[Made]:
    """The log with each event on its subject's partition, at the offset it will have behind `after`."""
    following = [sum(one.partition == number for one in after) for number in (0, 1)]
    found = []
    for one in log:
        partition = int(one.subject[-1])
        found.append(msgspec.structs.replace(one, partition=partition, offset=following[partition]))
        following[partition] += 1
    return found


def closed(stack: FaultStack, label: str, on: str) -> None:
    """Close a period on a day after it."""
    close(stack.client, label, clock=FixedClock(datetime.fromisoformat(on).replace(tzinfo=UTC)))


def documents(stack: FaultStack, label: str) -> list[str]:
    """What was frozen for a period, in order."""
    return [one.document for run in runs.frozen(stack.client, label) for one in read_lines(stack.client, run)]


def frozen_lines(stack: FaultStack) -> list[LineItem]:
    return [
        decode_line_item(one.document) for run in runs.listed(stack.client) for one in read_lines(stack.client, run)
    ]


def billed(lines: Sequence[LineItem]) -> dict[tuple[str, str], tuple[Decimal, int, int]]:
    """(sum of quantities, events and digest of the newest line) of each (period, charge), corrections included."""
    found: dict[tuple[str, str], tuple[Decimal, int, int]] = {}
    for one in lines:
        before = found.get((one.period, one.charge), (Decimal(0), 0, 0))[0]
        quantity = before + Decimal(one.quantity)
        found[one.period, one.charge] = (quantity, one.events_count, int(one.digest, 16))
    return found


def counted(
    events: Sequence[Made], period_of: Callable[[Made], str], value_of: Callable[[Made], str | None]
) -> dict[tuple[str, str], tuple[Decimal, int, int]]:
    """What must have been billed, counted in plain Python."""
    found: dict[tuple[str, str], tuple[Decimal, int, int]] = {}
    for one in {one.identity: one for one in reversed(events)}.values():
        for charge, value in (("calls", "1"), ("total", value_of(one))):
            if value is not None:
                quantity, count, digest = found.get((period_of(one), charge), (Decimal(0), 0, 0))
                now = (quantity + Decimal(value), count + 1, (digest + one.digest) % (1 << 128))
                found[period_of(one), charge] = now
    return found


def local_month(one: Made) -> str:
    return f"{one.time.astimezone(NEW_YORK):%Y-%m}"


def used(chance: random.Random, number: int, at: datetime) -> Made:
    return Made(
        subject=f"s{chance.randrange(2)}",
        id=f"e{number}",
        time=at,
        n=chance.choice(["1", "-2.5", "0.000000000001", "1234567.000000000001"]),
        app=chance.choice(["10", "20"]),
    )


@pytest.mark.parametrize("seed", seeds())
def test_f11_events_out_of_order_and_late_around_every_border(faulty: FaultStack, seed: int) -> None:
    """F11. However late and disordered, also around leap days and DST: closed lines stay, corrections follow."""
    chance = random.Random(seed)
    # February 2012 has 29 days, and on 11 March the clocks of New York go from 2:00 to 3:00.
    borders = [
        datetime(2012, 2, 1, tzinfo=NEW_YORK),
        datetime(2012, 2, 29, tzinfo=NEW_YORK),
        datetime(2012, 3, 1, tzinfo=NEW_YORK),
        datetime(2012, 3, 11, 2, tzinfo=NEW_YORK),
        datetime(2012, 3, 11, 3, tzinfo=NEW_YORK),
        datetime(2012, 4, 1, tzinfo=NEW_YORK),
    ]
    times = [border.astimezone(UTC) + MICROSECOND * by for border in borders for by in (-1, 0, 1)]
    start, end = datetime(2012, 2, 1, 5, tzinfo=UTC), datetime(2012, 4, 1, 4, tzinfo=UTC)
    while len(times) < EVENTS // 2:
        times.append(start + chance.random() * (end - start))
    events = [used(chance, number, time) for number, time in enumerate(times)]
    chance.shuffle(events)
    late_by = [timedelta(seconds=1), timedelta(hours=1), timedelta(days=3), timedelta(days=40)]
    in_time: list[Made] = []
    late: list[Made] = []
    for one in events:
        is_late = one.time + chance.choice(late_by) >= datetime(2012, 3, 5, tzinfo=UTC)
        (late if is_late else in_time).append(one)
    first = placed([*in_time, *chance.sample(in_time, k=len(in_time) // 10)])
    second = placed([*late, *chance.sample(in_time, k=len(in_time) // 10)], after=first)
    apply(faulty)
    worker = faulty.worker()
    faulty.produce(first)
    faulty.settle(worker)

    closed(faulty, "2012-02", on="2012-03-05")
    february = documents(faulty, "2012-02")
    faulty.produce(second)
    faulty.settle(worker)
    closed(faulty, "2012-03", on="2012-04-05")

    lines = frozen_lines(faulty)
    counts = counted(events, local_month, lambda one: one.n)
    wanted = {key: counts[key] for key in counts if key[0] in {"2012-02", "2012-03"}}
    assert worker.terminate() == 0
    assert len({key[0] for key in counts}) == 4
    assert any(one.time.astimezone(NEW_YORK).month == 2 for one in late)
    assert {one.period for one in lines if one.adjustment} == {"2012-02"}
    assert billed(lines) == wanted
    assert documents(faulty, "2012-02") == february
    assert [verify_period(faulty.client, label).differences for label in ("2012-02", "2012-03")] == [(), ()]
    prove(faulty, [*first, *second])


@pytest.mark.parametrize("seed", seeds())
def test_f21_a_meter_edited_in_an_open_period_under_load(faulty: FaultStack, seed: int) -> None:
    """F21. A meter edited under load in an open period: each event counts by its own time, and closed lines stay."""
    chance = random.Random(seed)
    middle = datetime(2013, 2, 15, 5, tzinfo=UTC)
    edited = Meter(
        name="total", event_type="used", aggregation=Aggregation.SUM, value="deep.app", effective_from=middle
    )
    spans = [
        (datetime(2013, 1, 1, 5, tzinfo=UTC), datetime(2013, 2, 1, 5, tzinfo=UTC)),
        (datetime(2013, 2, 1, 5, tzinfo=UTC), middle),
        (datetime(2013, 2, 1, 5, tzinfo=UTC), datetime(2013, 3, 1, 5, tzinfo=UTC)),
    ]
    parts: list[list[Made]] = []
    for part, (start, end) in enumerate(spans):
        drawn = [
            used(chance, part * EVENTS + number, start + chance.random() * (end - start))
            for number in range(EVENTS // 6)
        ]
        parts.append(placed(drawn, after=[one for before in parts for one in before]))
    before_version = apply(faulty)
    worker = faulty.worker()
    faulty.produce(parts[0])
    faulty.settle(worker)
    closed(faulty, "2013-01", on="2013-02-03")
    january = documents(faulty, "2013-01")

    # The edit meets events that are fetched, folded and not yet flushed, some of them of its own time.
    half = len(parts[2]) // 2
    faulty.produce([*parts[1], *parts[2][:half]])
    after_version = apply(faulty, edited)
    time.sleep(CATALOG_POLL_S + 0.1)
    faulty.produce(parts[2][half:])
    faulty.settle(worker)
    catalog = catalog_store.load(faulty.client, after_version)
    Rebuild(lambda database: connect(faulty.settings, database=database), catalog, ["total"]).run(write=True)
    assert worker.terminate() == 0
    closed(faulty, "2013-02", on="2013-03-05")

    lines = frozen_lines(faulty)
    wanted = counted(
        [one for part in parts for one in part], local_month, lambda one: one.app if one.time >= middle else one.n
    )
    versions = faulty.client.query("SELECT DISTINCT catalog_version FROM positions FINAL ORDER BY 1").result_rows
    assert billed(lines) == wanted
    assert [one for one in lines if one.adjustment] == []
    assert documents(faulty, "2013-01") == january
    assert {one.period: one.catalog_version for one in lines} == {"2013-01": before_version, "2013-02": after_version}
    assert {before_version, after_version} <= {row[0] for row in versions}
    assert [verify_period(faulty.client, label).differences for label in ("2013-01", "2013-02")] == [(), ()]
