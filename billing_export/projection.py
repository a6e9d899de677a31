"""From what was used so far to what will be used by the end of a period. Pure.

The method is simple, so that anybody can check it. A reading covers the time [start, end) in which its charge runs:

- a count or a sum grows as it did so far: times the whole time over the elapsed time; a count to a whole number;
- a maximum, minimum, average, latest value or number of members stays what it is;
- a balance stays what it is to the end;
- of a charge by hours or days, those that are over repeat, in their order, and the present one is filled up;
- of a charge by events, the events so far repeat, in their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import cycle, islice, pairwise
from typing import Final

import msgspec

from billing_export.money import as_quantity
from billing_export.readings import Ask, Reading, Used
from metering.usage.windows import from_us, plan_windows
from schemas.meter import Aggregation
from schemas.quantity import ZERO, add
from schemas.usage_query import Window
from schemas.zone import zone_of

_ADDITIVE: Final = frozenset({Aggregation.COUNT, Aggregation.SUM})
_INSTANT: Final = timedelta(microseconds=1)


def until(reading: Reading, now: datetime) -> Reading | None:
    """The part of a reading that is in the past; None where nothing of it is."""
    if reading.end <= now:
        return reading
    return msgspec.structs.replace(reading, end=now) if reading.start < now else None


def ended(used: Sequence[Used], now: datetime) -> list[Used]:
    """Changes of balances up to `now`, and one more for each balance that ends it there: later time counts nothing."""
    balances: dict[tuple[str, ...], Used] = {}
    for one in used:
        key = tuple(one.dimensions.values())
        known = balances.get(key)
        before = ZERO if known is None else known.quantity
        balances[key] = msgspec.structs.replace(one, at=now, quantity=add(before, one.quantity), events_count=1)
    ends = [msgspec.structs.replace(one, quantity=-one.quantity, digest=0) for one in balances.values() if one.quantity]
    return [*used, *ends]


def projected(reading: Reading, aggregation: Aggregation, used: Sequence[Used], now: datetime) -> list[Used]:
    """What a reading will be at its end, from what was read of it until `now`; not for balances, which stay."""
    if reading.end <= now or reading.start >= now:
        return list(used)
    growth = Fraction((reading.end - reading.start) // _INSTANT, (now - reading.start) // _INSTANT)
    by_dimensions: dict[tuple[str, ...], list[Used]] = {}
    for one in used:
        by_dimensions.setdefault(tuple(one.dimensions.values()), []).append(one)
    match reading.ask:
        case Ask.TOTAL:
            return [_grown(one, aggregation, growth) for one in used]
        case Ask.EVENTS:
            return [
                one for events in by_dimensions.values() for one in islice(cycle(events), round(len(events) * growth))
            ]
        case Ask.HOUR | Ask.DAY:
            return [
                one
                for windows in by_dimensions.values()
                for one in _windows(reading, aggregation, {one.at: one for one in windows}, now)
            ]


def _grown(one: Used, aggregation: Aggregation, growth: Fraction) -> Used:
    quantity = one.quantity
    if aggregation is Aggregation.COUNT:
        quantity = Decimal(round(Fraction(quantity) * growth))
    elif aggregation in _ADDITIVE:
        quantity = as_quantity(Fraction(quantity) * growth)
    return msgspec.structs.replace(one, quantity=quantity, events_count=round(one.events_count * growth))


def _windows(reading: Reading, aggregation: Aggregation, used: dict[datetime, Used], now: datetime) -> Iterator[Used]:
    """The hours or days of a reading: those that are over, the present one filled up, those to come like the past."""
    edges_us = plan_windows(reading.start, reading.end, Window(reading.ask.value), zone_of(reading.timezone)).edges_us
    edges = [from_us(edge_us) for edge_us in edges_us]
    found: list[Used | None] = []
    over = sum(end <= now for end in edges[1:])
    for place, (start, end) in enumerate(pairwise(edges)):
        one = used.get(start)
        if place == over and one is not None and start < now:
            one = _grown(one, aggregation, Fraction((end - start) // _INSTANT, (now - start) // _INSTANT))
        elif place > over:
            pattern = found[(place - over - 1) % over] if over else found[0]
            one = None if pattern is None else msgspec.structs.replace(pattern, at=start)
        found.append(one)
    return (one for one in found if one is not None)
