"""Proves frozen runs from their events: counts everything anew at a run's cut and compares every field of every line.

Corrections are held against the frozen lines of earlier runs, so proving every run in order proves them all.
Rollups are not read. What is compared: the run's own digest, each line's document and columns, each event's digest
with its bytes, each event's columns with its document, identities that stand twice, and the ledger's sums.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Final

import msgspec
from clickhouse_connect.driver.client import Client

from billing_export import runs
from billing_export.assemble import Assembly, assemble
from billing_export.catalogs import Catalogs
from billing_export.event_store import Repeat, StoredEvent, repeats, stored_events
from billing_export.line_store import StoredLine, read_lines, stored_columns
from billing_export.log_check import LogCheck
from billing_export.parallel import in_order, workers_for
from billing_export.readings import by_customers
from billing_export.recount import Recount, Recounted
from billing_export.run import Run
from metering import erasure_store, group_overflows
from metering.erasure_store import Erasure
from schemas.errors import EventRejectedError, VerificationError
from schemas.line_item import LineItem, decode_line_item, encode_line_item
from schemas.usage_event import UsageEvent, decode_event, event_digest

DIFFERENCES_MAX: Final = 1_000
"""Most differences that are listed; the count of the rest is said."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was proved: `lines_count` lines from `events_count` events. `differences` is empty when all is well."""

    runs: tuple[Run, ...]
    lines_count: int
    events_count: int
    differences: tuple[str, ...]

    def raise_for_differences(self) -> None:
        """Raise VerificationError when there is any difference."""
        if self.differences:
            raise VerificationError(list(self.differences))


def verify_period(client: Client, label: str, *, on_event: Callable[[int], None] = lambda _: None) -> Verified:
    """Recompute the frozen runs of a period and compare. `on_event` hears how many events of a run were read.

    Begins again when a customer was erased meanwhile. Raises RunError when the period is not closed, and
    ErasureUnderWayError while a customer is being erased.
    """
    return together(verify_runs(client, runs.frozen(client, label), on_event=on_event))


def verify_runs(
    client: Client,
    frozen: Sequence[Run],
    *,
    connect_again: Callable[[], Client] | None = None,
    on_event: Callable[[int], None] = lambda _: None,
) -> Iterator[Verified]:
    """Prove frozen runs, in the order given.

    With `connect_again`, which opens another connection to the same database, several processes share the work; then
    `on_event` hears nothing.
    """
    here = Prover(client, on_event)
    workers = 1 if connect_again is None else workers_for(len(frozen))
    if connect_again is None or workers == 1:
        return map(here.prove, frozen)

    def begin() -> Callable[[int], Verified]:
        prover = Prover(connect_again())
        return lambda number: prover.prove(frozen[number])

    return in_order(len(frozen), workers, begin, lambda number: here.prove(frozen[number]))


def together(proved: Iterable[Verified]) -> Verified:
    """What was proved of several runs, as one. A difference that concerns the whole log is said once."""
    done = list(proved)
    return Verified(
        runs=tuple(run for one in done for run in one.runs),
        lines_count=sum(one.lines_count for one in done),
        events_count=sum(one.events_count for one in done),
        differences=tuple(dict.fromkeys(text for one in done for text in one.differences)),
    )


class Prover:
    """Proves runs over one connection; keeps what it found out about the log for the next run with the same cut."""

    def __init__(self, client: Client, on_event: Callable[[int], None] = lambda _: None) -> None:
        self._client = client
        self._on_event = on_event
        self._log: LogCheck | None = None
        self._erasures: Sequence[Erasure] = ()

    def prove(self, run: Run) -> Verified:
        """Prove a frozen run; anew when a customer was erased meanwhile."""
        erasure_store.refuse_while_erasing(self._client, "verify")
        erasures = erasure_store.listed(self._client)
        if self._log is None or self._log.cut != run.cut or self._erasures != erasures:
            self._log, self._erasures = LogCheck(self._client, run.cut), erasures
        proved = verify_run(self._client, run, self._log, on_event=self._on_event)
        if erasure_store.listed(self._client) != erasures:
            return self.prove(run)
        return proved


def verify_run(
    client: Client, run: Run, log: LogCheck, *, on_event: Callable[[int], None] = lambda _: None
) -> Verified:
    """Recompute one frozen run: collect what its lines ask of the usage, count that from the events, compare."""
    found = _Differences()
    for text in log.differences:
        found.add(text)
    assembly = Assembly(client, run, Catalogs(client))
    asked = by_customers(question for part in assembly.parts() for work in part for question in work.questions())
    recount = Recount(assembly.catalogs.load, asked)
    if recount.span is not None:
        recount.overflows = group_overflows.read(client, recount.meters, *recount.span)
    events_count = _count_events(client, run, recount, log, found, on_event=on_event)
    expected = assemble(assembly, recount)
    lines_count = _compare_lines(client, run, expected, found)
    return Verified(runs=(run,), lines_count=lines_count, events_count=events_count, differences=found.listed())


class _Differences:
    """Collects differences up to a bound."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._count = 0

    def add(self, text: str) -> None:
        self._count += 1
        if len(self._texts) < DIFFERENCES_MAX:
            self._texts.append(text)

    def listed(self) -> tuple[str, ...]:
        rest = self._count - len(self._texts)
        return (*self._texts, f"and {rest} more") if rest else tuple(self._texts)


def _count_events(
    client: Client,
    run: Run,
    recount: Recount,
    log: LogCheck,
    found: _Differences,
    *,
    on_event: Callable[[int], None],
) -> int:
    """Feed every event of the run to the recount, each identity once; report events that are not what they say."""
    if recount.span is None:
        return 0
    start, end = recount.span
    later = _later_places(repeats(client, run.cut, start, end) if log.may_repeat else (), found)
    count = 0
    for stored in stored_events(client, run.cut, start, end, recount.event_types):
        count += 1
        on_event(count)
        if stored.place in later:
            continue
        event = _checked(stored, found)
        if event is not None:
            missing = log.corrections.missing(event)
            if missing is not None:
                found.add(missing)
            recount.add(
                Recounted(
                    event=event,
                    epoch=stored.epoch,
                    partition=stored.partition,
                    offset=stored.offset,
                    digest=stored.digest if stored.receipt_digest else event_digest(stored.raw),
                )
            )
    return count


def _later_places(repeated: Sequence[Repeat], found: _Differences) -> set[tuple[str, int, int]]:
    """The places of events that repeat an earlier one, each repeated identity reported."""
    for one in repeated:
        places = ", ".join(_place_text(place) for place in one.places)
        found.add(
            f"event {one.subject} / {one.source} / {one.id} stands {len(one.places)} times, expected once: {places}"
        )
    return {place for one in repeated for place in one.places[1:]}


def _checked(stored: StoredEvent, found: _Differences) -> UsageEvent | None:
    """The event that the row's bytes say; its columns and the digest of its bytes must say the same."""
    if event_digest(stored.raw) != (stored.receipt_digest or stored.digest):
        found.add(f"{_event_name(stored)}: its stored digest is not that of its bytes")
    try:
        event = decode_event(stored.raw)
    except EventRejectedError as error:
        found.add(f"{_event_name(stored)}: its bytes are no valid event ({error})")
        return None
    for column in ("subject", "source", "id", "type", "time"):
        stands, says = getattr(stored, column), getattr(event, column)
        if stands != says:
            found.add(f"{_event_name(stored)}: {column} is {stands!s} in the table but {says!s} in its bytes")
    return event


def _event_name(stored: StoredEvent) -> str:
    return f"event {stored.subject} / {stored.source} / {stored.id} ({_place_text(stored.place)})"


def _compare_lines(client: Client, run: Run, expected: Iterator[LineItem], found: _Differences) -> int:
    """Pair stored and expected lines by id and compare them; returns the number of stored lines.

    Both come in the run's order, so what waits for its partner is as much as the two are out of step.
    """
    digest = hashlib.sha256()
    count = 0
    stored_waiting: dict[str, StoredLine] = {}
    expected_waiting: dict[str, LineItem] = {}
    for line, item in zip_longest(read_lines(client, run), expected):
        if line is not None:
            if line.line_number != count:
                found.add(f"run {run.id}: line number {line.line_number} stands where {count} is expected")
            count += 1
            digest.update(line.document.encode() + b"\n")
            _pair(run, line, stored_waiting, expected_waiting, found)
        if item is not None:
            expected_waiting[item.id] = item
            if item.id in stored_waiting:
                _compare_line(run, stored_waiting.pop(item.id), expected_waiting.pop(item.id), found)
    for item in expected_waiting.values():
        found.add(f"{_name(item)}: missing, its events say quantity {item.quantity}, amount {item.amount}")
    for line in stored_waiting.values():
        found.add(
            f"line {line.columns['id']} of customer {line.columns['customer']}: nothing in the events calls for it"
        )
    if (run.lines_count, run.lines_digest) != (count, digest.hexdigest()):
        found.add(
            f"run {run.id}: {count} lines with digest {digest.hexdigest()} are stored, {run.lines_count} with digest "
            f"{run.lines_digest} were frozen"
        )
    return count


def _pair(
    run: Run,
    line: StoredLine,
    stored_waiting: dict[str, StoredLine],
    expected_waiting: dict[str, LineItem],
    found: _Differences,
) -> None:
    line_id = str(line.columns["id"])
    if line_id in stored_waiting:
        found.add(f"line {line_id}: stands twice in run {line.columns['run']}")
    elif line_id in expected_waiting:
        _compare_line(run, line, expected_waiting.pop(line_id), found)
    else:
        stored_waiting[line_id] = line


def _compare_line(run: Run, line: StoredLine, expected: LineItem, found: _Differences) -> None:
    """Report each field of the document, and each column of the row, that is not what the events say."""
    name = _name(expected)
    if line.document.encode() != encode_line_item(expected):
        try:
            document = decode_line_item(line.document)
        except msgspec.MsgspecError as error:
            found.add(f"{name}: its document is no line item ({error})")
            return
        fields = [
            f"{field} is {getattr(document, field)!s}, expected {getattr(expected, field)!s}"
            for field in LineItem.__struct_fields__
            if getattr(document, field) != getattr(expected, field)
        ]
        found.add(f"{name}: {'; '.join(fields) or 'its document is written in another way'}")
    texts = stored_columns(run, expected, line.line_number)
    columns = [
        f"{column} is {stands!s}, expected {texts[column]!s}"
        for column, stands in line.columns.items()
        if stands != texts[column]
    ]
    if columns:
        found.add(f"{name}: in its columns {'; '.join(columns)}")


def _name(item: LineItem) -> str:
    values = ", ".join(f"{name}={value}" for name, value in item.dimensions.items())
    return f"line {item.id} ({item.customer} / {item.subscription} / {item.charge}{f' / {values}' if values else ''})"


def _place_text(place: tuple[str, int, int]) -> str:
    epoch, partition, offset = place
    return f"log {epoch}, partition {partition}, offset {offset}"
