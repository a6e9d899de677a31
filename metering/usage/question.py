"""Checks a question against the catalog and settles everything its answer depends on. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise

import msgspec

from metering.usage.windows import WindowPlan, plan_windows, to_us, with_opening
from schemas.catalog import AppliedCatalog
from schemas.errors import RequestError
from schemas.meter import WINDOW_S, Aggregation, Meter, MeterVersion
from schemas.usage_event import TIME_MAX, TIME_MIN
from schemas.usage_query import UsageQuery
from schemas.zone import zone_of

NAMES_BYTES_MAX = 250_000
"""Most bytes of subjects and customers a question may list: they travel in the address of a request."""

_WINDOW_US = WINDOW_S * 1_000_000
_FOREVER_S = to_us(TIME_MAX) // 1_000_000


class VersionSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A meter version and the rollup windows it is in force for, half-open, in seconds since 1970."""

    version: MeterVersion
    start_s: int
    end_s: int


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question that can be answered: `spans` are the meter's versions within the range, oldest first.

    With `has_opening` the first window of the plan is all time before the range: what is in it is the balance that a
    `time_weighted` meter begins with. `recounted` are (subject, rollup window) that only events can answer for.
    """

    query: UsageQuery
    catalog: AppliedCatalog
    plan: WindowPlan
    spans: tuple[VersionSpan, ...]
    has_opening: bool = False
    recounted: tuple[tuple[str, int], ...] = ()

    @property
    def counts_members(self) -> bool:
        return self.has(Aggregation.UNIQUE_COUNT)

    def has(self, aggregation: Aggregation) -> bool:
        """Whether a version within the range aggregates so."""
        return any(span.version.meter.aggregation is aggregation for span in self.spans)

    def is_opening(self, window_index: int) -> bool:
        """Whether a window of the plan is the one before the range."""
        return self.has_opening and window_index == 0

    def aggregation_of(self, window_index: int) -> Aggregation:
        """The aggregation of a window; `check_question` has seen to it that there is one."""
        return self.meter_of(window_index).aggregation

    def meter_of(self, window_index: int) -> Meter:
        """A meter version in force in a window; all of them have the same aggregation and unit of time."""
        start_s = self.plan.edges_us[window_index] // 1_000_000
        held = [span for span in self.spans if span.end_s > start_s]
        return (held or self.spans)[0].version.meter


def check_question(catalog: AppliedCatalog, query: UsageQuery, *, with_balance: bool = True) -> Question:
    """The question with its windows and meter versions; without `with_balance` it never reads what was before.

    Raises RequestError: unknown meter, dimension, customer or zone; a reversed range or one outside 1970 to 2099; a
    dimension or a position of the cut named twice; a window in which the meter changes its aggregation.
    """
    versions = catalog.versions_of(query.meter)
    if not versions:
        raise _unknown("meter", query.meter, catalog.meters)
    start, end = _utc(query.start, "from"), _utc(query.end, "to")
    if start >= end:
        raise RequestError(
            f"the range is empty: from {start.isoformat()} is not before to {end.isoformat()}",
            where="from",
            fix="The range is half-open: from counts, to does not",
        )
    if start < TIME_MIN or end > TIME_MAX:
        raise RequestError("the range leaves the years 1970 to 2099, in which events can be", where="from")
    _check_names(catalog, query)
    plan = plan_windows(start, end, query.window, zone_of(query.timezone))
    spans = _spans(versions, to_us(start) // 1_000_000, -(-to_us(end) // 1_000_000))
    _check_dimensions(query, spans or tuple(_unbounded(one) for one in versions))
    _check_aggregations(query, spans, plan)
    is_weighted = any(span.version.meter.aggregation is Aggregation.TIME_WEIGHTED for span in spans)
    has_opening = with_balance and is_weighted and plan.edges_us[0] > 0
    if has_opening:
        spans = _spans_of_balance(versions, spans, plan)
        plan = with_opening(plan)
    return Question(
        query=msgspec.structs.replace(query, start=start, end=end),
        catalog=catalog,
        plan=plan,
        spans=spans,
        has_opening=has_opening,
    )


def name_bytes(name: str) -> int:
    """How much of NAMES_BYTES_MAX a name takes."""
    return len(name.encode("utf-8", "surrogatepass")) + 3


def changes_balance(meter: Meter) -> bool:
    """Whether the values of a meter version are changes of a balance, which a later version takes over."""
    return meter.aggregation in (Aggregation.TIME_WEIGHTED, Aggregation.SUM)


def _spans_of_balance(
    versions: Iterable[MeterVersion], asked: tuple[VersionSpan, ...], plan: WindowPlan
) -> tuple[VersionSpan, ...]:
    """The asked spans and what there was before them, which is read for the balance at the start of the range."""
    start_s = plan.edges_us[0] // _WINDOW_US * WINDOW_S
    before = [one for one in _spans(versions, 0, start_s) if changes_balance(one.version.meter)]
    numbers = {one.version.version for one in before}
    later = [
        msgspec.structs.replace(one, start_s=max(one.start_s, start_s))
        for one in asked
        if one.version.version not in numbers
    ]
    return (*before, *later)


def _spans(versions: Iterable[MeterVersion], start_s: int, end_s: int) -> tuple[VersionSpan, ...]:
    spans = [
        VersionSpan(
            version=one,
            start_s=0 if one.start is None else to_us(one.start) // 1_000_000,
            end_s=_FOREVER_S if one.end is None else to_us(one.end) // 1_000_000,
        )
        for one in versions
    ]
    return tuple(one for one in spans if one.start_s < end_s and one.end_s > start_s and one.start_s < one.end_s)


def _unbounded(version: MeterVersion) -> VersionSpan:
    return VersionSpan(version=version, start_s=0, end_s=_FOREVER_S)


def _utc(moment: datetime, where: str) -> datetime:
    if moment.tzinfo is None:
        raise RequestError(f"{moment.isoformat()} has no zone", where=where, fix="Add one, such as Z or -05:00")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise RequestError(f"{moment.isoformat()} is outside the calendar", where=where) from error


def _check_names(catalog: AppliedCatalog, query: UsageQuery) -> None:
    for customer in query.customers or ():
        if customer not in catalog.customers:
            raise _unknown("customer", customer, catalog.customers)
    names = (*(query.subjects or ()), *(query.customers or ()))
    size_bytes = sum(name_bytes(name) for name in names)
    if size_bytes > NAMES_BYTES_MAX:
        raise RequestError(
            f"{len(names)} subjects and customers are listed, more than fit into one question",
            where="subjects",
            fix="Ask by customer, or ask several times",
        )
    if query.cut is not None:
        places = [(one.epoch, one.partition) for one in query.cut.positions]
        if len(places) != len(set(places)):
            raise RequestError("the cut names a partition of an epoch twice", where="cut")


def _check_dimensions(query: UsageQuery, spans: tuple[VersionSpan, ...]) -> None:
    known = sorted({name for span in spans for name in span.version.meter.group_by})
    for name in query.group_by:
        if name not in known:
            raise _unknown("dimension", name, known)
        if query.group_by.count(name) > 1:
            raise RequestError(f"dimension {name!r} is named twice", where="group_by")


def _check_aggregations(query: UsageQuery, spans: tuple[VersionSpan, ...], plan: WindowPlan) -> None:
    for before, after in pairwise(spans):
        old, new = _how(before.version.meter), _how(after.version.meter)
        change_us = after.start_s * 1_000_000
        if old != new and change_us not in plan.edges_us:
            at = after.version.start.isoformat() if after.version.start else ""
            raise RequestError(
                f"meter {query.meter!r} changes from {old} to {new} at {at}, inside one of the windows",
                where="window",
                fix="Ask for the time before and after it separately",
            )


def _how(meter: Meter) -> str:
    """What must be the same all through a window for its numbers to be one."""
    is_weighted = meter.aggregation is Aggregation.TIME_WEIGHTED
    return f"{meter.aggregation.value} by the {meter.time_unit.value}" if is_weighted else meter.aggregation.value


def _unknown(what: str, name: str, known: Iterable[str]) -> RequestError:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        fix = f"Did you mean {close[0]!r}?"
    elif names:
        fix = f"Known are {', '.join(names[:10])}{', …' if len(names) > 10 else ''}"
    else:
        fix = f"There is no {what} at all"
    return RequestError(f"unknown {what} {name[:100]!r}", where=what, fix=fix)
