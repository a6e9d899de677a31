"""What customers use day by day, for drops and spikes: days are read once, and those that are judged follow what moves.

A turn reads days for a limited time. Of a day of which something was not read yet, or up to which the log has not been
counted, nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Final

import msgspec
import structlog
from clickhouse_connect.driver.client import Client

from billing_export.alerts.log_reach import LogEnds, LogReach
from billing_export.alerts.periods import next_quarter
from billing_export.alerts.weekdays import Day, DayUse, day_alerts, days_before, local_day, open_days
from metering.clock import Clock
from metering.entitlements.progress import Follower, Look, Place, moved
from metering.entitlements.reader import NAMED_MAX, Held, used_by
from schemas.alert import OF_A_DAY, Alert, AlertRule, Watch
from schemas.catalog import AppliedCatalog
from schemas.errors import LimitError, RequestError
from schemas.meter import Aggregation
from schemas.quantity import ZERO
from schemas.zone import zone_of

TURN_S_MAX: Final = 1.0
"""How long a turn may read days; those that are left come in the next."""

_log = structlog.get_logger(__name__)


class DayKey(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Usage of a meter on a day in a zone."""

    meter: str
    zone: str
    day: date


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule has to know now: a day of a meter in a zone, and the customers it is about."""

    rule: AlertRule
    meter: str
    zone: str
    day: Day
    customers: frozenset[str]


class DayWatch:
    """Finds drops and spikes. `ends` says how far the log is, `rows_max` bounds the customers that a day is read of.

    Made anew after an error: what had moved when it came would be missing.
    """

    def __init__(self, client: Client, clock: Clock, *, ends: Callable[[], LogEnds], rows_max: int) -> None:
        self._client = client
        self._clock = clock
        self._reach = LogReach(ends, clock)
        self._rows_max = rows_max
        self._version = 0
        self._asked: list[Asked] = []
        self._asked_until: datetime | None = None
        self._used: dict[DayKey, dict[str, Decimal] | None] = {}
        self._stale: set[DayKey] = set()
        self._follower = Follower()
        self._ledger: Mapping[Place, int] = {}
        self._moved: dict[DayKey, set[str]] = {}
        self._whole: set[DayKey] = set()
        self._done: set[tuple[str, DayKey]] = set()

    def found(self, held: Held) -> Iterator[Alert]:
        """Every alert that holds by what was read since the last turn, and of days that can be judged since then."""
        catalog = held.catalog
        if catalog is None:
            return
        if catalog.version != self._version or self._asked_until is None or held.as_of >= self._asked_until:
            rules = [one for one in catalog.catalog.alerts if one.watch in OF_A_DAY]
            self._asked, self._asked_until = list(asked_now(catalog, rules, held.as_of)), next_quarter(held.as_of)
        if catalog.version != self._version:
            self._used, self._done, self._version = {}, set(), catalog.version
        if not self._asked:
            return
        self._refresh(catalog)
        for one in self._asked:
            judged, *_ = keys = keys_of(one)
            since = one.day.judged_from if one.rule.watch is Watch.DROP else one.day.start
            is_read = all(self._used.get(key) is not None for key in keys)
            if not is_read or held.as_of < since or not self._reach.has(since, self._ledger):
                continue
            is_seen = (one.rule.id, judged) in self._done and self._whole.isdisjoint(keys)
            self._done.add((one.rule.id, judged))
            for customer in one.customers & self._moved.get(judged, set()) if is_seen else one.customers:
                used, *before = ((self._used[key] or {}).get(customer, ZERO) for key in keys)
                use = DayUse(
                    customer=customer,
                    meter=one.meter,
                    unit=catalog.meters[one.meter].unit,
                    day=one.day,
                    used=used,
                    before=tuple(before),
                )
                yield from day_alerts(one.rule, use, as_of=held.as_of)

    def _refresh(self, catalog: AppliedCatalog) -> None:
        """Read what is missing, what has moved of the days that are judged, and from time to time everything."""
        begun_at_s = self._clock.monotonic_s()
        needed = dict.fromkeys(key for one in self._asked for key in keys_of(one))
        self._used = {key: value for key, value in self._used.items() if key in needed}
        self._moved, self._whole = {}, set()
        look = self._follower.look(self._client, begun_at_s)
        self._ledger = look.ends
        if look.is_whole:
            self._stale = set(self._used)
        judged = {keys_of(one)[0] for one in self._asked} & self._used.keys()
        if look.has_moved and judged:
            self._read_moved(catalog, judged, look)
        for key in [*(key for key in needed if key not in self._used), *sorted(self._stale & needed.keys())]:
            if self._clock.monotonic_s() - begun_at_s > TURN_S_MAX:
                break
            self._used[key] = self._read(catalog, key)
            self._stale.discard(key)
            self._whole.add(key)

    def _read_moved(self, catalog: AppliedCatalog, judged: Collection[DayKey], look: Look) -> None:
        meters, start = {key.meter for key in judged}, min(bounds(key)[0] for key in judged)
        customers: dict[tuple[str, str], set[str]] = {}
        for meter, subject in moved(self._client, look, meters=meters, start=start):
            owner = catalog.customer_of(subject)
            if owner is not None:
                customers.setdefault((meter, owner.timezone), set()).add(owner.id)
        for key in sorted(judged):
            some, known = customers.get((key.meter, key.zone)), self._used[key]
            if some is None or known is None:
                continue
            if len(some) > NAMED_MAX:
                self._used[key] = self._read(catalog, key)
            else:
                known.update(self._read(catalog, key, some) or {})
            self._moved[key] = some

    def _read(
        self, catalog: AppliedCatalog, key: DayKey, customers: Collection[str] | None = None
    ) -> dict[str, Decimal] | None:
        """What the zone's customers used; of all only those who did. None where the meter has no number for the day."""
        start, end = bounds(key)
        if start == end:
            return {}
        rows_max = self._rows_max
        try:
            used = used_by(self._client, catalog, key.meter, start, end, customers=customers, rows_max=rows_max)
        except LimitError:
            raise
        except RequestError as error:
            _log.warning("alerts_day_not_countable", meter=key.meter, day=key.day.isoformat(), detail=str(error))
            return None
        return {who: quantity for who, quantity in used.items() if catalog.customers[who].timezone == key.zone}


def asked_now(catalog: AppliedCatalog, rules: Sequence[AlertRule], now: datetime) -> Iterator[Asked]:
    """What the rules have to know now. Pure."""
    for rule in rules:
        zones: dict[str, list[str]] = {}
        for name in rule.customers or catalog.customers:
            zones.setdefault(catalog.customers[name].timezone, []).append(name)
        for meter in [rule.meter] if rule.meter is not None else catalog.meters:
            if catalog.meters[meter].aggregation is not Aggregation.TIME_WEIGHTED:
                for zone, customers in zones.items():
                    for day in open_days(rule, zone_of(zone), now):
                        yield Asked(rule=rule, meter=meter, zone=zone, day=day, customers=frozenset(customers))


def keys_of(one: Asked) -> list[DayKey]:
    """The day that is judged, and then those it is compared with, the latest first. Pure."""
    days = [one.day.day, *days_before(one.day.day, one.rule.weeks)]
    return [DayKey(meter=one.meter, zone=one.zone, day=day) for day in days]


def bounds(key: DayKey) -> tuple[datetime, datetime]:
    """The day's [start, end) in UTC. Pure."""
    day = local_day(key.day, zone_of(key.zone))
    return day.start, day.end
