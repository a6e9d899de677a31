"""What holds of every price, whatever the charge and whatever was used."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from billing_export.money import unrounded
from billing_export.rate import Context, Usage, rate
from schemas.charges import (
    Bucket,
    Charge,
    Commitment,
    DynamicCharge,
    FlatCharge,
    GraduatedCharge,
    GraduatedPercentageCharge,
    MatrixCharge,
    MatrixPrice,
    PackageCharge,
    PercentageCharge,
    PercentageTier,
    PerUnitCharge,
    Proration,
    QuantityRounding,
    RoundingMode,
    Tier,
    VolumeCharge,
)


def decimals(high: int, places: int, low: int = 0) -> st.SearchStrategy[Decimal]:
    """Decimals with `places` digits after the point; made of integers, which are made quickly."""
    return st.integers(low * 10**places, high * 10**places).map(lambda digits: Decimal(digits).scaleb(-places))


prices = decimals(10**6, 6)
quantities = decimals(10**6, 4)
tiny = decimals(200, 3)
tiers_of = st.builds(
    lambda bounds, amounts: tuple(
        Tier(up_to=bound, unit_amount=unit, flat_amount=flat)
        for bound, (unit, flat) in zip([*sorted(bounds), None], amounts, strict=False)
    ),
    st.sets(decimals(150, 2, low=1), max_size=3),
    st.lists(st.tuples(prices, prices), min_size=4, max_size=4),
)


@st.composite
def metered(draw: st.DrawFn) -> Charge:
    """A charge of any model whose price cannot fall as usage grows."""
    rounding = draw(
        st.none() | st.builds(QuantityRounding, mode=st.sampled_from(RoundingMode), digits=st.integers(-2, 3))
    )
    promise = draw(
        st.none()
        | st.builds(Commitment, amount=prices, overage_factor=decimals(3, 2, low=1), true_up=st.booleans())
        | st.builds(Commitment, quantity=tiny, overage_factor=decimals(3, 2, low=1), true_up=st.booleans())
    )
    minimum, maximum = draw(st.none() | prices), draw(st.none() | decimals(10**8, 2, low=10**6))
    common: dict[str, Any] = {
        "id": "c",
        "meter": "m",
        "free_quantity": draw(tiny),
        "minimum": minimum,
        "maximum": maximum,
        "rounding": rounding,
    }
    match draw(st.integers(0, 5)):
        case 0:
            return PerUnitCharge(unit_amount=draw(prices), commitment=promise, **common)
        case 1:
            return GraduatedCharge(
                tiers=draw(tiers_of), commitment=promise, flat_amount_at_zero=draw(st.booleans()), **common
            )
        case 2:
            return PackageCharge(package_size=Decimal(7), package_amount=draw(prices), commitment=promise, **common)
        case 3:
            return PercentageCharge(rate=draw(tiny), fixed_amount=draw(prices), **common)
        case 4:
            tiers = tuple(
                PercentageTier(up_to=one.up_to, rate=one.unit_amount, flat_amount=one.flat_amount)
                for one in draw(tiers_of)
            )
            return GraduatedPercentageCharge(tiers=tiers, commitment=promise, **common)
        case _:
            return MatrixCharge(prices=(), otherwise=MatrixPrice(tiers=draw(tiers_of)), commitment=promise, **common)


def exact_sum(amounts: Iterable[Decimal | str]) -> Fraction:
    """A sum that the thread's 28 digits do not round."""
    return sum((Fraction(one) for one in amounts), Fraction(0))


def used(quantity: Decimal | Fraction, events_count: int = 0) -> Usage:
    return Usage(quantity=quantity, events_count=events_count)


def cost(charge: Charge, quantity: Decimal | Fraction) -> Decimal:
    return rate(charge, used(quantity)).amount_unrounded


@given(tiers=tiers_of, quantity=tiny)
def test_a_graduated_amount_is_the_integral_of_its_marginal_price(tiers: tuple[Tier, ...], quantity: Decimal) -> None:
    def tier_at(unit: Fraction) -> Tier:
        return next(one for one in tiers if one.up_to is None or unit <= one.up_to)

    corners = sorted({Fraction(0), Fraction(quantity), *(Fraction(one.up_to) for one in tiers if one.up_to)})
    inside = [one for one in corners if one <= quantity]
    integral, entered = Fraction(0), []
    for low, high in pairwise(inside):
        tier = tier_at((low + high) / 2)
        integral += (high - low) * Fraction(tier.unit_amount)
        entered.append(tier)
    flat = sum(Fraction(one.flat_amount) for one in entered)

    assert cost(GraduatedCharge(id="g", meter="m", tiers=tiers), quantity) == unrounded(integral + flat)


@given(tiers=tiers_of, quantity=tiny)
def test_one_more_unit_of_a_volume_charge_never_leaves_the_price_list(
    tiers: tuple[Tier, ...], quantity: Decimal
) -> None:
    possible = {quantity * one.unit_amount + one.flat_amount for one in tiers} | {Decimal(0)}

    assert cost(VolumeCharge(id="v", meter="m", tiers=tiers), quantity) in possible


@given(quantity=quantities, price=prices)
def test_one_open_tier_costs_what_a_price_per_unit_costs(quantity: Decimal, price: Decimal) -> None:
    per_unit = PerUnitCharge(id="p", meter="m", unit_amount=price)
    graduated = GraduatedCharge(id="g", meter="m", tiers=(Tier(unit_amount=price),))
    volume = VolumeCharge(id="v", meter="m", tiers=(Tier(unit_amount=price),))

    assert cost(graduated, quantity) == cost(per_unit, quantity) == cost(volume, quantity)


@given(
    amount=prices,
    parts=st.lists(st.fractions(min_value=0, max_value=1, max_denominator=3600), min_size=1, max_size=8),
)
def test_the_parts_of_a_prorated_whole_add_up_to_the_last_digit(amount: Decimal, parts: list[Fraction]) -> None:
    charge = FlatCharge(id="f", amount=amount, proration=Proration.SECOND)
    whole = sum(parts) or Fraction(1)
    before, amounts = Fraction(0), list[Decimal]()
    for part in parts:
        share = part / whole
        context = Context(fraction=share, fraction_before=before)
        amounts.append(rate(charge, used(Decimal(1)), context).amount_unrounded)
        before += share

    assert exact_sum(amounts) == (amount if any(parts) else 0)


@given(price=prices, pieces=st.lists(quantities, min_size=1, max_size=10))
def test_splitting_a_period_never_changes_the_total_of_a_linear_charge(price: Decimal, pieces: list[Decimal]) -> None:
    whole = sum(pieces, Decimal(0))
    charges: list[Charge] = [
        PerUnitCharge(id="p", meter="m", unit_amount=price),
        PercentageCharge(id="c", meter="m", rate=price),
        GraduatedCharge(id="g", meter="m", tiers=(Tier(unit_amount=price),)),
    ]

    for charge in charges:
        assert exact_sum(cost(charge, piece) for piece in pieces) == cost(charge, whole)


@given(pieces=st.lists(st.tuples(quantities, quantities), min_size=1, max_size=6))
def test_splitting_a_period_never_changes_the_total_of_a_dynamic_charge(
    pieces: list[tuple[Decimal, Decimal]],
) -> None:
    charge = DynamicCharge(id="d", meter="m", amount_meter="a", amount_factor=Decimal("0.01"))
    units = [(quantity + 1, amount) for quantity, amount in pieces]

    def price(quantity: Decimal, amount: Decimal) -> Decimal:
        return rate(charge, Usage(quantity=quantity, amount=amount)).amount_unrounded

    whole = price(sum((one for one, _ in units), Decimal(0)), sum((one for _, one in units), Decimal(0)))

    assert exact_sum(price(quantity, amount) for quantity, amount in units) == whole


@given(charge=metered(), low=tiny, more=tiny, counts=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_adding_usage_never_lowers_a_bill(charge: Charge, low: Decimal, more: Decimal, counts: tuple[int, int]) -> None:
    before = rate(charge, used(low, counts[0])).amount_unrounded
    after = rate(charge, used(low + more, sum(counts))).amount_unrounded

    assert before <= after


@given(
    values=st.lists(tiny, max_size=8),
    more=tiny,
    free_events=st.none() | st.integers(0, 5),
    free_amount=st.none() | tiny,
    least=st.none() | decimals(3, 2),
    most=st.none() | decimals(9, 2, low=3),
)
def test_one_more_event_never_lowers_a_percentage(
    *,
    values: list[Decimal],
    more: Decimal,
    free_events: int | None,
    free_amount: Decimal | None,
    least: Decimal | None,
    most: Decimal | None,
) -> None:
    charge = PercentageCharge(
        id="c",
        meter="m",
        rate=Decimal("2.5"),
        fixed_amount=Decimal("0.3"),
        free_events=free_events,
        free_amount=free_amount,
        event_min=least,
        event_max=most,
    )

    def price(events: list[Decimal]) -> Decimal:
        usage = Usage(quantity=sum(events, Decimal(0)), events=tuple(events), events_count=len(events))
        return rate(charge, usage).amount_unrounded

    assert price(values) <= price([*values, more])


@given(
    charge=metered() | st.builds(VolumeCharge, id=st.just("v"), meter=st.just("m"), tiers=tiers_of),
    parts=st.lists(tiny, min_size=1, max_size=5),
)
def test_delta_rating_telescopes(charge: Charge, parts: list[Decimal]) -> None:
    deltas: list[Decimal] = []
    previous = None
    for count, part in enumerate(parts, start=1):
        deltas.append(rate(charge, used(part, 1), Context(previous=previous)).amount_unrounded)
        previous = used(sum(parts[:count], Decimal(0)), count)

    assert previous is not None
    assert exact_sum(deltas) == rate(charge, previous).amount_unrounded


@given(
    charge=metered(),
    quantity=tiny,
    fraction=st.fractions(min_value=0, max_value=1, max_denominator=400),
    previous=st.none() | tiny,
)
def test_the_steps_of_the_account_add_up_to_the_amount(
    charge: Charge, quantity: Decimal, fraction: Fraction, previous: Decimal | None
) -> None:
    exact = Fraction(quantity) * fraction
    context = Context(fraction=fraction, previous=None if previous is None else used(previous, 2))

    rated = rate(charge, used(exact, 3), context)

    assert exact_sum(step.amount for step in rated.steps) == rated.amount_unrounded
    assert len({step.what for step in rated.steps}) == len(rated.steps)


@given(charge=metered(), quantity=tiny)
def test_decimals_and_fractions_give_the_same_price(charge: Charge, quantity: Decimal) -> None:
    assert rate(charge, used(quantity, 2)) == rate(charge, used(Fraction(quantity), 2))


@given(tiers=tiers_of, quantity=tiny, part=st.fractions(min_value=0, max_value=1, max_denominator=31))
def test_the_shares_of_tiers_add_up_to_what_the_tiers_cost(
    tiers: tuple[Tier, ...], quantity: Decimal, part: Fraction
) -> None:
    rated = rate(GraduatedCharge(id="g", meter="m", tiers=tiers), used(Fraction(quantity) * part))

    assert exact_sum(one.amount for one in rated.tiers) == rated.amount_unrounded


@given(tiers=tiers_of, buckets=st.lists(tiny, min_size=1, max_size=6))
def test_buckets_cost_what_each_of_them_costs_alone(tiers: tuple[Tier, ...], buckets: list[Decimal]) -> None:
    whole = GraduatedCharge(id="g", meter="m", tiers=tiers)
    bucketed = GraduatedCharge(id="g", meter="m", tiers=tiers, bucket=Bucket.DAY)

    rated = rate(bucketed, Usage(quantity=sum(buckets, Decimal(0)), buckets=tuple(buckets)))

    assert rated.amount_unrounded == exact_sum(cost(whole, bucket) for bucket in buckets)
