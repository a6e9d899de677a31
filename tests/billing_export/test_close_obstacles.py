"""What a close refuses to bill: a meter that was not filled from history, an event that was accepted twice."""

from __future__ import annotations

import pytest

from aggregators.audit import audit
from aggregators.rebuild import Rebuild
from aggregators.repair import repair
from billing_export.close import Closer
from billing_export.preview import preview
from billing_export.usage_reader import RollupReader
from metering import catalog_store
from metering.clickhouse import connect
from schemas.errors import RunError
from tests.support.made_billing import CATALOG, JANUARY, apply, at, closer, fold, store_world
from tests.support.made_usage import MadeEvent, UsageTables

CALLS_ALONE = """
meters:
  - {name: count, event_type: used, aggregation: count, unit: calls, group_by: {kind: kind, region: region}}
customers:
  - {id: acme, subjects: [s1, s2]}
  - {id: bolt, subjects: [s3]}
plans:
  - {id: metered, charges: [{id: calls, model: per_unit, meter: count, unit_amount: 1}]}
subscriptions:
  - {id: acme-1, customer: acme, plan: metered, start: 2012-06-01}
  - {id: bolt-1, customer: bolt, plan: metered, start: 2012-06-01}
"""


@pytest.fixture(autouse=True)
def nothing_claimed(world: UsageTables) -> None:
    for table in ("catalog_starts", "meter_fills"):
        world.client.command(f"TRUNCATE TABLE {table}")


def with_late_meter(*, effective_from: str = "", is_priced: bool = True) -> str:
    """The catalog with a meter `sum` more, and a plan with a price for it."""
    since = f", effective_from: {effective_from}" if effective_from else ""
    meter = f"  - {{name: sum, event_type: used, aggregation: sum, value: n{since}}}\n"
    plan = "  - {id: traffic, charges: [{id: traffic, model: per_unit, meter: sum, unit_amount: 1}]}\n"
    text = CALLS_ALONE.replace("customers:", f"{meter}customers:")
    return text.replace("subscriptions:", f"{plan}subscriptions:") if is_priced else text


def rebuild(world: UsageTables, meter: str) -> None:
    catalog = catalog_store.latest(world.client)
    assert catalog is not None
    Rebuild(lambda database: connect(world.settings, database=database), catalog, [meter]).run(write=True)


def refusals(world: UsageTables, **asked: object) -> list[str]:
    """What a preview of January says that a close would refuse."""
    found: list[RunError] = []
    one = closer(world.client, on_obstacle=found.append)
    assert isinstance(one, Closer)
    one.preview("2013-01", **asked)  # type: ignore[arg-type]
    return [str(error) for error in found]


def test_a_priced_meter_that_came_later_is_not_billed_before_a_rebuild(world: UsageTables) -> None:
    store_world(world, catalog=CALLS_ALONE)
    apply(world, with_late_meter())

    with pytest.raises(RunError, match="meter sum was applied after events that it has not counted") as refused:
        closer(world.client).close("2013-01")

    assert "`metering rebuild sum`" in str(refused.value)
    assert refusals(world) == [str(refused.value)]
    assert world.client.query("SELECT count() FROM runs").result_rows == [(0,)]

    rebuild(world, "sum")

    assert refusals(world) == []
    assert closer(world.client).close("2013-01").changed


def test_a_rebuild_up_to_before_live_folding_began_is_not_enough(world: UsageTables) -> None:
    """Filled up to offset 9, but the worker took the catalog up at 11: nobody counted the event at 10."""
    store_world(world, catalog=CALLS_ALONE)
    apply(world, with_late_meter())
    rebuild(world, "sum")
    fold(world, [MadeEvent(offset=10, time=at("2013-01-20"), value="5")])
    fold(world, [MadeEvent(offset=11, time=at("2013-01-20"), value="6")])
    world.client.insert(
        "catalog_starts", [("log-1", 0, 1, 2, 11)],
        column_names=["epoch", "partition", "number", "catalog_version", "first"],
    )  # fmt: skip

    assert [text.split(", such as")[1] for text in refusals(world)] == [
        " the one at offset 10 of partition 0. Fill it from history with `metering rebuild sum`, then close"
    ]

    rebuild(world, "sum")

    assert refusals(world) == []


@pytest.mark.parametrize(
    "catalog",
    [with_late_meter(is_priced=False), with_late_meter(effective_from="2013-03-01T00:00:00Z")],
    ids=["no price", "in force after every event"],
)
def test_a_meter_that_misses_nothing_on_a_bill_needs_no_rebuild(world: UsageTables, catalog: str) -> None:
    store_world(world, catalog=CALLS_ALONE)
    apply(world, catalog)

    assert refusals(world) == []
    assert closer(world.client).close("2013-01").changed


def accept_twice(world: UsageTables, event: MadeEvent, partition: int = 7) -> None:
    """What two workers leave that have the same event unflushed on two partitions at one moment."""
    world.client.command(
        "INSERT INTO events SELECT * REPLACE ({partition:UInt32} AS partition, 0 AS offset) "
        "FROM (SELECT * FROM events FINAL WHERE offset = {offset:UInt64} AND partition = 0)",
        {"partition": partition, "offset": event.offset},
        settings={"insert_deduplicate": 0},
    )
    copies = {"name": event.name}
    assert world.client.query("SELECT count() FROM events FINAL WHERE id = {name:String}", copies).result_rows == [(2,)]
    world.client.insert(
        "positions",
        [(event.epoch, "usage.events.v1", partition, 0, 0, 1, event.digest, 1)],
        column_names=["epoch", "topic", "partition", "first", "last", "accepted", "digest", "catalog_version"],
    )


def test_an_event_that_was_accepted_twice_is_not_billed_before_a_repair(world: UsageTables) -> None:
    store_world(world, catalog=CATALOG)
    accept_twice(world, JANUARY[1])

    with pytest.raises(RunError, match="1 event was accepted more than once") as refused:
        closer(world.client).close("2013-01")

    assert "s1 / /made / log-1-0-1" in str(refused.value)
    assert "`metering repair`" in str(refused.value)
    [running] = preview(world.client, "acme", RollupReader(world.client), now=at("2013-01-20"))
    assert running.warnings == (str(refused.value),)
    assert refusals(world) == [str(refused.value)]
    assert refusals(world, customers=["bolt"]) == []
    assert world.client.query("SELECT count() FROM runs").result_rows == [(0,)]

    catalog = catalog_store.latest(world.client)
    assert catalog is not None
    found = audit(world.client, catalog)
    repair(lambda database: connect(world.settings, database=database), catalog, found, workers=0)

    assert refusals(world) == []
    assert closer(world.client).close("2013-01").changed


def test_many_events_that_were_accepted_twice_are_counted_and_some_named(world: UsageTables) -> None:
    store_world(world, catalog=CATALOG)
    for partition, event in enumerate(JANUARY[:5], start=7):
        accept_twice(world, event, partition)

    [text] = refusals(world)

    assert "5 events were accepted more than once" in text
    assert text.count("/made /") == 3
    assert " and 2 more" in text


def test_a_row_that_was_written_again_is_one_event(world: UsageTables) -> None:
    """As a retried insert leaves it: the same identity at the same place."""
    store_world(world, catalog=CATALOG)
    world.client.command("INSERT INTO events SELECT * FROM events FINAL", settings={"insert_deduplicate": 0})

    assert refusals(world) == []


@pytest.mark.parametrize(
    "event",
    [
        MadeEvent(offset=10, time=at("2013-02-20"), value="1"),
        MadeEvent(offset=10, time=at("2013-01-20"), value="1", subject="nobody"),
    ],
    ids=["of a later period", "of nobody"],
)
def test_an_event_that_this_close_does_not_bill_may_wait(world: UsageTables, event: MadeEvent) -> None:
    store_world(world, [*JANUARY, event], catalog=CATALOG)
    accept_twice(world, event)

    assert refusals(world) == []
