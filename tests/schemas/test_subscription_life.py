"""What a subscription has when: plan versions, migrations, changes, trials, pauses, and the parts of a period."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalog import AppliedCatalog, Catalog, Customer, applied
from schemas.charges import FlatCharge
from schemas.period import billing_period, billing_period_at, next_period
from schemas.plan import Anchor, BillingPeriod, Plan, PriceList
from schemas.subscription import Migration, Pause, PlanChange, Subscription
from schemas.subscription_life import cadence_of, phases, service_span, tenures

NEW_YORK = "America/New_York"


def day(text: str) -> date:
    return date.fromisoformat(text)


def plan(name: str, version: int = 1, effective_from: str | None = None, **more: Any) -> Plan:
    fee = FlatCharge(id="fee", amount=Decimal(version))
    since = None if effective_from is None else day(effective_from)
    return Plan(id=name, version=version, effective_from=since, charges=(fee,), **more)


def catalog_of(
    subscription: Subscription, *plans: Plan, migrations: tuple[Migration, ...] = (), timezone: str = "UTC"
) -> AppliedCatalog:
    customer = Customer(id="acme", subjects=("acme",), timezone=timezone)
    catalog = Catalog(customers=(customer,), plans=plans, subscriptions=(subscription,), migrations=migrations)
    return applied(1, catalog, ())


def subscribed(start: str, end: str | None = None, **more: Any) -> Subscription:
    until = None if end is None else day(end)
    return Subscription(id="s", customer="acme", start=day(start), end=until, **{"plan": "basic", **more})


def migration(at: str, from_version: int, to_version: int, *customers: str) -> Migration:
    return Migration(plan="basic", from_version=from_version, to_version=to_version, at=day(at), customers=customers)


def held(catalog: AppliedCatalog) -> list[str]:
    """Each tenure as `first day..day after plan.version`."""
    [subscription] = catalog.catalog.subscriptions
    return [f"{one.start}..{one.end or ''} {one.plan.id}.{one.plan.version}" for one in tenures(catalog, subscription)]


def parts(catalog: AppliedCatalog, label: str) -> list[str]:
    """Each phase of a period as `first day..day after plan.version`, with `trial` and its rests."""
    [subscription] = catalog.catalog.subscriptions
    timezone = catalog.catalog.customers[0].timezone
    period = billing_period(cadence_of(catalog, subscription), label, timezone)
    assert period is not None
    found = []
    for one in phases(catalog, subscription, period):
        rests = "".join(f" rest {start:%m-%d}..{end:%m-%d}" for start, end in one.rests)
        trial = " trial" if one.is_trial else ""
        found.append(f"{one.start:%m-%d}..{one.end:%m-%d} {one.plan.id}.{one.plan.version}{trial}{rests}")
    return found


V1, V2, V3 = plan("basic"), plan("basic", 2, "2013-03-01"), plan("basic", 3, "2013-06-01")
PRO = plan("pro")


@pytest.mark.parametrize(
    ("subscription", "expected"),
    [
        (subscribed("2013-02-28"), ["2013-02-28.. basic.1"]),
        (subscribed("2013-03-01"), ["2013-03-01.. basic.2"]),
        (subscribed("2013-05-31", "2013-09-01"), ["2013-05-31..2013-09-01 basic.2"]),
        (subscribed("2014-01-01", version=1), ["2014-01-01.. basic.1"]),
    ],
)
def test_a_subscription_keeps_the_version_that_was_newest_when_it_began_or_the_one_it_names(
    subscription: Subscription, expected: list[str]
) -> None:
    assert held(catalog_of(subscription, V3, V1, V2)) == expected


def test_a_change_has_the_newest_version_of_its_own_day() -> None:
    changes = (
        PlanChange(at=day("2013-02-10"), plan="pro"),
        PlanChange(at=day("2013-04-01"), plan="basic"),
        PlanChange(at=day("2013-07-01"), plan="basic", version=1),
    )

    assert held(catalog_of(subscribed("2013-01-01", changes=changes), V1, V2, V3, PRO)) == [
        "2013-01-01..2013-02-10 basic.1",
        "2013-02-10..2013-04-01 pro.1",
        "2013-04-01..2013-07-01 basic.2",
        "2013-07-01.. basic.1",
    ]


@pytest.mark.parametrize(
    ("subscription", "moves", "expected"),
    [
        (
            subscribed("2013-01-01"),
            [migration("2013-05-01", 1, 2)],
            ["2013-01-01..2013-05-01 basic.1", "2013-05-01.. basic.2"],
        ),
        (subscribed("2013-05-01", version=1), [migration("2013-05-01", 1, 2)], ["2013-05-01.. basic.2"]),
        (subscribed("2013-05-02", version=1), [migration("2013-05-01", 1, 2)], ["2013-05-02.. basic.1"]),
        (subscribed("2013-03-01"), [migration("2013-05-01", 1, 3)], ["2013-03-01.. basic.2"]),
        (subscribed("2013-01-01"), [migration("2013-05-01", 1, 2, "globex")], ["2013-01-01.. basic.1"]),
        (
            subscribed("2013-01-01"),
            [migration("2013-05-01", 1, 2, "globex", "acme")],
            ["2013-01-01..2013-05-01 basic.1", "2013-05-01.. basic.2"],
        ),
        (
            subscribed("2013-01-01"),
            [migration("2013-08-01", 2, 3), migration("2013-05-01", 1, 2)],
            ["2013-01-01..2013-05-01 basic.1", "2013-05-01..2013-08-01 basic.2", "2013-08-01.. basic.3"],
        ),
        (
            subscribed("2013-01-01"),
            [migration("2013-05-01", 1, 2), migration("2013-05-01", 2, 3, "acme")],
            ["2013-01-01..2013-05-01 basic.1", "2013-05-01.. basic.3"],
        ),
        (subscribed("2013-01-01", "2013-05-01"), [migration("2013-05-01", 1, 2)], ["2013-01-01..2013-05-01 basic.1"]),
    ],
)
def test_a_migration_moves_those_who_have_the_old_version_on_its_day(
    subscription: Subscription, moves: list[Migration], expected: list[str]
) -> None:
    assert held(catalog_of(subscription, V1, V2, V3, migrations=tuple(moves))) == expected


def test_a_change_comes_before_a_migration_of_the_same_day_and_one_to_the_same_version_is_no_border() -> None:
    same_day = PlanChange(at=day("2013-05-01"), plan="basic", version=1)
    subscription = subscribed("2013-01-01", plan="pro", changes=(same_day,))
    moved = catalog_of(subscription, V1, V2, PRO, migrations=(migration("2013-05-01", 1, 2),))
    unmoved = catalog_of(subscribed("2013-01-01", changes=(same_day,)), V1, V2)

    assert held(moved) == ["2013-01-01..2013-05-01 pro.1", "2013-05-01.. basic.2"]
    assert held(unmoved) == ["2013-01-01.. basic.1"]


@pytest.mark.parametrize(
    ("subscription", "label", "expected"),
    [
        (subscribed("2013-01-11", "2013-01-21"), "2013-01", ["01-11..01-21 basic.1"]),
        (subscribed("2013-01-11", "2013-01-21"), "2012-12", []),
        (subscribed("2013-01-11", "2013-02-01"), "2013-02", []),
        (
            subscribed("2013-01-11", trial_days=10),
            "2013-01",
            ["01-11..01-21 basic.1 trial", "01-21..02-01 basic.1"],
        ),
        (subscribed("2013-01-11", trial_days=50), "2013-02", ["02-01..03-01 basic.1 trial"]),
        (subscribed("2013-01-11", trial_days=50), "2013-03", ["03-01..03-02 basic.1 trial", "03-02..04-01 basic.1"]),
        (
            subscribed(
                "2013-01-01",
                trial_days=14,
                changes=(
                    PlanChange(at=day("2013-01-05"), plan="pro"),
                    PlanChange(at=day("2013-01-20"), plan="basic"),
                ),
            ),
            "2013-01",
            ["01-01..01-05 basic.1 trial", "01-05..01-15 pro.1 trial", "01-15..01-20 pro.1", "01-20..02-01 basic.1"],
        ),
        (
            subscribed(
                "2012-01-01",
                pauses=(
                    Pause(start=day("2013-01-25")),
                    Pause(start=day("2012-12-30"), end=day("2013-01-03")),
                    Pause(start=day("2013-01-10"), end=day("2013-01-20")),
                ),
                changes=(PlanChange(at=day("2013-01-15"), plan="pro"),),
            ),
            "2013-01",
            [
                "01-01..01-15 basic.1 rest 01-01..01-03 rest 01-10..01-15",
                "01-15..02-01 pro.1 rest 01-15..01-20 rest 01-25..02-01",
            ],
        ),
    ],
)
def test_a_period_is_cut_where_the_plan_or_the_trial_changes(
    subscription: Subscription, label: str, expected: list[str]
) -> None:
    assert parts(catalog_of(subscription, V1, PRO), label) == expected


def test_the_plans_trial_holds_unless_the_subscription_has_its_own() -> None:
    tried = plan("basic", trial_days=7)

    assert parts(catalog_of(subscribed("2013-01-01"), tried), "2013-01")[0] == "01-01..01-08 basic.1 trial"
    assert parts(catalog_of(subscribed("2013-01-01", trial_days=0), tried), "2013-01") == ["01-01..02-01 basic.1"]


def test_days_begin_on_the_customers_clock_also_where_it_changes() -> None:
    subscription = subscribed("2013-03-10", "2013-03-11")
    catalog = catalog_of(subscription, V1, timezone=NEW_YORK)
    [phase] = phases(
        catalog, subscription, billing_period_at(cadence_of(catalog, subscription), day("2013-03-10"), NEW_YORK)
    )

    assert (phase.start, phase.end) == (datetime(2013, 3, 10, 5, tzinfo=UTC), datetime(2013, 3, 11, 4, tzinfo=UTC))
    assert service_span(catalog, subscription) == (phase.start, phase.end)


def test_an_anniversary_period_is_the_subscriptions_own_and_counted_from_its_first() -> None:
    subscription = subscribed("2013-01-31")
    catalog = catalog_of(subscription, plan("basic", anchor=Anchor.ANNIVERSARY))
    cadence = cadence_of(catalog, subscription)
    period = billing_period_at(cadence, day("2013-03-30"), "UTC")
    [phase] = phases(catalog, subscription, period)

    assert (phase.period.label, phase.period_number) == ("2013-02-28..2013-03-31", 1)


def test_overrides_stand_for_the_plans_charges_in_the_subscriptions_currency() -> None:
    fee, extra = FlatCharge(id="fee", amount=Decimal(1)), FlatCharge(id="extra", amount=Decimal(2))
    fee_eur, extra_eur = FlatCharge(id="fee", amount=Decimal(3)), FlatCharge(id="extra", amount=Decimal(4))
    own = FlatCharge(id="extra", amount=Decimal(5))
    both = Plan(id="basic", charges=(fee, extra), prices={"EUR": PriceList(charges=(fee_eur, extra_eur))})
    subscription = subscribed("2013-01-01", currency="EUR", overrides=(own,))
    catalog = catalog_of(subscription, both)
    [phase] = phases(
        catalog, subscription, billing_period_at(cadence_of(catalog, subscription), day("2013-01-01"), "UTC")
    )

    assert (phase.currency, phase.prices.charges) == ("EUR", (fee_eur, own))


days = st.dates(date(2012, 1, 1), date(2014, 12, 31))


@st.composite
def lives(draw: st.DrawFn) -> AppliedCatalog:
    """A subscription with everything that can happen to one, in any order and number, with its catalog."""
    start = draw(days)
    end = draw(st.none() | st.integers(1, 900).map(lambda count: start + timedelta(days=count)))
    last = end or date(2015, 12, 31)
    inside = st.integers(1, 600).map(lambda count: start + timedelta(days=count)).filter(lambda one: one < last)
    moments = sorted(draw(st.sets(inside, max_size=4))) if (last - start).days > 1 else []
    changes = tuple(
        PlanChange(at=at, plan=draw(st.sampled_from(["basic", "pro"])), version=draw(st.none() | st.just(1)))
        for at in moments
    )
    pauses = tuple(
        Pause(start=at, end=at + timedelta(days=draw(st.integers(1, 60)))) for at in draw(st.sets(days, max_size=2))
    )
    more: dict[str, Any] = {
        "period": draw(st.sampled_from(BillingPeriod)),
        "period_days": draw(st.integers(1, 90)),
        "anchor": draw(st.sampled_from(Anchor)),
    }
    plans = [plan("basic", **more), plan("basic", 2, "2013-03-01", **more), plan("pro", **more)]
    migrations = tuple(migration(f"{at}", 1, 2) for at in draw(st.sets(days, max_size=2)))
    subscription = subscribed(
        start.isoformat(),
        None if end is None else end.isoformat(),
        changes=changes,
        pauses=pauses,
        trial_days=draw(st.none() | st.integers(0, 400)),
    )
    timezone = draw(st.sampled_from(["UTC", NEW_YORK, "Asia/Kathmandu", "America/Sao_Paulo", "Pacific/Apia"]))
    return catalog_of(subscription, *plans, migrations=migrations, timezone=timezone)


@given(catalog=lives(), at=days)
def test_phases_tile_what_the_subscription_covers_of_any_two_periods(catalog: AppliedCatalog, at: date) -> None:
    [subscription] = catalog.catalog.subscriptions
    cadence = cadence_of(catalog, subscription)
    period = billing_period_at(cadence, at, catalog.catalog.customers[0].timezone)
    following = next_period(cadence, period)
    begin, end = service_span(catalog, subscription)

    found = [*phases(catalog, subscription, period), *phases(catalog, subscription, following)]
    covered = max(period.start, begin), min(following.end, end or following.end)

    borders = [instant for one in found for instant in (one.start, one.end)]
    assert borders == sorted(borders)
    assert borders[1:-1:2] == borders[2::2]
    assert [borders[0], borders[-1]] == list(covered) if covered[0] < covered[1] else borders == []
    assert all(one.period.start <= one.start < one.end <= one.period.end for one in found)
    assert all(one.start <= rest[0] < rest[1] <= one.end for one in found for rest in one.rests)


@given(catalog=lives())
def test_tenures_tile_the_subscription(catalog: AppliedCatalog) -> None:
    [subscription] = catalog.catalog.subscriptions
    found = tenures(catalog, subscription)

    assert (found[0].start, found[-1].end) == (subscription.start, subscription.end)
    assert [one.end for one in found[:-1]] == [one.start for one in found[1:]]
    assert all(one.end is None or one.start < one.end for one in found)
