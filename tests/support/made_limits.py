"""A catalog with quotas, and usage with the ledger behind it, as readings of what has moved look for it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal

from schemas.alert import AlertRule
from schemas.catalog import AppliedCatalog, Catalog, Customer, applied
from schemas.charges import PerUnitCharge
from schemas.plan import Plan
from schemas.quota import Quota
from schemas.subscription import Subscription
from tests.support.made_usage import MadeEvent, UsageTables, made_catalog

NOW = datetime(2013, 1, 20, tzinfo=UTC)
DAY = datetime(2013, 1, 10, 3, tzinfo=UTC)
CUSTOMERS = (Customer(id="acme", subjects=("s1", "s2")), Customer(id="bolt", subjects=("t1",)))


def catalog_with(version: int = 1, alerts: tuple[AlertRule, ...] = (), **quantities: int) -> AppliedCatalog:
    """Everybody has a plan that charges every meter but `max`; quotas of it by meter."""
    made = made_catalog(CUSTOMERS)
    meters = ("sum", "count", "unique_count", "latest", "avg", "min", "time_weighted")
    charges = tuple(PerUnitCharge(id=name, meter=name, unit_amount=Decimal(1)) for name in meters)
    catalog = Catalog(
        meters=made.catalog.meters,
        customers=CUSTOMERS,
        plans=(Plan(id="pro", charges=charges),),
        subscriptions=tuple(
            Subscription(id=one.id, customer=one.id, plan="pro", start=date(2012, 1, 1)) for one in CUSTOMERS
        ),
        alerts=alerts,
        quotas=tuple(
            Quota(id=f"{name}-quota", plan="pro", meter=name, quantity=Decimal(quantity))
            for name, quantity in quantities.items()
        ),
    )
    return applied(version, catalog, made.meter_versions)


def fold(tables: UsageTables, events: Iterable[MadeEvent]) -> None:
    """Write events with their rollups, and then the ledger up to the last offset of each partition."""
    listed = list(events)
    tables.fold(listed)
    held = tables.client.query(
        "SELECT epoch, partition, max(last) FROM positions GROUP BY epoch, partition"
    ).result_rows
    before = {(epoch, partition): last for epoch, partition, last in held}
    ends: dict[tuple[str, int], int] = {}
    for one in listed:
        ends[one.epoch, one.partition] = max(one.offset, ends.get((one.epoch, one.partition), 0))
    # A worker's batches follow each other: each begins where the one before has ended.
    rows = [
        (epoch, "usage.events.v1", partition, before.get((epoch, partition), -1) + 1, last)
        for (epoch, partition), last in ends.items()
        if last > before.get((epoch, partition), -1)
    ]
    if rows:
        tables.client.insert("positions", rows, column_names=["epoch", "topic", "partition", "first", "last"])
