"""Builds the statements an answer is read with. Pure.

Values go in as server-side parameters, fragments come from this module alone: no text of a question becomes SQL.
"""

# ruff: noqa: S608 - see above
from __future__ import annotations

from typing import Any, Final

import msgspec

from metering.usage.owners import join_owners, owners, who, whose
from metering.usage.question import Question
from schemas.meter import WINDOW_S, Aggregation


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """SQL text and the values of its parameters."""

    sql: str
    parameters: dict[str, Any]


SORT_BYTES_MAX: Final = 512 * 1024 * 1024
"""What ClickHouse may hold in memory to sort events; the rest goes to its disk."""

_CUT: Final = """(
    SELECT place.1 AS epoch, place.2 AS partition, place.3 AS last_offset
    FROM (
        SELECT arrayJoin(arrayZip({cut_epochs:Array(String)}, {cut_partitions:Array(UInt32)},
            {cut_offsets:Array(Int64)})) AS place
    )
)"""

_WINDOW: Final = """{run_starts:Array(Int64)}[arrayLastIndex(s -> s <= toUnixTimestamp(one.window_start),
        {run_starts:Array(Int64)}) AS run]
    + intDiv(toUnixTimestamp(one.window_start) - {run_starts:Array(Int64)}[run], {run_steps:Array(Int64)}[run])
    * {run_steps:Array(Int64)}[run]"""
"""Start of the answer's window that a rollup window lies in, in seconds since 1970."""

_FULL_WINDOWS: Final = """one.meter = {meter:String}
    AND one.window_start >= toDateTime({full_from:Int64}, 'UTC')
    AND one.window_start < toDateTime({full_to:Int64}, 'UTC')
    AND NOT has({split_quarters:Array(Int64)}, toInt64(toUnixTimestamp(one.window_start)))
    AND arrayExists((number, start_s, end_s) -> one.meter_version = number
            AND toUnixTimestamp(one.window_start) >= start_s AND toUnixTimestamp(one.window_start) < end_s,
        {versions:Array(UInt32)}, {version_starts:Array(Int64)}, {version_ends:Array(Int64)})"""
"""Rollup windows that lie inside one window of the answer, each by the version of the meter in force then."""

_NOT_RECOUNTED: Final = """
    AND (one.subject, toInt64(toUnixTimestamp(one.window_start))) NOT IN {recounted:Array(Tuple(String, Int64))}"""
"""Leaves out the windows of subjects that only events can answer for."""

_QUARTER: Final = "toStartOfFifteenMinutes(one.time)"
_ASKED: Final = "arrayMap(name -> one.dimensions[name], {group_by:Array(String)})"

_SETTINGS: Final = "SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1"
"""Safe: each table's partition is a function of its sorting key, or of the record that the key names; and of the
conditions ClickHouse takes only those on the sorting key first, which all versions of a row share."""


def rollups_statement(question: Question) -> Statement:
    """One row per (who, window, dimensions): the merged state of the rollups.

    With a cut there is one more row for each key that has gone on beyond it: `open` is 1, the columns that start
    with `open_` name the key, and its state is not that of the cut.
    """
    cut = question.query.cut is not None
    sql = f"""
SELECT {who(question)} AS who, {_WINDOW} AS window_s, {_ASKED} AS asked,
    toUInt8({"one.position > cut.last_offset" if cut else "0"}) AS open,
    if(open, one.subject, '') AS open_subject,
    if(open, toInt64(toUnixTimestamp(one.window_start)), 0) AS open_window_s,
    if(open, one.meter_version, 0) AS open_version,
    if(open, arrayMap(name -> toString(name), mapKeys(one.dimensions)), emptyArrayString()) AS open_names,
    if(open, mapValues(one.dimensions), emptyArrayString()) AS open_values,
    if(open, toString(one.epoch), '') AS open_epoch,
    if(open, one.partition, 0) AS open_partition,
    if(open, one.position_first, 0) AS open_position_first,
    sum(one.events_count) AS events,
    toString(sum(one.value_sum)) AS total,
    toString(min(one.value_min)) AS smallest,
    toString(max(one.value_max)) AS greatest,
    {_latest(question)},
    toString(sum(one.digest)) AS digests,
    {_moment(question)} AS first_moment
FROM rollups AS one FINAL{_joins(question)}{whose(question, "PREWHERE")}
WHERE {_full_windows(question)}{" AND one.position_first <= cut.last_offset" if cut else ""}
GROUP BY who, window_s, asked, open, open_subject, open_window_s, open_version, open_names, open_values, open_epoch,
    open_partition, open_position_first
{_SETTINGS}"""
    return Statement(sql=sql, parameters=_parameters(question))


def members_statement(question: Question, *, any_gone: bool) -> Statement:
    """One row per (who, window, dimensions): the number of distinct members in full rollup windows."""
    sql = f"""
SELECT {who(question)} AS who, {_WINDOW} AS window_s, {_ASKED} AS asked, uniqExact(one.member) AS members
FROM {_members(question, "", any_gone=any_gone)}
GROUP BY who, window_s, asked
{_SETTINGS}"""
    return Statement(sql=sql, parameters=_parameters(question))


def recurring_members_statement(question: Question, *, any_gone: bool) -> Statement:
    """One row per (who, window, dimensions, member) of full rollup windows, of members that a split one has too.

    A member on both sides of a boundary must be counted once. More rows than needed may come: compare them whole.
    """
    recounted = ""
    if question.recounted:
        recounted = """
                OR (subject, toInt64(toUnixTimestamp(window_start))) IN {recounted:Array(Tuple(String, Int64))}"""
    recurring = f"""
        AND one.member IN (
            SELECT member FROM members
            WHERE meter = {{meter:String}}
                AND (has({{split_quarters:Array(Int64)}}, toInt64(toUnixTimestamp(window_start))){recounted}))"""
    sql = f"""
SELECT DISTINCT {who(question)} AS who, {_WINDOW} AS window_s, {_ASKED} AS asked, one.member AS member
FROM {_members(question, recurring, any_gone=any_gone)}
{_SETTINGS}"""
    return Statement(sql=sql, parameters=_parameters(question))


def any_gone_statement(question: Question) -> Statement:
    """Whether members of the meter ever went away again, in which case it takes more to say who is there."""
    sql = "SELECT count() > 0 FROM (SELECT 1 FROM members WHERE meter = {meter:String} AND since > 0 LIMIT 1)"
    return Statement(sql=sql, parameters={"meter": question.query.meter})


def corrected_elsewhere_statement() -> Statement:
    """Whether a correction ever took an event out from another log or partition; hardly ever, and quick to say."""
    sql = """
SELECT 1 FROM corrections WHERE event_known AND (event_epoch, event_partition) != (epoch, partition) LIMIT 1"""
    return Statement(sql=sql, parameters={})


def recounted_statement(question: Question) -> Statement:
    """(subject, rollup window) of events that a correction beyond the cut takes out from another log or partition.

    Within a partition the position of a rollup says whether a correction is in it; one from elsewhere leaves no trace
    there, so what it touched is counted from events.
    """
    sql = f"""
SELECT DISTINCT one.subject AS subject, toInt64(toUnixTimestamp(toStartOfFifteenMinutes(one.event_time))) AS window_s
FROM corrections AS one FINAL
WHERE one.event_known AND (one.event_epoch, one.event_partition) != (one.epoch, one.partition)
    AND one.event_type IN {{types:Array(String)}}
    AND one.event_time >= fromUnixTimestamp64Micro({{start_us:Int64}}, 'UTC')
    AND one.event_time < fromUnixTimestamp64Micro({{end_us:Int64}}, 'UTC')
    AND NOT arrayExists((epoch, partition, last_offset) -> one.epoch = epoch AND one.partition = partition
            AND one.offset <= last_offset,
        {{cut_epochs:Array(String)}}, {{cut_partitions:Array(UInt32)}}, {{cut_offsets:Array(Int64)}}){whose(question)}
ORDER BY subject, window_s"""
    return Statement(sql=sql, parameters=_parameters(question))


def events_statement(question: Question, *, everything: bool, in_order: bool = False) -> Statement:
    """The events an answer is counted from: all of the range, or only what rollups cannot say.

    With `in_order` they come by who, then time, then place in the log; else in no order.

    The latter are those in split rollup windows and, with a cut, those of keys that have gone on beyond it; there
    may be more of these than the rollups' statement named, because the log goes on while two statements run.
    """
    sql = f"""
SELECT {who(question)} AS who, toString(one.epoch) AS epoch, one.partition AS partition, one.offset AS offset,
    toString(one.digest) AS digest, one.raw AS raw
FROM events AS one FINAL{_joins(question)}
WHERE one.type IN {{types:Array(String)}}
    AND one.time >= fromUnixTimestamp64Micro({{start_us:Int64}}, 'UTC')
    AND one.time < fromUnixTimestamp64Micro({{end_us:Int64}}, 'UTC'){whose(question)}
    {"" if question.query.cut is None else "AND one.offset <= cut.last_offset"}
    {not_corrected(has_cut=question.query.cut is not None)}
    {"" if everything else f"AND ({_split(question)}{_open(question)}{_recounted(question)})"}
{"ORDER BY who, one.time, one.epoch, one.partition, one.offset" if in_order else ""}
{_SETTINGS}, max_bytes_before_external_sort = {SORT_BYTES_MAX}"""
    return Statement(sql=sql, parameters=_parameters(question))


def not_corrected(*, has_cut: bool) -> str:
    """The condition on `events AS one` that leaves out what corrections took out, within the cut if there is one.

    The parameters cut_epochs, cut_partitions and cut_offsets are those of a cut.
    """
    within = f" AS taken INNER JOIN {_CUT} AS place USING (epoch, partition) WHERE taken.offset <= place.last_offset"
    return f"""AND (one.subject, one.source, one.id) NOT IN (
        SELECT subject, source, id FROM corrections{within if has_cut else ""})"""


def _full_windows(question: Question) -> str:
    return _FULL_WINDOWS + (_NOT_RECOUNTED if question.recounted else "")


def _members(question: Question, more: str, *, any_gone: bool) -> str:
    """`members AS one` of full rollup windows with what is joined and asked for. With a cut: as they were then."""
    within = "" if question.query.cut is None else "\n        AND one.position <= cut.last_offset"
    asked = f"{_full_windows(question)}{whose(question)}{within}{more}"
    if not any_gone:
        return f"members AS one FINAL{_joins(question)}\nWHERE {asked}"
    cut = "" if question.query.cut is None else f"\n    INNER JOIN {_CUT} AS cut USING (epoch, partition)"
    return f"""(
    SELECT one.subject AS subject, one.window_start AS window_start, one.dimensions AS dimensions,
        one.member AS member
    FROM members AS one{cut}
    WHERE {asked}
    GROUP BY one.subject, one.window_start, one.dimensions, one.meter_version, one.epoch, one.partition,
        one.position_first, one.member
    HAVING argMax(one.gone, one.since) = 0
) AS one{join_owners(question)}"""


def _moment(question: Question) -> str:
    """Sum of value times seconds since 1970, for meters that are weighted by time."""
    if not question.has(Aggregation.TIME_WEIGHTED):
        return "'0'"
    return "toString(sum(one.value_moment + one.value_sum * toUnixTimestamp(one.window_start)))"


def _latest(question: Question) -> str:
    """The latest value and its place in the log; left out where no meter version asks for it, as it takes most time."""
    if not any(span.version.meter.aggregation is Aggregation.LATEST for span in question.spans):
        return "CAST(NULL, 'Nullable(String)') AS latest, (toInt64(0), '', 0, 0) AS moment"
    return """toString(argMax(one.value_latest,
        (one.latest_time, one.epoch, one.partition, one.latest_offset))) AS latest,
    maxIf((toUnixTimestamp64Micro(one.latest_time), toString(one.epoch), one.partition, one.latest_offset),
        one.value_latest IS NOT NULL) AS moment"""


def _split(question: Question) -> str:
    """The boundaries. Few of them are spelt out as ranges, which the time index of `events` understands."""
    split = question.plan.split_quarters_s
    if 0 < len(split) <= 2:
        return " OR ".join(
            f"(one.time >= toDateTime({{split_quarters:Array(Int64)}}[{at}], 'UTC')"
            f" AND one.time < toDateTime({{split_quarters:Array(Int64)}}[{at}] + {WINDOW_S}, 'UTC'))"
            for at in range(1, len(split) + 1)
        )
    return f"has({{split_quarters:Array(Int64)}}, toInt64(toUnixTimestamp({_QUARTER})))"


def _open(question: Question) -> str:
    if question.query.cut is None:
        return ""
    return f"""
        OR (one.subject, {_QUARTER}) IN (
            SELECT one.subject, one.window_start
            FROM rollups AS one FINAL INNER JOIN {_CUT} AS cut USING (epoch, partition)
            WHERE {_full_windows(question)}
                AND one.position > cut.last_offset AND one.position_first <= cut.last_offset)"""


def _recounted(question: Question) -> str:
    if not question.recounted:
        return ""
    return f"""
        OR (one.subject, toInt64(toUnixTimestamp({_QUARTER}))) IN {{recounted:Array(Tuple(String, Int64))}}"""


def _joins(question: Question) -> str:
    """Partitions that a cut does not name, and subjects that no customer owns, fall away here."""
    cut = "" if question.query.cut is None else f"\nINNER JOIN {_CUT} AS cut USING (epoch, partition)"
    return cut + join_owners(question)


def _parameters(question: Question) -> dict[str, Any]:
    query, plan = question.query, question.plan
    positions = () if query.cut is None else query.cut.positions
    owned = owners(question)
    return {
        "meter": query.meter,
        "catalog_version": question.catalog.version,
        "types": sorted({span.version.meter.event_type for span in question.spans}),
        "versions": [span.version.version for span in question.spans],
        "version_starts": [span.start_s for span in question.spans],
        "version_ends": [span.end_s for span in question.spans],
        "start_us": plan.edges_us[0],
        "end_us": plan.edges_us[-1],
        "full_from": plan.full_from_s,
        "full_to": plan.full_to_s,
        "split_quarters": list(plan.split_quarters_s),
        "recounted": list(question.recounted),
        "run_starts": [run.start_s for run in plan.runs],
        "run_steps": [run.step_s for run in plan.runs],
        "group_by": list(query.group_by),
        "subjects": list(query.subjects or ()),
        "customers": list(query.customers or ()) if owned is None else [],
        "owned": list(owned or ()),
        "owners": list((owned or {}).values()),
        "cut_epochs": [one.epoch for one in positions],
        "cut_partitions": [one.partition for one in positions],
        "cut_offsets": [one.offset for one in positions],
    }
