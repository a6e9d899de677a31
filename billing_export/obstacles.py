"""What must be mended before a run may be claimed: meters that were not filled, events that stand there twice.

Both would be billed as wrong numbers that `metering verify` finds later, when the lines are frozen. Reads only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export.event_store import Repeat, has_repeats, repeats, time_text
from billing_export.run import Run, RunKind
from billing_export.scope import terms
from schemas.catalog import AppliedCatalog
from schemas.charges import DynamicCharge, MeteredCharge
from schemas.errors import RunError
from schemas.meter import MeterVersion
from schemas.topics import USAGE_EVENTS
from schemas.usage_event import TIME_MAX, TIME_MIN
from schemas.usage_query import Cut

SHOWN_MAX: Final = 3
SUBJECTS_SIZE_MAX: Final = 30_000
"""Most characters of subjects that a question names; with more it is asked about everybody."""

_STARTS: Final = """
SELECT epoch, partition, catalog_version, min(first) FROM positions WHERE topic = {topic:String}
GROUP BY epoch, partition, catalog_version
"""
_CLAIMED: Final = "SELECT DISTINCT epoch, partition, catalog_version, first FROM catalog_starts"
_FILLED: Final = "SELECT meter, meter_version, epoch, partition, until FROM meter_fills FINAL"
_UNSEEN: Final = """
SELECT epoch, partition, offset FROM events
WHERE type = {type:String} AND time >= {start:DateTime64(6, 'UTC')} AND time < {end:DateTime64(6, 'UTC')}
  AND arrayExists(one -> one.1 = epoch AND one.2 = partition AND offset >= one.3 AND offset < one.4,
                  {ranges:Array(Tuple(String, UInt32, UInt64, UInt64))})
LIMIT 1
"""

Starts = dict[tuple[str, int], dict[int, int]]
"""Of each epoch and partition: catalog version → first offset decided with it."""


class Unfilled(msgspec.Struct, frozen=True, kw_only=True):
    """A meter, and the place of an event that it has not seen."""

    meter: str
    epoch: str
    partition: int
    offset: int


Asked = tuple[Cut, tuple[str, ...]]
"""A cut, and the subjects whose events were looked at; none for all."""


def obstacles(client: Client, run: Run, catalog: AppliedCatalog, single: set[Asked]) -> list[RunError]:
    """Why a run of this cut and catalog must not be claimed; empty when it may be.

    In `single` it remembers where no event stands twice: that takes a look at every event, and no cut changes.
    """
    found = [
        RunError(
            f"meter {one.meter} was applied after events that it has not counted, such as the one at offset "
            f"{one.offset} of partition {one.partition}",
            where=f"period {run.period}",
            fix=f"Fill it from history with `metering rebuild {one.meter}`, then close",
        )
        for one in unfilled(client, run.cut, catalog)
    ]
    if twice := doubled(client, run, catalog, single):
        named = ", ".join(f"{one.subject} / {one.source} / {one.id}" for one in twice[:SHOWN_MAX])
        more = f" and {len(twice) - SHOWN_MAX:,} more" if len(twice) > SHOWN_MAX else ""
        found.append(
            RunError(
                f"{len(twice):,} {'event was' if len(twice) == 1 else 'events were'} accepted more than once and would "
                f"be billed as often: {named}{more}",
                where=f"period {run.period}",
                fix="Stop the workers, run `metering repair`, start them, then close",
            )
        )
    return found


def doubled(client: Client, run: Run, catalog: AppliedCatalog, single: set[Asked]) -> list[Repeat]:
    """Identities of the customers of a run that were accepted more than once up to its cut and its periods' ends."""
    subjects = catalog.subjects_of(run.customers)
    few = subjects if sum(map(len, subjects)) <= SUBJECTS_SIZE_MAX else ()
    if (run.cut, few) in single:
        return []
    if not has_repeats(client, run.cut, few):
        single.add((run.cut, few))
        return []
    billed = terms(catalog, run.period, run.customers) if run.kind is RunKind.BILL else []
    customers = {one.customer.id for one in billed} | set(run.customers)
    end = max((one.period.end for one in billed), default=TIME_MAX)
    found: list[Repeat] = []
    for one in repeats(client, run.cut, TIME_MIN, end):
        whose = catalog.customer_of(one.subject)
        if whose is not None and whose.id in customers:
            found.append(one)
    return found


def unfilled(client: Client, cut: Cut, catalog: AppliedCatalog) -> list[Unfilled]:
    """The meters with a price that have not counted all their events up to the cut, by name, with one such event."""
    starts = _starts(client)
    filled = {tuple(row[:4]): row[4] for row in client.query(_FILLED).result_rows}
    found: dict[str, Unfilled] = {}
    for version in _priced(catalog):
        name = version.meter.name
        ranges: list[tuple[str, int, int, int]] = []
        for one in cut.positions:
            since = filled.get((name, version.version, one.epoch, one.partition), 0)
            live = [at for number, at in starts[one.epoch, one.partition].items() if number >= version.introduced_in]
            until = min([*live, one.offset + 1])
            if since < until:
                ranges.append((one.epoch, one.partition, since, until))
        if not ranges or name in found:
            continue
        parameters = {
            "type": version.meter.event_type,
            "start": time_text(version.start or TIME_MIN),
            "end": time_text(version.end or TIME_MAX),
            "ranges": ranges,
        }
        # Without FINAL: a row that stands there twice is as unseen as one that stands there once.
        for epoch, partition, offset in client.query(_UNSEEN, parameters).result_rows:
            found[name] = Unfilled(meter=name, epoch=epoch, partition=partition, offset=offset)
    return [found[name] for name in sorted(found)]


def _priced(catalog: AppliedCatalog) -> Iterator[MeterVersion]:
    """Every version of the meters that some charge is by."""
    charges = [one for plan in catalog.catalog.plans for one in plan.charges if isinstance(one, MeteredCharge)]
    names = {one.meter for one in charges} | {one.amount_meter for one in charges if isinstance(one, DynamicCharge)}
    return (one for one in catalog.meter_versions if one.meter.name in names)


def _starts(client: Client) -> Starts:
    """Where folding with each catalog version began: as claimed, or for older code as the ledger has it."""
    found: Starts = defaultdict(dict)
    for rows in (client.query(_STARTS, {"topic": USAGE_EVENTS}).result_rows, client.query(_CLAIMED).result_rows):
        for epoch, partition, version, first in rows:
            found[epoch, partition][version] = first
    return found
