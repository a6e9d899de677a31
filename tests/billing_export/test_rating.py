"""Rating: exact amounts from exact quantities, one fact of each model at a time."""

from __future__ import annotations

from decimal import Context as DecimalContext
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest

from billing_export.rate import Change, Context, Usage, needs_events, needs_every_bucket, rate
from schemas.charges import (
    Bucket,
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
from schemas.errors import InvariantViolationError

TIERS = (
    Tier(up_to=Decimal(100), unit_amount=Decimal("0.50"), flat_amount=Decimal(5)),
    Tier(up_to=Decimal(1000), unit_amount=Decimal("0.25"), flat_amount=Decimal(1)),
    Tier(unit_amount=Decimal("0.1")),
)
GRADUATED = GraduatedCharge(id="g", meter="m", tiers=TIERS)
VOLUME = VolumeCharge(id="v", meter="m", tiers=TIERS)


def used(quantity: str | int, **more: object) -> Usage:
    return Usage(quantity=Decimal(quantity), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [
        ("0", "0"),
        ("0.001", "5.0005"),
        ("100", "55"),
        ("100.000000000001", "56.00000000000025"),
        ("1000", "281"),
        ("1001", "281.1"),
    ],
)
def test_upper_bounds_are_inclusive_and_flat_amounts_fall_due_on_entry(quantity: str, amount: str) -> None:
    assert rate(GRADUATED, used(quantity)).amount_unrounded == Decimal(amount)


def test_a_graduated_amount_comes_with_the_share_of_each_tier() -> None:
    shares = [
        (one.from_, one.up_to, one.quantity, one.unit_amount, one.flat_amount, one.amount)
        for one in rate(GRADUATED, used(250)).tiers
    ]

    assert shares == [("0", "100", "100", "0.5", "5", "55"), ("100", "1000", "150", "0.25", "1", "38.5")]


@pytest.mark.parametrize(
    ("quantity", "amount"), [("100", "55"), ("100.1", "26.025"), ("1000", "251"), ("1001", "100.1")]
)
def test_volume_prices_every_unit_where_the_whole_quantity_falls(quantity: str, amount: str) -> None:
    rated = rate(VOLUME, used(quantity))

    assert rated.amount_unrounded == Decimal(amount)
    assert [one.quantity for one in rated.tiers] == [quantity]


@pytest.mark.parametrize("charge", [GRADUATED, VOLUME])
def test_without_usage_the_first_flat_amount_is_due_only_where_the_charge_says_so(
    charge: GraduatedCharge | VolumeCharge,
) -> None:
    says_so = type(charge)(id="z", meter="m", tiers=TIERS, flat_amount_at_zero=True)

    assert rate(charge, used(0)).amount_unrounded == 0
    assert rate(says_so, used(0)).amount_unrounded == 5
    assert rate(says_so, used(-1)).amount_unrounded == Decimal("-0.5")


@pytest.mark.parametrize("charge", [GRADUATED, VOLUME])
def test_a_quantity_below_zero_is_credited_at_the_first_tiers_unit_price(
    charge: GraduatedCharge | VolumeCharge,
) -> None:
    assert rate(charge, used(-10)).amount_unrounded == Decimal(-5)


def test_beyond_a_last_tier_with_a_bound_its_price_goes_on() -> None:
    closed = GraduatedCharge(id="c", meter="m", tiers=(Tier(up_to=Decimal(10), unit_amount=Decimal(2)),))

    assert rate(closed, used(15)).amount_unrounded == 30


def test_a_flat_charge_costs_its_amount_whatever_the_quantity() -> None:
    rated = rate(FlatCharge(id="f", amount=Decimal("49.90")), used(7))

    assert (rated.amount_unrounded, rated.unit_amount) == (Decimal("49.90"), Decimal("49.90"))


@pytest.mark.parametrize(
    ("proration", "fraction", "amount"),
    [
        (Proration.NONE, Fraction(10, 31), "31"),
        (Proration.DAY, Fraction(10, 31), "10"),
        (Proration.SECOND, Fraction(1, 3), "10.333333333333333333333333"),
        (Proration.NONE, Fraction(0), "0"),
    ],
)
def test_a_flat_charge_is_prorated_as_it_says(proration: Proration, fraction: Fraction, amount: str) -> None:
    charge = FlatCharge(id="f", amount=Decimal(31), proration=proration)

    assert rate(charge, used(1), Context(fraction=fraction)).amount_unrounded == Decimal(amount)


def test_nothing_is_lost_when_quantity_and_price_have_all_their_digits() -> None:
    charge = PerUnitCharge(id="p", meter="m", unit_amount=Decimal("123456789012345678.123456789012"))
    quantity = Decimal("9" * 50 + ".999999999999")

    rated = rate(charge, Usage(quantity=quantity)).amount_unrounded

    assert int(rated.scaleb(24, DecimalContext(prec=300))) == (10**62 - 1) * 123456789012345678123456789012


def test_the_context_of_the_thread_changes_no_digit() -> None:
    charge = PerUnitCharge(id="p", meter="m", unit_amount=Decimal("1.23456789"), minimum=Decimal(1))

    with localcontext() as coarse:
        coarse.prec = 3
        rated = rate(charge, used("98765.4321"))

    assert rated.amount_unrounded == Decimal("121932.631112635269")


@pytest.mark.parametrize(
    ("quantity", "packages"), [("0", 0), ("0.1", 1), ("10", 1), ("10.000000000001", 2), ("-9.9", 0), ("-10", -1)]
)
def test_a_package_is_due_once_it_is_begun_and_credited_once_it_is_whole(quantity: str, packages: int) -> None:
    charge = PackageCharge(id="k", meter="m", package_size=Decimal(10), package_amount=Decimal(3))

    assert rate(charge, used(quantity)).amount_unrounded == packages * 3


def test_free_units_go_before_discounts_and_both_before_the_price() -> None:
    charge = PackageCharge(
        id="k",
        meter="m",
        package_size=Decimal(10),
        package_amount=Decimal(3),
        free_quantity=Decimal(5),
        rounding=QuantityRounding(mode=RoundingMode.CEIL, digits=0),
    )
    context = Context(free_quantity_extra=Decimal(2), discount_quantity=Decimal(100))

    rated = rate(charge, used("20.5"), context)

    assert [(step.what, step.quantity) for step in rated.steps] == [
        ("used", "20.5"),
        ("rounded up to 0 decimals", "21"),
        ("free, rolled over", "-2"),
        ("free", "-5"),
        ("free, by discount", "-14"),
        ("packages of 10 at 3 each", "0"),
    ]
    assert (rated.free_used, rated.discount_used, rated.quantity_billed) == (Decimal(7), Decimal(14), Decimal(0))


@pytest.mark.parametrize(
    ("mode", "digits", "rounded"),
    [
        (RoundingMode.ROUND, 0, "3"),
        (RoundingMode.FLOOR, 1, "2.5"),
        (RoundingMode.CEIL, -1, "10"),
        (RoundingMode.ROUND, -1, "0"),
        (RoundingMode.CEIL, 6, "2.5"),
    ],
)
@pytest.mark.parametrize("kind", [Decimal, Fraction])
def test_a_quantity_is_rounded_before_it_is_priced(mode: RoundingMode, digits: int, rounded: str, kind: type) -> None:
    charge = PerUnitCharge(
        id="p", meter="m", unit_amount=Decimal(2), rounding=QuantityRounding(mode=mode, digits=digits)
    )

    rated = rate(charge, Usage(quantity=kind("2.5")))

    assert (rated.quantity_billed, rated.amount_unrounded) == (Decimal(rounded), 2 * Decimal(rounded))


@pytest.mark.parametrize(
    ("events", "amount"),
    [
        (("4", "4", "4", "4", "10"), "10.11"),
        (("15",), "5"),
        (("14.99",), "0"),
        ((), "0"),
        (("0", "0"), "0"),
    ],
)
def test_a_free_amount_ends_with_the_event_that_uses_it_up_which_pays(events: tuple[str, ...], amount: str) -> None:
    charge = PercentageCharge(id="c", meter="m", rate=Decimal(1), fixed_amount=Decimal(5), free_amount=Decimal(15))
    values = tuple(map(Decimal, events))

    rated = rate(charge, Usage(quantity=sum(values, Decimal(0)), events=values, events_count=len(values)))

    assert rated.amount_unrounded == Decimal(amount)


def test_an_event_costs_no_less_than_its_least_and_no_more_than_its_most_and_a_refund_is_no_charge() -> None:
    charge = PercentageCharge(
        id="c", meter="m", rate=Decimal(10), fixed_amount=Decimal(1), event_min=Decimal(2), event_max=Decimal(9)
    )

    def cost(value: str) -> Decimal:
        return rate(charge, Usage(quantity=Decimal(value), events=(Decimal(value),), events_count=1)).amount_unrounded

    assert [cost(value) for value in ("5", "50", "500", "-50", "-500")] == [2, 6, 9, -4, -9]


def test_a_percentage_that_needs_its_events_is_not_priced_without_them() -> None:
    charge = PercentageCharge(id="c", meter="m", rate=Decimal(1), free_events=3)

    assert needs_events(charge)
    assert not needs_events(PercentageCharge(id="c", meter="m", rate=Decimal(1), fixed_amount=Decimal(1)))
    with pytest.raises(InvariantViolationError, match="'c' is priced event by event"):
        rate(charge, used(7))


def test_a_graduated_percentage_prices_each_part_of_the_amount() -> None:
    charge = GraduatedPercentageCharge(
        id="q",
        meter="m",
        tiers=(
            PercentageTier(up_to=Decimal(1000), rate=Decimal("2.9"), flat_amount=Decimal("0.30")),
            PercentageTier(rate=Decimal("1.5")),
        ),
    )

    assert rate(charge, used(3000)).amount_unrounded == Decimal("29.00") + Decimal("0.30") + Decimal("30.00")


def test_a_dynamic_charge_costs_what_the_events_say_of_the_units_that_are_left() -> None:
    charge = DynamicCharge(
        id="d", meter="m", amount_meter="a", amount_factor=Decimal("0.01"), free_quantity=Decimal(10)
    )

    assert rate(charge, used(30, amount=Decimal(900))).amount_unrounded == 6
    assert rate(charge, used(0, amount=Decimal(900))).amount_unrounded == 0
    assert rate(charge, used(5, amount=Decimal(900))).amount_unrounded == 0


@pytest.mark.parametrize(
    ("dimensions", "amount"),
    [
        ({"region": "eu", "size": "xl"}, "30"),
        ({"region": "eu", "size": "s"}, "20"),
        ({"region": "us", "size": "xl"}, "8"),
        ({}, "8"),
    ],
)
def test_the_first_price_of_a_matrix_that_matches_holds(dimensions: dict[str, str], amount: str) -> None:
    charge = MatrixCharge(
        id="x",
        meter="m",
        group_by=("region", "size"),
        prices=(
            MatrixPrice(values={"region": "eu", "size": "xl"}, unit_amount=Decimal(3)),
            MatrixPrice(values={"region": "eu"}, unit_amount=Decimal(2)),
        ),
        otherwise=MatrixPrice(tiers=(Tier(up_to=Decimal(2), unit_amount=Decimal(0)), Tier(unit_amount=Decimal(1)))),
    )

    assert rate(charge, used(10, dimensions=dimensions)).amount_unrounded == Decimal(amount)


@pytest.mark.parametrize(
    ("commitment", "quantity", "amount", "topped_up"),
    [
        (Commitment(quantity=Decimal(10), overage_factor=Decimal("1.5")), "15", "35", "0"),
        (Commitment(quantity=Decimal(10), overage_factor=Decimal("1.5")), "6", "12", "0"),
        (Commitment(quantity=Decimal(10), true_up=True), "6", "20", "8"),
        (Commitment(amount=Decimal(20), overage_factor=Decimal(3), true_up=True), "11", "26", "0"),
        (Commitment(amount=Decimal(20), overage_factor=Decimal(3), true_up=True), "0", "20", "20"),
    ],
)
def test_a_commitment_prices_what_is_beyond_and_tops_up_what_is_short(
    commitment: Commitment, quantity: str, amount: str, topped_up: str
) -> None:
    charge = PerUnitCharge(id="p", meter="m", unit_amount=Decimal(2), commitment=commitment)

    rated = rate(charge, used(quantity))

    assert (rated.amount_unrounded, rated.topped_up) == (Decimal(amount), Decimal(topped_up))


def test_a_commitment_of_units_is_priced_through_the_tiers_it_reaches() -> None:
    charge = GraduatedCharge(
        id="g",
        meter="m",
        tiers=TIERS,
        commitment=Commitment(quantity=Decimal(200), overage_factor=Decimal(2), true_up=True),
    )

    assert rate(charge, used(0)).amount_unrounded == Decimal("81.00")
    assert rate(charge, used(300)).amount_unrounded == Decimal("81.00") + 2 * Decimal("25.00")


def test_tiers_packages_and_commitments_start_again_in_every_bucket_and_free_units_do_not() -> None:
    charge = GraduatedCharge(
        id="g",
        meter="m",
        bucket=Bucket.HOUR,
        free_quantity=Decimal(5),
        tiers=(Tier(up_to=Decimal(10), unit_amount=Decimal(2)), Tier(unit_amount=Decimal(1))),
    )

    rated = rate(charge, used(45, buckets=(Decimal(15), Decimal(0), Decimal(30))))

    assert rated.amount_unrounded == 20 + 40
    assert [(one.quantity, one.amount) for one in rated.tiers] == [("20", "40"), ("20", "20")]


def test_hours_without_usage_are_asked_for_where_they_cost_something() -> None:
    promised = PerUnitCharge(
        id="p",
        meter="m",
        unit_amount=Decimal(2),
        bucket=Bucket.HOUR,
        commitment=Commitment(quantity=Decimal(10), true_up=True),
    )

    assert needs_every_bucket(promised)
    assert not needs_every_bucket(PerUnitCharge(id="p", meter="m", unit_amount=Decimal(2), bucket=Bucket.HOUR))
    assert rate(promised, used(12, buckets=(Decimal(12), Decimal(0)))).amount_unrounded == 44


def test_a_bucketed_charge_is_not_priced_without_its_buckets() -> None:
    charge = PerUnitCharge(id="p", meter="m", unit_amount=Decimal(2), bucket=Bucket.DAY)

    assert rate(charge, used(0)).amount_unrounded == 0
    with pytest.raises(InvariantViolationError, match="'p' is priced by day"):
        rate(charge, used(1))


@pytest.mark.parametrize(("quantity", "amount"), [("0", "10"), ("4", "10"), ("7", "14"), ("100", "50")])
def test_the_minimum_lifts_an_amount_and_the_maximum_caps_it(quantity: str, amount: str) -> None:
    charge = PerUnitCharge(id="p", meter="m", unit_amount=Decimal(2), minimum=Decimal(10), maximum=Decimal(50))

    assert rate(charge, used(quantity)).amount_unrounded == Decimal(amount)


def test_a_part_of_a_period_has_that_part_of_free_units_minimum_maximum_and_commitment() -> None:
    part = Context(fraction=Fraction(1, 3))
    charge = PerUnitCharge(
        id="p",
        meter="m",
        unit_amount=Decimal(1),
        free_quantity=Decimal(100),
        minimum=Decimal(10),
        maximum=Decimal(200),
        proration=Proration.DAY,
    )

    def cost(quantity: str) -> Decimal:
        return rate(charge, used(quantity), part).amount_unrounded

    third = Decimal("0.333333333333333333333333")
    assert [cost("0"), cost("50"), cost("1000")] == [3 + third, 17 - Decimal("0.333333333333333333333333"), 67 - third]


def test_the_full_units_choose_the_tier_and_the_prorated_ones_are_priced() -> None:
    tiers = (Tier(up_to=Decimal(10), unit_amount=Decimal(4)), Tier(unit_amount=Decimal(1), flat_amount=Decimal(7)))
    usage = Usage(quantity=Decimal(10), full_quantity=Decimal(20))

    assert rate(VolumeCharge(id="v", meter="m", tiers=tiers), usage).amount_unrounded == 17
    assert rate(GraduatedCharge(id="g", meter="m", tiers=tiers), usage).amount_unrounded == 5 * 4 + 5 * 1 + 7


def test_each_change_of_a_stock_is_priced_in_the_tiers_it_crosses() -> None:
    tiers = (Tier(up_to=Decimal(10), unit_amount=Decimal(4)), Tier(unit_amount=Decimal(1)))
    changes = (
        Change(full=Decimal(10), prorated=Decimal(10)),
        Change(full=Decimal(10), prorated=Decimal(5)),
        Change(full=Decimal(-15), prorated=Decimal(-3)),
    )

    rated = rate(GraduatedCharge(id="g", meter="m", tiers=tiers), Usage(quantity=Decimal(12), changes=changes))

    assert rated.amount_unrounded == (10 - 1) * 4 + (5 - 2) * 1


def test_delta_rating_takes_away_what_the_previous_usage_cost_or_what_was_billed_for_it() -> None:
    previous = used(80)

    delta = rate(GRADUATED, used(40), Context(previous=previous))
    billed = rate(GRADUATED, used(40), Context(previous=previous, previous_billed=Decimal(50)))

    assert delta.amount_unrounded == Decimal("61.00") - Decimal("45.00")
    assert [(one.quantity, one.amount) for one in delta.tiers] == [("20", "10"), ("20", "6")]
    assert billed.amount_unrounded == 11


def test_what_was_billed_is_taken_away_also_where_no_usage_is_known_of_it() -> None:
    charge = PercentageCharge(id="c", meter="m", rate=Decimal(10), free_events=1, minimum=Decimal(3))
    usage = used(50, events=(Decimal(20), Decimal(30)), events_count=2)

    billed = rate(charge, usage, Context(previous_billed=Decimal(1)))
    nothing_before = rate(charge, usage, Context(previous=used(0), previous_billed=Decimal(1)))

    assert (billed.amount_unrounded, billed.topped_up) == (Decimal(2), Decimal(0))
    assert [(step.what, step.amount) for step in billed.steps][-1] == ("priced before", "-1")
    assert nothing_before.amount_unrounded == 2


def test_the_account_is_left_out_when_nobody_asks_for_it() -> None:
    assert rate(GRADUATED, used(40), Context(with_steps=False)).steps == ()
