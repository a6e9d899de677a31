"""Percentages of metered amounts, event by event where events have prices of their own."""

from __future__ import annotations

from decimal import Decimal

from billing_export.rate_number import Billable, Convert, N, Note, Priced
from schemas.charges import PercentageCharge
from schemas.errors import InvariantViolationError
from schemas.quantity import ZERO


def needs_each_event(charge: PercentageCharge) -> bool:
    """Whether the sum and the number of events are not enough to price them."""
    by_event = charge.event_min is not None or charge.event_max is not None or charge.free_events is not None
    return by_event or (charge.free_amount is not None and charge.fixed_amount != 0)


def percentage(charge: PercentageCharge, used: Billable[N], number: Convert[N]) -> Priced[N]:
    """`rate` percent of what is paid for, and `fixed_amount` for each event that is; nothing for a sum of zero.

    Raises InvariantViolationError when the price depends on each event and the events were not given.
    """
    if needs_each_event(charge) and used.events is None and (used.quantity_before or used.events_count):
        raise InvariantViolationError(
            f"charge {charge.id!r} is priced event by event, and was given no events", where="rating"
        )
    if not used.quantity_before and charge.event_min is None:
        return Priced(number(ZERO), None, (Note("{} percent", used.quantity, number(ZERO), numbers=(charge.rate,)),))
    if needs_each_event(charge):
        return _by_event(charge, used.events or (), number)
    free = min(max(used.quantity, number(ZERO)), number(charge.free_amount or ZERO))
    return _priced(charge, number, paid=used.quantity - free, paid_count=used.events_count, free=free)


def _by_event(charge: PercentageCharge, events: tuple[N, ...], number: Convert[N]) -> Priced[N]:
    """The free part ends with its last event or its last unit of amount, whichever comes first.

    The event that uses up the free amount, even exactly, pays its fixed amount, as the publisher of this model has it.
    """
    zero = number(ZERO)
    free_events = charge.free_events
    free_amount = None if charge.free_amount is None else number(charge.free_amount)
    is_free = (free_events is not None or free_amount is not None) and free_events != 0 and free_amount != zero
    paid, freed, limited = zero, zero, zero
    paid_count = free_count = 0
    for event in events:
        value = event
        if is_free:
            if free_amount is None or freed + value < free_amount:
                freed += value
                free_count += 1
                is_free = free_events is None or free_count < free_events
                continue
            value = freed + value - free_amount
            freed = free_amount
            is_free = False
        paid += value
        paid_count += 1
        cost = value * number(charge.rate) * number(Decimal("0.01")) + number(charge.fixed_amount)
        limited += _limited(charge, cost, number) - cost
    return _priced(charge, number, paid=paid, paid_count=paid_count, free=freed, free_count=free_count, limited=limited)


def _limited(charge: PercentageCharge, cost: N, number: Convert[N]) -> N:
    """An event that gives money back is credited, with no more than the most it may cost, and never charged."""
    if charge.event_max is not None:
        most = number(charge.event_max)
        cost = max(min(cost, most), -most)
    if charge.event_min is not None and cost >= 0:
        cost = max(cost, number(charge.event_min))
    return cost


def _priced(
    charge: PercentageCharge,
    number: Convert[N],
    *,
    paid: N,
    paid_count: int,
    free: N,
    free_count: int = 0,
    limited: N | None = None,
) -> Priced[N]:
    notes: list[Note[N]] = []
    zero = number(ZERO)
    if free or free_count:
        counted = f" of {free_count} events" if free_count else ""
        notes.append(Note(f"free amount{counted}", free, zero))
    rated = paid * number(charge.rate) * number(Decimal("0.01"))
    notes.append(Note("{} percent", paid, rated, numbers=(charge.rate,)))
    fixed = number(charge.fixed_amount) * paid_count
    if charge.fixed_amount:
        count = number(Decimal(paid_count))
        notes.append(Note("{} for each event", count, fixed, numbers=(charge.fixed_amount,)))
    amount = rated + fixed
    if limited:
        notes.append(Note("least and most that an event costs", None, limited))
        amount = amount + limited
    return Priced(amount, None, tuple(notes))
