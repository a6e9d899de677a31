"""Prints the explanation of a line item, from the usage to the amount."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from billing_export.explain_records import EventPage, Explanation, Measured, Rating, Relation
from schemas.line_item import LineItem, TierShare
from schemas.meter import Meter

_TIMES: Final = "%Y-%m-%d %H:%M:%S"


def show_explanation(out: Console, found: Explanation) -> None:
    """Everything but the events and the verdict."""
    _show_line(out, found)
    if found.meter is not None:
        _show_meter(out, found.meter)
    if found.amounts is not None:
        _show_meter(out, found.amounts, what="Amounts: meter")
    if found.rating is not None:
        _show_rating(out, found.rating, found.line)
    for basis in found.based_on:
        _head(out, f"{basis.what.capitalize()}: {basis.total} {found.line.currency}")
        _show_relations(out, basis.lines)
    if found.reductions:
        _head(out, f"Reduced by, to {found.net_amount} {found.line.currency}")
        _show_relations(out, found.reductions)
    if len(found.chain) > 1:
        _head(out, "All that was billed for it, oldest first")
        _show_relations(out, found.chain)


def show_events(out: Console, page: EventPage, meter: Measured | None) -> None:
    """A page of events and its sums, which are those of `meter`."""
    _head(out, f"Events, page {page.page} of {page.pages}")
    if page.opening_balance is not None:
        say(out, f"The balance began at {page.opening_balance}, which adds {page.opening_adds}.")
    rows = [
        (
            f"{one.time:{_TIMES}.%f}",
            one.source,
            one.id + (f" (replaces {one.corrects})" if one.corrects else ""),
            one.value,
            one.adds,
            f"{one.partition}:{one.offset}",
        )
        for one in page.events
    ]
    show_table(out, ("time (UTC)", "source", "id", "value", "adds", "partition:offset"), rows, right=(3, 4))
    unit = (meter and meter.unit) or "units"
    say(
        out,
        f"This page adds {page.page_sum}; all {page.events_count} events on {page.pages} pages add up to "
        f"{page.quantity} {unit}, digest {page.digest}.",
    )


def show_verdict(out: Console, found: Explanation) -> None:
    """Whether the line is what its inputs say."""
    out.print()
    again, line = found.recomputed, found.line
    if again.is_equal:
        say(out, f"Computed again it is {again.amount} {line.currency}: equal to the frozen line in every field.")
        return
    say(out, f"Computed again it is NOT the frozen line of {line.amount} {line.currency}:")
    for difference in again.differences:
        say(out, f"  {difference}")


def _show_line(out: Console, found: Explanation) -> None:
    line, run = found.line, found.run
    say(out, f"{line.description or line.kind.value}: {line.amount} {line.currency}", style="bold")
    cut = ", ".join(f"{one.partition}:{one.offset}" for one in run.cut.positions) or "empty"
    rows = [
        ("line", f"{line.id}, {line.kind.value.replace('_', ' ')}, revision {line.revision}"),
        ("customer", f"{line.customer} {line.customer_name}".strip()),
        ("subscription", f"{line.subscription}, plan {line.plan} version {line.plan_version}" if line.plan else ""),
        ("charge", f"{line.charge}{f', {line.model}' if line.model else ''}" if line.charge else ""),
        ("dimensions", pairs(line.dimensions)),
        ("reference", line.reference),
        ("period", f"{line.period}, {line.period_start_local} to {line.period_end_local}, {line.timezone}"),
        ("run", f"{run.id}, catalog version {run.catalog_version}, code {run.code_version}, at {run.at:{_TIMES}} UTC"),
        ("cut", f"{cut} (partition:offset)"),
        ("quantity", f"{line.quantity} {line.unit}".strip()),
        ("amount", f"{line.amount} {line.currency}, unrounded {line.amount_unrounded}"),
    ]
    show_table(out, ("", ""), [row for row in rows if row[1]], header=False)
    for note in found.notes:
        say(out, note)


def _show_meter(out: Console, meter: Measured, *, what: str = "Meter") -> None:
    _head(out, f"{what} {meter.name}{f', in {meter.unit}' if meter.unit else ''}")
    for one in meter.versions:
        since = "" if one.start is None else f" from {one.start:{_TIMES}} UTC"
        say(out, f"Version {one.version}{since}: {_meter_text(one.meter)}")
    if meter.windows:
        rows = [(one.local, one.quantity, str(one.events_count)) for one in meter.windows]
        what = f"{meter.unit or 'units'} × {meter.time_unit}" if meter.time_unit else "quantity"  # noqa: RUF001 - times
        show_table(out, (f"{meter.window} ({meter.timezone})", what, "events"), rows, right=(1, 2))
    else:
        say(out, "Nothing was used.")
    if meter.note:
        say(out, meter.note)
    say(
        out, f"In all {meter.quantity} {meter.unit}".rstrip() + f", {meter.start:{_TIMES}} to {meter.end:{_TIMES}} UTC."
    )


def _meter_text(meter: Meter) -> str:
    """What a version of a meter counts, in words."""
    of = f" of {meter.value}" if meter.value else ""
    text = f"{meter.aggregation.value}{of} over events of type {meter.event_type}"
    for one in meter.filters:
        if one.any_of:
            text += f", where {one.field} is {' or '.join(one.any_of)}"
        if one.none_of:
            text += f", where {one.field} is not {' or '.join(one.none_of)}"
    return text


def _show_rating(out: Console, rating: Rating, line: LineItem) -> None:
    _head(out, "How it is priced")
    if rating.part_of_period != "1":
        say(out, f"For {rating.part_of_period} of the period.")
    for one in rating.rolled_over:
        say(out, f"{one.start:%Y-%m-%d}: {one.free_quantity} free, {one.quantity} used; what is left may roll over.")
    rows = [(one.what, one.quantity or "", one.amount) for one in rating.steps]
    show_table(out, ("step", "quantity", f"amount ({line.currency})"), rows, right=(1, 2))
    if rating.tiers:
        _head(out, "Tiers")
        show_table(
            out,
            ("tier", "quantity", "unit amount", "flat amount", "amount"),
            [(_tier(one), one.quantity, one.unit_amount, one.flat_amount, one.amount) for one in rating.tiers],
            right=(1, 2, 3, 4),
        )
    say(out, f"In all {rating.amount_unrounded}, rounded {rating.rounding} to {rating.amount} {line.currency}.")


def _tier(one: TierShare) -> str:
    return f"above {one.from_}" if one.up_to is None else f"{one.from_} to {one.up_to}"


def _show_relations(out: Console, lines: Sequence[Relation]) -> None:
    rows = [
        (
            one.id,
            one.run,
            one.period,
            one.kind.value.replace("_", " "),
            one.charge,
            one.reference,
            one.reason.replace("_", " "),
            "" if one.amount_before is None else f"{one.amount_before} to {one.amount_after}",
            one.amount,
        )
        for one in lines
    ]
    names = ("line", "run", "period", "kind", "charge", "reference", "reason", "from, to", "amount")
    used = [place for place in range(len(names)) if any(row[place] for row in rows)]
    show_table(
        out,
        tuple(names[place] for place in used),
        [tuple(row[place] for place in used) for row in rows],
        right=(len(used) - 1,),
    )


def pairs(values: dict[str, str]) -> str:
    """Dimensions with their values."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _head(out: Console, text: str) -> None:
    out.print()
    say(out, text, style="bold")


def say(out: Console, text: str, *, style: str = "") -> None:
    """A line of text, as it is."""
    out.print(_plain(text), style=style)


def show_table(
    out: Console,
    names: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[int] = (),
    header: bool = True,
) -> None:
    """Rows under names; the columns at the places in `right` hold numbers, which may not wrap."""
    table = Table(box=None, pad_edge=False, show_header=header)
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place in right else "left", no_wrap=place in right, overflow="fold")
    for row in rows:
        table.add_row(*[_plain(cell) for cell in row])
    out.print(table)


def _plain(text: str) -> Text:
    """Data as it is: no markup, and nothing that would steer a terminal."""
    return Text("".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text))
