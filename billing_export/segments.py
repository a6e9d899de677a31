"""What is charged for which part of a billing period: the charges of a subscription's phases. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from billing_export.lines import Owner
from schemas.charges import Charge, FlatCharge, Proration, Timing
from schemas.subscription_life import Phase


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A charge and the phases, one after the other, in which a subscription has it under one plan."""

    charge: Charge
    phases: tuple[Phase, ...]
    owner: Owner

    @property
    def start(self) -> datetime:
        return self.owner.start

    @property
    def end(self) -> datetime:
        return self.owner.end

    @property
    def last(self) -> Phase:
        """The phase whose plan version the line names."""
        return self.phases[-1]


def owner_of(phases: Sequence[Phase]) -> Owner:
    """Whom a line about some phases, one after the other, is for."""
    last = phases[-1]
    return Owner(
        customer=last.customer,
        subscription=last.subscription.id,
        plan=last.plan,
        currency=last.currency,
        period=last.period,
        start=phases[0].start,
        end=last.end,
    )


def segments(phases: Sequence[Phase], timing: Timing) -> list[Segment]:
    """The charges that are billed with (arrears) or before (advance) the period, in the order of phases and charges.

    Trials are free. A charge that a new version of the plan leaves as it is goes on, tiers and all. A flat charge
    without proration is due once a period however often the plan changes: as the last phase that has it says.
    """
    found: list[Segment] = []
    for phase in phases:
        if phase.is_trial:
            continue
        owner = owner_of((phase,))
        for charge in phase.prices.charges:
            if _timing(charge) is not timing:
                continue
            place = _continued(found, charge, phase)
            if place is None:
                found.append(Segment(charge=charge, phases=(phase,), owner=owner))
            else:
                whole = (*found[place].phases, phase)
                found[place] = Segment(charge=charge, phases=whole, owner=owner_of(whole))
    return _due_once(found) if len(phases) > 1 else found


def _timing(charge: Charge) -> Timing:
    return charge.timing if isinstance(charge, FlatCharge) else Timing.ARREARS


def _continued(found: Sequence[Segment], charge: Charge, phase: Phase) -> int | None:
    """Where the same charge of the same plan ends as this phase begins."""
    if not found or phase.start == phase.period.start:
        return None
    for place, one in enumerate(found):
        if one.end == phase.start and one.charge == charge and one.last.plan.id == phase.plan.id:
            return place
    return None


def _due_once(found: Sequence[Segment]) -> list[Segment]:
    last = {
        one.charge.id: place
        for place, one in enumerate(found)
        if isinstance(one.charge, FlatCharge) and one.charge.proration is Proration.NONE
    }
    return [one for place, one in enumerate(found) if last.get(one.charge.id, place) == place]
