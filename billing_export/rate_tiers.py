"""Tiers: which part of a quantity falls into which, and what it costs there. Upper bounds are inclusive.

Beyond a last tier that is not open its price goes on: a quantity is never left without a price.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

import msgspec

from billing_export.money import cumulative_parts, unrounded
from billing_export.rate_number import Convert, N, Share
from billing_export.rate_records import Change
from schemas.charges import PercentageTier, Tier
from schemas.line_item import TierShare
from schemas.quantity import ZERO, format_quantity


def as_tiers(tiers: Sequence[PercentageTier]) -> tuple[Tier, ...]:
    """Tiers of percentages as tiers of prices: a percent of an amount is a hundredth for each unit of it."""
    return tuple(
        Tier(up_to=one.up_to, unit_amount=one.rate * Decimal("0.01"), flat_amount=one.flat_amount) for one in tiers
    )


def graduated(tiers: Sequence[Tier], quantity: N, number: Convert[N], *, flat_at_zero: bool) -> list[Share[N]]:
    """Each unit at the price of the tier it falls in, and the flat amount of each tier entered.

    Below zero the first tier's unit price is credited, without its flat amount.
    """
    if quantity <= 0:
        return [_first(tiers, quantity, number, flat_at_zero=flat_at_zero)] if quantity or flat_at_zero else []
    shares: list[Share[N]] = []
    for bound, up_to, tier in _bounds(tiers):
        start = number(bound)
        if quantity <= start:
            break
        reached = quantity if up_to is None else min(quantity, number(up_to))
        shares.append(_share(bound, tier, reached - start, number, flat_amount=tier.flat_amount))
    return shares


def volume(
    tiers: Sequence[Tier], quantity: N, choosing: N, number: Convert[N], *, flat_at_zero: bool
) -> list[Share[N]]:
    """All of `quantity` at the price of the tier that `choosing` falls in, and that tier's flat amount."""
    if choosing <= 0:
        return [_first(tiers, quantity, number, flat_at_zero=flat_at_zero)] if quantity or flat_at_zero else []
    bound, tier = next(
        (bound, tier) for bound, up_to, tier in _bounds(tiers) if up_to is None or choosing <= number(up_to)
    )
    return [_share(bound, tier, quantity, number, flat_amount=tier.flat_amount)]


def spread(tiers: Sequence[Tier], quantity: N, full: N, number: Convert[N], *, flat_at_zero: bool) -> list[Share[N]]:
    """The full units choose the tiers; each tier's share of them is the share of `quantity` that is priced there."""
    if full <= 0:
        return graduated(tiers, number(ZERO), number, flat_at_zero=flat_at_zero and full == 0)
    part = quantity / full
    return [_priced(one, one.quantity * part, number) for one in graduated(tiers, full, number, flat_at_zero=False)]


def by_changes(
    tiers: Sequence[Tier], changes: Sequence[Change], number: Convert[N], *, flat_at_zero: bool
) -> list[Share[N]]:
    """The tiers of a stock that changes: each change's prorated units in the tiers that its full units cross.

    That is the graduated price integrated over the period. Flat amounts are due for every tier the stock reached.
    A stock that ends below zero had more taken from it than it held, and costs nothing.
    """
    level = highest = number(ZERO)
    parts: dict[int, N] = {}
    for change in changes:
        full, prorated = number(change.full), number(change.prorated)
        if prorated == 0 and (full > 0 or level + full < 0):
            continue  # it was there for no part of this period, or takes away what was not
        low, high = min(level, level + full), max(level, level + full)
        for index, (bound, up_to, _tier) in enumerate(_bounds(tiers)):
            inside = (high if up_to is None else min(high, number(up_to))) - max(low, number(bound))
            if inside > 0:
                parts[index] = parts.get(index, number(ZERO)) + inside * prorated / (high - low)
        level += full
        highest = max(highest, level)
    if level < 0:
        return []
    entered = graduated(tiers, highest, number, flat_at_zero=flat_at_zero)
    shares = [_priced(one, parts.get(index, number(ZERO)), number) for index, one in enumerate(entered)]
    amounts = [one.quantity * number(one.unit_amount) for one in shares]
    below = sum(amounts, number(ZERO)) < 0
    return [_priced(one, number(ZERO), number) for one in shares] if below else shares


def tier_shares(shares: Sequence[Share[N]]) -> tuple[TierShare, ...]:
    """One share for each tier and price, as text, in the tiers' order; the amounts add up to the last digit."""
    found: dict[tuple[Decimal, Decimal], Share[N]] = {}
    for one in shares:
        key = (one.from_, one.unit_amount)
        known = found.get(key)
        found[key] = one if known is None else _plus(known, one)
    ordered = list(found.values()) if len(found) == len(shares) else [found[key] for key in sorted(found)]
    return tuple(
        [
            TierShare(
                from_=format_quantity(one.from_),
                up_to=None if one.up_to is None else format_quantity(one.up_to),
                quantity=format_quantity(unrounded(one.quantity)),
                unit_amount=format_quantity(one.unit_amount),
                flat_amount=format_quantity(one.flat_amount),
                amount=format_quantity(amount),
            )
            for one, amount in zip(ordered, cumulative_parts([one.amount for one in ordered]), strict=True)
        ]
    )


def negative(shares: Sequence[Share[N]]) -> tuple[Share[N], ...]:
    """The same shares taken away."""
    return tuple(
        [Share(one.from_, one.up_to, one.unit_amount, -one.flat_amount, -one.quantity, -one.amount) for one in shares]
    )


def _plus(one: Share[N], other: Share[N]) -> Share[N]:
    flat_amount = one.flat_amount + other.flat_amount
    quantity, amount = one.quantity + other.quantity, one.amount + other.amount
    return Share(one.from_, one.up_to, one.unit_amount, flat_amount, quantity, amount)


def _bounds(tiers: Sequence[Tier]) -> Iterator[tuple[Decimal, Decimal | None, Tier]]:
    """Each tier with where it begins and ends; the last one is open."""
    bound = ZERO
    for tier in tiers[:-1]:
        if tier.up_to is not None:
            yield bound, tier.up_to, tier
            bound = tier.up_to
    yield bound, None, tiers[-1]


def _first(tiers: Sequence[Tier], quantity: N, number: Convert[N], *, flat_at_zero: bool) -> Share[N]:
    due = tiers[0].flat_amount if flat_at_zero and not quantity else ZERO
    return _share(ZERO, tiers[0], quantity, number, flat_amount=due)


def _share(bound: Decimal, tier: Tier, quantity: N, number: Convert[N], *, flat_amount: Decimal) -> Share[N]:
    return Share(
        bound,
        tier.up_to,
        tier.unit_amount,
        flat_amount,
        quantity,
        quantity * number(tier.unit_amount) + number(flat_amount),
    )


def _priced(share: Share[N], quantity: N, number: Convert[N]) -> Share[N]:
    """The same tier with another quantity."""
    amount = quantity * number(share.unit_amount) + number(share.flat_amount)
    return msgspec.structs.replace(share, quantity=quantity, amount=amount)
