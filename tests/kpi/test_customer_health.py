"""Customer health: its figures, what has none, the blend, and the days on which quotas were used up."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any

import pytest

from metering import catalog_store
from metering.entitlements.terms import TermsBook
from schemas.catalog import AppliedCatalog
from schemas.health import Health
from schemas.quota import LimitKind
from schemas.zone import zone_of
from tests.support.made_kpis import apply, business_facts, rows
from tests.support.made_usage import MadeEvent, UsageTables, made_catalog

FOURTH = Decimal("0.0001")
TWELFTH = Decimal("1E-12")
CATALOG = """
event_types: [nps.response, support.contact]
meters:
  - {name: count, event_type: used, aggregation: count}
  - {name: sum, event_type: used, aggregation: sum, value: n}
customers:
  - {id: acme, subjects: [s1]}
  - {id: bolt, subjects: [s2]}
plans:
  - {id: pro, charges: [{id: fee, model: flat, amount: 10}]}
subscriptions:
  - {id: acme-1, customer: acme, plan: pro, start: 2024-01-01, end: 2024-05-01}
  - {id: bolt-1, customer: bolt, plan: pro, start: 2024-01-01, end: 2024-05-01}
"""


def use(tables: UsageTables, days: Iterable[tuple[str, date]], meter: str = "count") -> None:
    """One event of a meter for each subject and day, in a rollup of its own."""
    made: list[tuple[object, ...]] = [
        (meter, subject, datetime(day.year, day.month, day.day, 9, tzinfo=UTC), {}, 1, "log-1", 0, place, place, 1)
        for place, (subject, day) in enumerate(days)
    ]
    columns = (
        "meter", "subject", "window_start", "dimensions", "meter_version", "epoch", "partition", "position_first",
        "position", "events_count",
    )  # fmt: skip
    tables.client.insert("rollups", made, column_names=columns)


def health(tables: UsageTables, columns: str, customer: str = "acme", month: str = "2024-03-01") -> tuple[Any, ...]:
    [found] = rows(
        tables,
        f"SELECT {columns} FROM kpi_customer_health WHERE customer = '{customer}' AND month = '{month}'",  # noqa: S608 - texts of this file
    )
    return found


def test_every_figure_is_what_the_events_of_the_month_say(tables: UsageTables) -> None:
    apply(tables, CATALOG + "quotas: [{id: q, customer: acme, meter: count, quantity: 3}]")
    march = [date(2024, 3, day) for day in (1, 2, 4, 4, 20)]
    use(tables, [("s1", date(2024, 2, 10)), ("s1", date(2024, 2, 11)), *(("s1", day) for day in march)])
    scores = [("2023-03-31", 1), ("2023-04-01", 4), ("2024-03-31", 9), ("2024-04-01", 1)]
    answers = [("nps.response", "s1", f"{day}T10:00:00", {"score": score}) for day, score in scores]
    asked: list[tuple[str, str, str, dict[str, Any]]] = [
        ("support.contact", who, "2024-03-02T10:00:00", {}) for who in ("s1", "s1", "s2", "nobody")
    ]
    business_facts(tables, [*answers, *asked])

    names = ("trend", "breadth", "recency", "limits", "engagement", "nps", "contacts")
    found = dict(zip(names, health(tables, ", ".join(names)), strict=True))

    assert found == {
        "trend": "233.871",  # 5 events in 31 days, after 2 in 29
        "breadth": "50",  # one of two meters
        "recency": "11",  # from the 20th to the 31st
        "limits": "1",  # the third event is of the 4th
        "engagement": "12.9032",  # 4 of 31 days
        "nps": "6.5",  # 4 and 9: a year is the month and the 11 before
        "contacts": "2",
    }


def test_a_part_without_a_figure_has_no_score_and_the_others_share_its_weight(tables: UsageTables) -> None:
    apply(tables, CATALOG)

    found = health(
        tables,
        "health, weight_covered, trend_score, recency_score, limits_score, nps_score, contacts_score, breadth_score, "
        "engagement_score",
    )
    shares = rows(
        tables,
        "SELECT part, figure, score, weight_used FROM kpi_customer_health_parts "
        "WHERE customer = 'acme' AND month = '2024-03-01' AND weight_used > 0 ORDER BY part",
    )

    assert found == ("0", "30", None, None, None, None, None, "0", "0")
    assert shares == [("breadth", "0", "0", "33.3333"), ("engagement", "0", "0", "66.6667")]


def test_nobody_has_contacts_before_the_first_one_is_on_record(tables: UsageTables) -> None:
    apply(tables, CATALOG)
    business_facts(tables, [("support.contact", "s2", "2024-03-02T10:00:00", {})])

    assert [health(tables, "contacts", month=f"2024-0{month}-01") for month in (2, 3, 4)] == [(None,), ("0",), ("0",)]


def test_a_blend_of_nothing_is_null_and_never_zero(tables: UsageTables) -> None:
    others = ", ".join(f"{name}: {{weight: 0}}" for name in Health().parts() if name != "nps")
    apply(tables, f"{CATALOG}health: {{{others}}}")

    assert health(tables, "health, weight_covered, breadth, breadth_score") == (None, "0", "0", "0")


def test_scores_stop_at_0_and_100_and_follow_the_bounds_of_the_catalog(tables: UsageTables) -> None:
    apply(tables, f"{CATALOG}health: {{nps: {{zero_at: 5, full_at: 9, weight: 0.5}}}}")
    business_facts(
        tables,
        [("nps.response", who, "2024-02-01T10:00:00", {"score": score}) for who, score in (("s1", 8), ("s2", 2))],
    )

    assert health(tables, "nps, nps_score, nps_weight") == ("8", "75", "0.5")
    assert health(tables, "nps, nps_score", customer="bolt") == ("2", "0")


def test_a_month_without_a_subscription_usage_or_feedback_has_no_row(tables: UsageTables) -> None:
    apply(tables, CATALOG)
    use(tables, [("s1", date(2024, 7, 1))])
    business_facts(tables, [("support.contact", "s2", "2024-09-02T10:00:00", {})])

    found = rows(tables, "SELECT customer, month FROM kpi_customer_health WHERE month > '2024-04-01' ORDER BY month")

    assert found == [("acme", "2024-07-01"), ("bolt", "2024-09-01")]


def test_the_present_month_is_judged_by_the_days_that_are_over(tables: UsageTables) -> None:
    apply(tables, CATALOG)
    while True:
        today = tables.client.query("SELECT today()").result_rows[0][0]
        tables.client.command("TRUNCATE TABLE rollups")
        use(tables, [("s1", today - timedelta(days=back)) for back in range(70)])
        found = health(tables, "trend, engagement, recency", month=f"{today.replace(day=1)}")
        if tables.client.query("SELECT today()").result_rows[0][0] == today:
            break

    # Today is not over: on the first of a month no day is.
    assert found == ((None, None, "0") if today.day == 1 else ("100", "100", "0"))


def test_what_the_view_takes_for_granted_is_what_the_catalog_does(tables: UsageTables) -> None:
    document = '{"catalog": {}, "meter_versions": []}'  # as a version stored it that knew nothing of health
    tables.client.insert("catalog_versions", [(1, "", document, datetime(2024, 1, 1, tzinfo=UTC), "a test")])

    found = rows(tables, "SELECT part, weight, zero_at, full_at FROM health_rules")

    usual = Health().parts()
    assert found == [(name, f"{one.weight}", f"{one.zero_at}", f"{one.full_at}") for name, one in usual.items()]


def plain_blend(parts: list[tuple[str | None, ...]]) -> tuple[Decimal | None, Decimal]:
    """Score and cover of (figure, zero_at, full_at, weight), counted once more; the engine cuts after 12 decimals."""
    scores: list[tuple[Decimal, Decimal]] = []
    weights = Decimal(0)
    for figure, zero_at, full_at, weight in parts:
        weights += Decimal(weight or 0)
        if figure is not None:
            part = (Decimal(figure) - Decimal(zero_at or 0)) * 100 / (Decimal(full_at or 0) - Decimal(zero_at or 0))
            part = part.quantize(TWELFTH, rounding=ROUND_DOWN)
            scores.append(
                (min(max(part, Decimal(0)), Decimal(100)).quantize(FOURTH, ROUND_HALF_UP), Decimal(weight or 0))
            )
    known = sum((weight for _, weight in scores), Decimal(0))
    blend = sum((score * weight for score, weight in scores), Decimal(0)) / known if known else None
    return None if blend is None else blend.quantize(FOURTH, ROUND_HALF_UP), (known * 100 / weights).quantize(
        FOURTH, ROUND_HALF_UP
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_the_blend_is_the_weighted_mean_of_the_scores(tables: UsageTables, seed: int) -> None:
    chance = random.Random(seed)
    apply(tables, f"{CATALOG}health: {{nps: {{weight: 12.5}}, recency: {{full_at: 0.5}}, trend: {{zero_at: 33.3}}}}")
    days = [date(2024, 1, 1) + timedelta(days=chance.randrange(121)) for _ in range(60)]
    use(tables, [(chance.choice(["s1", "s1", "s2"]), day) for day in days])
    answers = [
        ("nps.response", "s1", f"{chance.choice(days)}T10:00:00", {"score": chance.randrange(11)}) for _ in range(4)
    ]
    business_facts(tables, [*answers, ("support.contact", "s2", f"{chance.choice(days)}T10:00:00", {})])

    months = rows(tables, "SELECT customer, month, health, weight_covered FROM kpi_customer_health ORDER BY ALL")
    parts = rows(tables, "SELECT customer, month, figure, zero_at, full_at, weight FROM kpi_customer_health_parts")

    assert len(months) == 8
    for customer, month, blend, covered in months:
        here = [one[2:] for one in parts if one[:2] == (customer, month)]
        assert (None if blend is None else Decimal(blend), Decimal(covered or 0)) == plain_blend(here), (
            customer,
            month,
        )


ANCHORS = ("calendar", "anniversary")
PERIODS: list[tuple[str, str, str]] = [
    *(
        ("month", anchor, period)
        for anchor in ("calendar", "anniversary")
        for period in ("", "week", "quarter", "year")
    ),
    *((unit, anchor, "") for unit in ("week", "quarter", "year") for anchor in ("calendar", "anniversary")),
    ("days, period_days: 10", "calendar", ""),
]
"""Period and anchor of a plan, and the period of its quota."""
STARTS = ("2023-01-31", "2023-02-28", "2023-03-15", "2023-05-01")


def quota_world(chance: random.Random) -> str:
    """A customer for each kind of period, with a quota of each kind of meter; every other one has a zone of its own."""
    plans, customers, subscriptions, quotas = [], [], [], []
    meters = ("count", "sum", "max", "latest", "unique_count", "avg", "min")
    for number, (unit, anchor, period) in enumerate(PERIODS):
        zone = chance.choice(["UTC", "Asia/Kathmandu", "America/New_York"])
        fee = "charges: [{id: fee, model: flat, amount: 1}]"
        plans.append(f"  - {{id: p{number}, period: {unit}, anchor: {anchor}, {fee}}}")
        customers.append(f"  - {{id: c{number}, subjects: [s{number}], timezone: {zone}}}")
        end = chance.choice(["", ", end: 2023-08-07"])
        start = f"customer: c{number}, plan: p{number}, start: {chance.choice(STARTS)}"
        subscriptions += [f"  - {{id: u{number}, {start}{end}}}"]
        for meter in chance.sample(meters, 3) if number else meters:
            asked = f", period: {period}" if period else ""
            quantity = {"count": 6, "sum": 40, "unique_count": 4, "avg": 5}.get(meter, 9)
            quotas.append(
                f"  - {{id: q{number}-{meter}, plan: p{number}, meter: {meter}, quantity: {quantity}{asked}}}"
            )
    quotas.append("  - {id: own, customer: c0, meter: count, quantity: 2}")
    parts = {"customers": customers, "plans": plans, "subscriptions": subscriptions, "quotas": quotas}
    made = made_catalog().catalog.meters
    meters_said = "\n".join(
        f"  - {{name: {one.name}, event_type: used, aggregation: {one.aggregation.value}"
        + ("" if one.value is None else f", value: {one.value}")
        + ", group_by: {kind: kind, region: region}}"
        for one in made
    )
    return f"meters:\n{meters_said}\n" + "\n".join(f"{name}:\n" + "\n".join(some) for name, some in parts.items())


def plain_used(events: list[MadeEvent], meter: str) -> Decimal:
    values = [Decimal(one.value or "0") for one in events]
    last = max(events, key=lambda one: (one.time, one.offset))
    return {
        "count": Decimal(len(events)),
        "sum": sum(values, Decimal(0)),
        "max": max(values),
        "min": min(values),
        "latest": Decimal(last.value or "0"),
        "unique_count": Decimal(len({one.user for one in events})),
        "avg": sum(values, Decimal(0)) / len(values),
    }[meter]


def plain_hits(catalog: AppliedCatalog, events: list[MadeEvent]) -> Mapping[tuple[str, str, str], str]:
    """The first day of each period as which ends a quota is used up, by what entitlements say of that moment."""
    book = TermsBook(catalog)
    found: dict[tuple[str, str, str], str] = {}
    for customer in catalog.catalog.customers:
        own = [one for one in events if one.subject in customer.subjects]
        zone = zone_of(customer.timezone)
        for day in sorted({one.time.astimezone(zone).date() for one in own}):
            moment = datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=zone).astimezone(UTC)
            for meter, terms in book.at(customer, moment).meters.items():
                for limit in terms.limits:
                    so_far = [one for one in own if limit.span.start <= one.time <= moment]
                    if limit.kind is LimitKind.QUOTA and so_far and plain_used(so_far, meter) >= limit.quantity:
                        begun = f"{limit.span.start.astimezone(zone).date()}"
                        found.setdefault((limit.id, customer.id, begun), f"{day}")
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_quotas_are_used_up_on_the_day_on_which_entitlements_say_so(tables: UsageTables, seed: int) -> None:
    chance = random.Random(seed)
    apply(tables, quota_world(chance))
    events = [
        MadeEvent(
            time=datetime(2023, 1, 1, tzinfo=UTC) + timedelta(minutes=chance.randrange(400_000)),
            subject=f"s{chance.randrange(len(PERIODS))}",
            value=str(chance.randrange(1, 12)),
            user=f"u{chance.randrange(6)}",
            kind=chance.choice("ab"),
            offset=offset,
        )
        for offset in range(700)
    ]
    tables.fold(events, flush_every=len(events))
    catalog = catalog_store.latest(tables.client)
    assert catalog is not None

    found = rows(tables, "SELECT quota, customer, period_start, day FROM quota_hits")

    expected = plain_hits(catalog, events)
    assert {(quota, customer, begun): day for quota, customer, begun, day in found} == expected
    assert len(found) == len(expected) > 100
