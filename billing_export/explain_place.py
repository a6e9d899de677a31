"""Finds what a line was made from: the segment it prices, or the plan whose promise it tops up. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from billing_export.assemble import Assembly, CustomerWork
from billing_export.bill import TermWork, advance_lines
from billing_export.lines import Made, root_id
from billing_export.pricing import Priceable, Priced, lines_of, priced
from billing_export.readings import Answers
from billing_export.run import Run
from billing_export.segments import segments
from schemas.catalog import AppliedCatalog
from schemas.charges import Timing
from schemas.line_item import LineItem
from schemas.period import period_of
from schemas.subscription_life import Phase, phases


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a line of a charge comes from: what is priced, from what, and the line that gives."""

    catalog: AppliedCatalog
    priceable: Priceable
    priced: Priced
    made: Made


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What a line that tops a plan up comes from: the phases with the plan, and the lines that count for it."""

    held: tuple[Phase, ...]
    counted: tuple[Made, ...]


def place_of(assembly: Assembly, work: CustomerWork, answers: Answers, line: LineItem) -> Place | None:
    """Where a line, or for a correction the first line of its chain, comes from; None where nothing calls for it."""
    root = root_id(line)
    for run, catalog, priceable in _candidates(assembly, work, line):
        if priceable.segment.charge.id != line.charge:
            continue
        made = lines_of(run, catalog, priceable, answers)
        for one, part in zip(made, priced(catalog, priceable, answers), strict=True):
            if one.item.id == root:
                return Place(catalog=catalog, priceable=priceable, priced=part, made=one)
    return None


def promise_of(assembly: Assembly, work: CustomerWork, answers: Answers, line: LineItem) -> Promise | None:
    """What a true-up comes from; None where nothing calls for it."""
    for run, catalog, term in _terms(assembly, work, line):
        if (term.term.subscription.id, term.term.period.label) != (line.subscription, line.period):
            continue
        held = tuple(one for one in term.phases if not one.is_trial and one.plan.id == line.plan)
        counted = [
            one
            for priceable in term.priceables
            if priceable.segment.last.plan.id == line.plan
            for one in lines_of(run, catalog, priceable, answers)
        ]
        counted += [one.line for one in advance_lines(run, catalog, held) if one.phase.plan.id == line.plan]
        if held:
            return Promise(held=held, counted=tuple(counted))
    return None


def _terms(assembly: Assembly, work: CustomerWork, line: LineItem) -> Iterator[tuple[Run, AppliedCatalog, TermWork]]:
    """What was rated for a customer: the run's own terms, or those of an earlier run for a line that corrects it."""
    if line.adjustment is None:
        own = assembly.catalogs.load(assembly.run.catalog_version)
        yield from ((assembly.run, own, one) for one in work.works)
        return
    for rerate in work.rerates:
        catalog = assembly.catalogs.load(rerate.run.catalog_version)
        yield from ((rerate.run, catalog, one) for one in rerate.works)


def _candidates(
    assembly: Assembly, work: CustomerWork, line: LineItem
) -> Iterator[tuple[Run, AppliedCatalog, Priceable]]:
    for run, catalog, term in _terms(assembly, work, line):
        yield from ((run, catalog, one) for one in term.priceables)
    own = assembly.catalogs.load(assembly.run.catalog_version)
    subscription = own.subscriptions.get(line.subscription)
    if subscription is not None:
        in_advance: Sequence[Phase] = phases(own, subscription, period_of(line.period, line.timezone))
        for segment in segments(in_advance, Timing.ADVANCE):
            yield assembly.run, own, Priceable(segment=segment, needs=None)
